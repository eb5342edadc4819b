"""Limits on how much is read of a file, so that a decompression bomb cannot fill the memory.

The defaults are far above what ordinary files need, and config fields raise them.
"""

import dataclasses

from rlp.runtime.errors import UserError

UNCHECKED_BYTES = 2**26  # decompressed bytes that any file may have, however small it is
_LONG = 2**26  # bytes of a JSON text above which its values are counted before it is parsed
_VALUE = 100  # approximate bytes of a Python object
_MEMORY = 4  # memory limit for the values of a row, as a multiple of `row_bytes`


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits on rows and on decompression.

    Attributes:
      row_bytes: maximum bytes of one row, or of one document of a .txt file
        (`data.max_row_bytes`).
      ratio: maximum bytes of content per byte of a compressed file
        (`data.max_decompression_ratio`).
    """

    row_bytes: int = 2**30
    ratio: float = 250.0

    def check_row(self, where: str, size: int) -> None:
        """Raise UserError if a row, or the part read so far, has too many bytes."""
        if size > self.row_bytes:
            raise UserError(
                f"{where}: longer than data.max_row_bytes={self.row_bytes} bytes; split it, or "
                "raise that field",
                field="data.max_row_bytes",
                value=self.row_bytes,
            )

    def check_json(self, where: str, line: bytes) -> None:
        """Raise UserError if a JSON row is too long, or has more values than fit in memory: two
        characters of JSON can become an object of a hundred bytes."""
        self.check_row(where, len(line))
        if len(line) <= _LONG:
            return
        values = line.count(b",") + line.count(b"[") + line.count(b"{")
        if values * _VALUE > _MEMORY * self.row_bytes:
            raise UserError(
                f"{where}: has about {values:,} JSON values, more than "
                f"data.max_row_bytes={self.row_bytes} allows (at {_VALUE} bytes each they may take "
                f"{_MEMORY} times that field); split the row, or raise that field",
                field="data.max_row_bytes",
                value=self.row_bytes,
            )


LIMITS = Limits()


class Meter:
    """Compare the decompressed bytes of a file with its compressed bytes."""

    def __init__(self, path: str, limits: Limits) -> None:
        self._path, self._max_ratio = path, limits.ratio
        self._read = self._unpacked = 0

    def read(self, count: int) -> None:
        """Count compressed bytes, as read from the file."""
        self._read += count

    def unpacked(self, count: int) -> None:
        """Count decompressed bytes.

        Raises:
          UserError: If they exceed the allowed ratio to the bytes read so far.
        """
        self._unpacked += count
        if self._unpacked > UNCHECKED_BYTES and self._unpacked > self._max_ratio * self._read:
            raise UserError(
                f"{self._path}: its first {self._read:,} bytes unpack to at least "
                f"{self._unpacked:,} bytes, more than data.max_decompression_ratio="
                f"{self._max_ratio:g} times as many; if you trust the file, raise that field",
                field="data.max_decompression_ratio",
                value=self._max_ratio,
            )
