"""The content of files: decompressed by their endings, as pieces, lines or one text.

A byte order mark at the beginning of a file is not a part of its text.
"""

import codecs
import logging
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import zstandard

from rlp.data import places
from rlp.errors import UserError

LOGGER = logging.getLogger(__name__)

OnRead = Callable[[int], object]  # is told how many bytes have been read since it was last told

_CHUNK = 1 << 20  # bytes read or decompressed at a time
_GZIP = 31  # zlib's number for "gzip header and checksum"
_GZIP_MAGIC = b"\x1f\x8b"
_NEWLINE = re.compile(r"\r\n?")


def universal_newlines(text: str) -> str:
    """A text whose line ends, CRLF and CR included, are all LF."""
    return _NEWLINE.sub("\n", text)


def read_text(path: str, on_read: OnRead) -> str:
    """The text of a file, with universal newlines.

    Raises:
      UserError: it is not valid UTF-8, or cannot be decompressed.
    """
    data = b"".join(chunks(path, on_read)).removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n?|\n", data[: error.start])) + 1
        raise UserError(
            f"{path}, line {line}: not valid UTF-8: {error.reason}{_other_encoding(data)}"
        ) from error
    if "\0" in text:
        raise UserError(
            f"{path}: it holds bytes of zero, as binary files and UTF-16 or UTF-32 do; convert it "
            "to UTF-8"
        )
    return universal_newlines(text)


def read_lines(path: str, on_read: OnRead) -> Iterator[bytes]:
    """The lines of a file, without their newlines.

    Raises:
      UserError: it cannot be decompressed, or is in UTF-16.
    """
    rest: list[bytes] = []
    first = True
    for chunk in chunks(path, on_read):
        begun, *others = chunk.split(b"\n")
        rest.append(begun)
        if others:
            lines = [b"".join(rest), *others[:-1]]
            rest = [others[-1]]
            if first:
                lines[0], first = _without_mark(path, lines[0]), False
            # In a file that others were appended to, each may begin with a mark.
            yield from (line.removeprefix(codecs.BOM_UTF8) for line in lines)
    last = b"".join(rest)
    yield _without_mark(path, last) if first else last


def chunks(path: str, on_read: OnRead) -> Iterator[bytes]:
    """The content of a file, decompressed by its ending, in pieces.

    Raises:
      UserError: it cannot be decompressed.
    """
    with places.open_file(path) as file:
        if path.lower().endswith(".zst"):
            yield from _decompress_zstd(path, file, on_read)
        elif path.lower().endswith(".gz"):
            yield from _decompress_gzip(path, file, on_read)
        else:
            while chunk := file.read(_CHUNK):
                yield chunk
                on_read(len(chunk))


def _without_mark(path: str, line: bytes) -> bytes:
    """The first line of a file without a byte order mark."""
    if hint := _other_encoding(line):
        raise UserError(f"{path}, line 1: not valid UTF-8{hint}")
    return line.removeprefix(codecs.BOM_UTF8)


def _other_encoding(data: bytes) -> str:
    """What to do about a file that begins with the mark of UTF-16; "" for others."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "; the file is in UTF-16: convert it to UTF-8"
    return ""


def _decompress_gzip(path: str, file: BinaryIO, on_read: OnRead) -> Iterator[bytes]:
    """The content of a gzip file, member by member.

    As by the gzip program, zeros that pad the file are skipped, and other bytes behind the last
    whole member are left out with a warning.
    """
    member = None  # None between members
    begun, count = b"", 0  # the first bytes of the member, and how many whole ones came before
    while data := file.read(_CHUNK):
        on_read(len(data))
        while data:
            if member is None:
                data = data.lstrip(b"\0") if count else data
                if not data:
                    break
                member, begun = zlib.decompressobj(_GZIP), b""
            begun = (begun + data[:2])[:2]
            try:
                yield member.decompress(data)
            except zlib.error as error:
                if _GZIP_MAGIC.startswith(begun):
                    raise UserError(f"{path}: damaged gzip file: {error}") from error
                if not count:
                    raise UserError(f"{path}: not a gzip file, though its name says so") from error
                _warn_of_rest(path)
                return
            data = member.unused_data
            if member.eof:
                member, count = None, count + 1
    if member is not None:
        if count and not _GZIP_MAGIC.startswith(begun):
            _warn_of_rest(path)
            return
        raise UserError(f"{path}: cut off: the gzip file ends before its content does")


def _warn_of_rest(path: str) -> None:
    LOGGER.warning("%s: bytes behind the end of its gzip data are left out", path)


def _decompress_zstd(path: str, file: BinaryIO, on_read: OnRead) -> Iterator[bytes]:
    """The content of a zstd file.

    Frame by frame, since the library's own reader stops after the first frame of several and
    takes a file that was cut off for a shorter one.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = None  # None between frames
    try:
        while data := file.read(_CHUNK):
            on_read(len(data))
            while data:
                frame = frame or decompressor.decompressobj()
                yield frame.decompress(data)
                data = frame.unused_data
                if frame.eof:
                    frame = None
    except zstandard.ZstdError as error:
        raise UserError(f"{path}: damaged zstd file: {error}") from error
    if frame is not None:
        raise UserError(f"{path}: cut off: the zstd file ends in the middle of a frame")
