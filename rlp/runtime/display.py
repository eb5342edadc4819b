r"""Text from others (the name of a file, what a model wrote) in a form that is safe to show.

    printable        for a terminal or a log
    markdown_cell    for a cell of a table in Markdown
    tag              for TensorBoard
    error_lines      what a program says of an error of the user
    listed           the first few of some names
    readable_bytes   a number of bytes with its unit

What is escaped is written as Python does, as in "\x1b". Escaped text can always be encoded.
"""

import re
from collections.abc import Sequence

from rlp.runtime.errors import UserCodeError, UserError

SHOWN = 3  # names that a message lists
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

# Terminals obey these and show nothing: control characters, marks of the direction of text, line
# and paragraph separators, interlinear annotation. Half surrogates cannot be encoded. Joiners
# (U+200C, U+200D), which Persian and emoji are spelled with, are text.
_OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff]"
)
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&]|(?<!\w)_|_(?!\w)")
_NOT_IN_TAG = re.compile(r"[^-\w/. ,+=@%()]")


def printable(text: str, keep: str = "") -> str:
    """The text with every character escaped that a terminal would obey, or cannot be encoded.

    Args:
      text: from anywhere.
      keep: characters that are left as they are, such as newlines.
    """
    return _OBEYED.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def markdown_cell(text: str) -> str:
    """The text as Markdown that shows it as it is, in one line and one cell of a table."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", printable(text))


def markdown_code(text: str) -> str:
    """The text as a code span, in one line and one cell of a table."""
    line = printable(text)
    if "`" in line:  # it would end the span
        return markdown_cell(line)
    return f"`{line.replace('|', chr(92) + '|')}`"


def tag(text: str) -> str:
    """The text as a tag of TensorBoard; different texts have different tags."""
    return _NOT_IN_TAG.sub(lambda found: _escaped(found[0]), text)


def error_lines(error: UserError) -> str:
    """The one line on an error of the user; below it the frames of the user's own code, if that
    raised the error."""
    line = f"error: {printable(' '.join(str(error).split()))}"
    frames = error.frames.rstrip() if isinstance(error, UserCodeError) else ""
    return f"{line}\n{printable(frames, keep=chr(10))}" if frames else line


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def listed(names: Sequence[str]) -> str:
    """The first few of some names."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def readable_bytes(size: int) -> str:
    """Bytes as a person reads them, such as 1.5 GiB; a number too large for a float has its size
    in the largest unit."""
    unit = min(max(size.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    whole = size >> 10 * unit
    if unit == 0 or whole >= 100:
        return f"{whole:,} {UNITS[unit]}"
    return f"{size / 2 ** (10 * unit):.3g} {UNITS[unit]}"
