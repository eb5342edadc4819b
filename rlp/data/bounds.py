"""How much is read of a file: a small one that unpacks to terabytes must not fill the memory.

The limits are far beyond what honest files hold, and fields of the config raise them.
"""

import dataclasses

from rlp.runtime.errors import UserError

FREE = 2**26  # bytes that the content of any file may have, however small the file is
_LONG = 2**26  # bytes of a JSON text above which its values are counted before it is read
_VALUE = 100  # bytes that an object of Python takes, about
_MEMORY = 4  # times the longest row, that the values of a row may take


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is read of a file.

    Attributes:
      row_bytes: most bytes of one row, or of one document of a .txt file (`data.max_row_bytes`).
      ratio: most bytes of content per byte of a compressed file (`data.max_decompression_ratio`).
    """

    row_bytes: int = 2**30
    ratio: float = 250.0

    def check_row(self, where: str, size: int) -> None:
        """Raises UserError if a row, or what of it has been read, has too many bytes."""
        if size > self.row_bytes:
            raise UserError(
                f"{where}: it has more than data.max_row_bytes={self.row_bytes} bytes; split it, "
                "or raise that field",
                field="data.max_row_bytes",
                value=self.row_bytes,
            )

    def check_json(self, where: str, line: bytes) -> None:
        """Raises UserError if a row in JSON is too long, or holds more values than fit in memory:
        two characters can stand for an object of a hundred bytes."""
        self.check_row(where, len(line))
        if len(line) <= _LONG:
            return
        values = line.count(b",") + line.count(b"[") + line.count(b"{")
        if values * _VALUE > _MEMORY * self.row_bytes:
            raise UserError(
                f"{where}: it holds about {values:,} values, more than "
                f"data.max_row_bytes={self.row_bytes} allows ({_VALUE} bytes each, and "
                f"{_MEMORY} times that field in all); split it, or raise that field",
                field="data.max_row_bytes",
                value=self.row_bytes,
            )


LIMITS = Limits()


class Meter:
    """Compares how many bytes come out of a compressed file with how many went in."""

    def __init__(self, path: str, limits: Limits) -> None:
        self._path, self._most = path, limits.ratio
        self._read = self._made = 0

    def read(self, count: int) -> None:
        """Counts bytes of the file."""
        self._read += count

    def made(self, count: int) -> None:
        """Counts bytes of its content.

        Raises:
          UserError: they are too many for what was read of the file.
        """
        self._made += count
        if self._made > FREE and self._made > self._most * self._read:
            raise UserError(
                f"{self._path}: its first {self._read:,} bytes unpack to {self._made:,} or more, "
                f"over data.max_decompression_ratio={self._most:g} times as many; if it is meant "
                "to, raise that field",
                field="data.max_decompression_ratio",
                value=self._most,
            )
