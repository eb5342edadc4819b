"""The content of files, decompressed according to their endings, as chunks, lines or texts.

A byte order mark (BOM) at the beginning of a file is not part of its text. Files are streamed, so
reading one takes no more memory than the largest row that the limits allow.
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

OnRead = Callable[[int], object]  # receives the number of bytes read since its last call

_CHUNK = 1 << 20  # bytes read or decompressed at a time
_ZSTD_CHUNK = 1 << 9  # bytes passed to zstd at a time; four bytes can encode a block of 128 KiB
_GZIP = 31  # zlib's number for "gzip header and checksum"
_GZIP_MAGIC = b"\x1f\x8b"
_NEWLINE = re.compile(r"\r\n?")


def universal_newlines(text: str) -> str:
    """Convert all line ends of a text, CRLF and CR included, to LF."""
    return _NEWLINE.sub("\n", text)


def read_texts(path: str, separator: str, on_read: OnRead, limits: Limits) -> Iterator[str]:
    """Yield the texts between the separators of a file, with universal newlines.

    An empty separator yields the whole file as one text.

    Raises:
      UserError: If the file is not valid UTF-8 or cannot be decompressed, or a text is too long.
    """
    head: list[str] = []  # pieces of the current text in which no separator begins
    size, count = 0, 1  # characters in `head`, and the number of the current text
    tail = ""  # the rest of the current text so far
    for piece in _decoded(path, on_read, limits):
        *complete, last = (tail + piece).split(separator) if separator else [tail + piece]
        for text in complete:
            limits.check_row(f"{path}, document {count}", size + len(text))
            yield "".join([*head, text])
            head, size, count = [], 0, count + 1
        cut = len(last) - min(len(last), max(len(separator) - 1, 0))
        head.append(last[:cut])
        tail = last[cut:]  # may be the beginning of a separator
        size += cut
        limits.check_row(f"{path}, document {count}", size)
    yield "".join([*head, tail])


def _decoded(path: str, on_read: OnRead, limits: Limits) -> Iterator[str]:
    """Yield the text of a file in pieces, with universal newlines and without a BOM."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    lines, first = 1, True
    pieces = itertools.chain(chunks(path, on_read, limits), [None])
    hint = ""
    for data in pieces:
        if first and data:
            hint = _utf16_hint(data)
        try:
            text = decoder.decode(data or b"", final=data is None)
        except UnicodeDecodeError as error:
            line = lines + len(re.findall(rb"\r\n?|\n", error.object[: error.start]))
            raise UserError(
                f"{path}, line {line}: not valid UTF-8: {error.reason}{hint}"
            ) from error
        if "\0" in text:
            raise UserError(
                f"{path}: contains zero bytes, as binary files and UTF-16 or UTF-32 do; convert it "
                "to UTF-8"
            )
        text = newlines.decode(text, final=data is None)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        lines += text.count("\n")
        yield text


def read_lines(path: str, on_read: OnRead, limits: Limits) -> Iterator[bytes]:
    """Yield the lines of a file, without their newlines.

    Raises:
      UserError: If the file cannot be decompressed or is in UTF-16, or a line is too long.
    """
    pieces: list[bytes] = []  # of the current line
    size, count = 0, 1  # bytes in `pieces`, and the number of the current line
    for chunk in chunks(path, on_read, limits):
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        size += len(first)
        limits.check_row(f"{path}, line {count}", size)
        if others:
            lines = [b"".join(pieces), *others[:-1]]
            pieces, size = [others[-1]], len(others[-1])
            if count == 1:
                lines[0] = _without_bom(path, lines[0])
            count += len(lines)
            # If files were concatenated, each of them may begin with a BOM.
            yield from (line.removeprefix(codecs.BOM_UTF8) for line in lines)
    last = b"".join(pieces)
    yield _without_bom(path, last) if count == 1 else last


def chunks(path: str, on_read: OnRead, limits: Limits) -> Iterator[bytes]:
    """Yield the content of a file in chunks, decompressed according to its ending.

    Raises:
      UserError: If the file cannot be decompressed, or its content is too large for its size.
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
    """Yield the bytes of a file in chunks. A file that another process writes to is refused: it
    might never end, and would have other rows the next time."""
    size = None if locations.is_url(path) else os.fstat(file.fileno()).st_size
    count = 0
    while data := file.read(_CHUNK):
        count += len(data)
        if size is not None and count > size:
            raise UserError(
                f"{path}: grew beyond its {size:,} bytes while it was read; use a copy that no "
                "process writes to"
            )
        on_read(len(data))
        yield data


def _without_bom(path: str, line: bytes) -> bytes:
    """Return the first line of a file without its byte order mark."""
    if hint := _utf16_hint(line):
        raise UserError(f"{path}, line 1: not valid UTF-8{hint}")
    return line.removeprefix(codecs.BOM_UTF8)


def _utf16_hint(data: bytes) -> str:
    """Return a hint for a file that begins with the BOM of UTF-16; "" for other files."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "; the file is in UTF-16, convert it to UTF-8"
    return ""


def _decompress_gzip(path: str, stored: Iterator[bytes], meter: Meter) -> Iterator[bytes]:
    """Yield the content of a gzip file, member by member.

    Like the gzip program, skip zeros that pad the file, and ignore other bytes after the last
    complete member with a warning.
    """
    member = None  # None between members
    magic, count = b"", 0  # the first two bytes of the member, and the number of complete members
    for data in stored:
        meter.read(len(data))
        while data:
            if member is None:
                data = data.lstrip(b"\0") if count else data
                if not data:
                    break
                member, magic = zlib.decompressobj(_GZIP), b""
            magic = (magic + data[:2])[:2]
            try:
                for piece in _pieces(member, data):
                    meter.unpacked(len(piece))
                    yield piece
            except zlib.error as error:
                if _GZIP_MAGIC.startswith(magic):
                    raise UserError(
                        f"{path}: damaged gzip file: {error}; copy or download it again"
                    ) from error
                if not count:
                    raise UserError(
                        f"{path}: not a gzip file; remove .gz from its name if it is uncompressed"
                    ) from error
                _warn_about_trailing_bytes(path)
                return
            data = member.unused_data
            if member.eof:
                member, count = None, count + 1
    if member is not None:
        if count and not _GZIP_MAGIC.startswith(magic):
            _warn_about_trailing_bytes(path)
            return
        raise UserError(
            f"{path}: truncated gzip file: it ends within compressed data; copy or download it "
            "again"
        )


def _pieces(member: Any, data: bytes) -> Iterator[bytes]:
    """Decompress further bytes of a gzip member, in pieces of at most `_CHUNK` bytes."""
    piece = member.decompress(data, _CHUNK)
    yield piece
    while not member.eof and (member.unconsumed_tail or len(piece) == _CHUNK):
        piece = member.decompress(member.unconsumed_tail, _CHUNK)
        yield piece


def _warn_about_trailing_bytes(path: str) -> None:
    LOGGER.warning("%s: ignoring the bytes after the end of its gzip data", path)


def _decompress_zstd(path: str, stored: Iterator[bytes], meter: Meter) -> Iterator[bytes]:
    """Yield the content of a zstd file.

    It is decompressed frame by frame, since the reader of the library stops after the first of
    several frames and does not notice that a file is truncated.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = None  # None between frames
    try:
        for data in itertools.chain.from_iterable(map(_small, stored)):
            meter.read(len(data))
            while data:
                frame = frame or decompressor.decompressobj()
                piece = frame.decompress(data)
                meter.unpacked(len(piece))
                yield piece
                data = frame.unused_data
                if frame.eof:
                    frame = None
    except zstandard.ZstdError as error:
        raise UserError(f"{path}: damaged zstd file: {error}; copy or download it again") from error
    if frame is not None:
        raise UserError(
            f"{path}: truncated zstd file: it ends within a frame; copy or download it again"
        )


def _small(data: bytes) -> Iterator[bytes]:
    """Split bytes into pieces that are small enough to bound what zstd unpacks at a time."""
    for start in range(0, len(data), _ZSTD_CHUNK):
        yield data[start : start + _ZSTD_CHUNK]
