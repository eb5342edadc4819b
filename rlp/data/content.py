"""The content of files: decompressed by their endings, as pieces, lines or texts.

A byte order mark at the beginning of a file is not a part of its text. All is streamed, so a file
of any size takes no more memory than one of its rows may.
"""

import codecs
import io
import itertools
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import zstandard

from rlp.data import locations
from rlp.data.bounds import Limits, Meter
from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)

OnRead = Callable[[int], object]  # is told how many bytes have been read since it was last told

_CHUNK = 1 << 20  # bytes read or decompressed at a time
_ZSTD_CHUNK = 1 << 9  # bytes given to zstd at a time; four can be a block of 128 KiB
_GZIP = 31  # zlib's number for "gzip header and checksum"
_GZIP_MAGIC = b"\x1f\x8b"
_NEWLINE = re.compile(r"\r\n?")


def universal_newlines(text: str) -> str:
    """A text whose line ends, CRLF and CR included, are all LF."""
    return _NEWLINE.sub("\n", text)


def read_texts(path: str, separator: str, on_read: OnRead, limits: Limits) -> Iterator[str]:
    """The texts of a file between separators, with universal newlines; "" for one text.

    Raises:
      UserError: it is not valid UTF-8, or cannot be decompressed; a text is too long.
    """
    begun: list[str] = []  # of a text: pieces in which no separator begins
    rest, size, count = "", 0, 1  # what follows them, how long they are, and the number of the text
    for piece in _decoded(path, on_read, limits):
        *ended, last = (rest + piece).split(separator) if separator else [rest + piece]
        for text in ended:
            limits.check_row(f"{path}, document {count}", size + len(text))
            yield "".join([*begun, text])
            begun, size, count = [], 0, count + 1
        cut = len(last) - min(len(last), max(len(separator) - 1, 0))
        begun.append(last[:cut])
        rest = last[cut:]  # may begin a separator
        size += cut
        limits.check_row(f"{path}, document {count}", size)
    yield "".join([*begun, rest])


def _decoded(path: str, on_read: OnRead, limits: Limits) -> Iterator[str]:
    """The text of a file in pieces, with universal newlines and without a byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    lines, first = 1, True
    pieces = itertools.chain(chunks(path, on_read, limits), [None])
    hint = ""
    for data in pieces:
        if first and data:
            hint = _other_encoding(data)
        try:
            text = decoder.decode(data or b"", final=data is None)
        except UnicodeDecodeError as error:
            line = lines + len(re.findall(rb"\r\n?|\n", error.object[: error.start]))
            raise UserError(
                f"{path}, line {line}: not valid UTF-8: {error.reason}{hint}"
            ) from error
        if "\0" in text:
            raise UserError(
                f"{path}: it holds bytes of zero, as binary files and UTF-16 or UTF-32 do; convert "
                "it to UTF-8"
            )
        text = newlines.decode(text, final=data is None)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        lines += text.count("\n")
        yield text


def read_lines(path: str, on_read: OnRead, limits: Limits) -> Iterator[bytes]:
    """The lines of a file, without their newlines.

    Raises:
      UserError: it cannot be decompressed, or is in UTF-16; a line is too long.
    """
    rest: list[bytes] = []
    size, count = 0, 1  # bytes in `rest`, and the number of its line
    for chunk in chunks(path, on_read, limits):
        begun, *others = chunk.split(b"\n")
        rest.append(begun)
        size += len(begun)
        limits.check_row(f"{path}, line {count}", size)
        if others:
            lines = [b"".join(rest), *others[:-1]]
            rest, size = [others[-1]], len(others[-1])
            if count == 1:
                lines[0] = _without_mark(path, lines[0])
            count += len(lines)
            # In a file that others were appended to, each may begin with a mark.
            yield from (line.removeprefix(codecs.BOM_UTF8) for line in lines)
    last = b"".join(rest)
    yield _without_mark(path, last) if count == 1 else last


def chunks(path: str, on_read: OnRead, limits: Limits) -> Iterator[bytes]:
    """The content of a file, decompressed by its ending, in pieces.

    Raises:
      UserError: it cannot be decompressed, or has too much content for its size.
    """
    with locations.open_file(path) as file:
        stored = _stored(path, file, on_read)
        if path.lower().endswith(".zst"):
            yield from _decompress_zstd(path, stored, Meter(path, limits))
        elif path.lower().endswith(".gz"):
            yield from _decompress_gzip(path, stored, Meter(path, limits))
        else:
            yield from stored


def _stored(path: str, file: BinaryIO, on_read: OnRead) -> Iterator[bytes]:
    """What a file holds, as it is, in pieces. One that something writes to might never end, and
    would hold other rows the next time."""
    size = None if locations.is_url(path) else os.fstat(file.fileno()).st_size
    count = 0
    while data := file.read(_CHUNK):
        count += len(data)
        if size is not None and count > size:
            raise UserError(
                f"{path}: it grew beyond its {size:,} bytes while it was read; give a copy that "
                "nothing writes to"
            )
        on_read(len(data))
        yield data


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


def _decompress_gzip(path: str, stored: Iterator[bytes], meter: Meter) -> Iterator[bytes]:
    """The content of a gzip file, member by member.

    As by the gzip program, zeros that pad the file are skipped, and other bytes behind the last
    whole member are left out with a warning.
    """
    member = None  # None between members
    begun, count = b"", 0  # the first bytes of the member, and how many whole ones came before
    for data in stored:
        meter.read(len(data))
        while data:
            if member is None:
                data = data.lstrip(b"\0") if count else data
                if not data:
                    break
                member, begun = zlib.decompressobj(_GZIP), b""
            begun = (begun + data[:2])[:2]
            try:
                for piece in _pieces(member, data):
                    meter.made(len(piece))
                    yield piece
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


def _pieces(member: Any, data: bytes) -> Iterator[bytes]:
    """What a member makes of further bytes, in pieces of at most `_CHUNK` bytes."""
    piece = member.decompress(data, _CHUNK)
    yield piece
    while not member.eof and (member.unconsumed_tail or len(piece) == _CHUNK):
        piece = member.decompress(member.unconsumed_tail, _CHUNK)
        yield piece


def _warn_of_rest(path: str) -> None:
    LOGGER.warning("%s: bytes behind the end of its gzip data are left out", path)


def _decompress_zstd(path: str, stored: Iterator[bytes], meter: Meter) -> Iterator[bytes]:
    """The content of a zstd file.

    Frame by frame, since the library's own reader stops after the first frame of several and
    takes a file that was cut off for a shorter one.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = None  # None between frames
    try:
        for data in itertools.chain.from_iterable(map(_small, stored)):
            meter.read(len(data))
            while data:
                frame = frame or decompressor.decompressobj()
                piece = frame.decompress(data)
                meter.made(len(piece))
                yield piece
                data = frame.unused_data
                if frame.eof:
                    frame = None
    except zstandard.ZstdError as error:
        raise UserError(f"{path}: damaged zstd file: {error}") from error
    if frame is not None:
        raise UserError(f"{path}: cut off: the zstd file ends in the middle of a frame")


def _small(data: bytes) -> Iterator[bytes]:
    """Bytes in pieces that zstd cannot make too much of at once."""
    for start in range(0, len(data), _ZSTD_CHUNK):
        yield data[start : start + _ZSTD_CHUNK]
