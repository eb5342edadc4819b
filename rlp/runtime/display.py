r"""Make untrusted text (file names, model output) safe to display.

    printable        for a terminal or a log
    markdown_cell    for a cell of a Markdown table
    markdown_code    for a cell of a Markdown table, as code
    tag              for TensorBoard
    error_lines      what a program prints for a UserError
    listed           the first few of several names
    readable_bytes   a number of bytes with its unit

Escapes are those of Python, such as "\x1b". Escaped text can always be encoded.
"""

import re
from collections.abc import Sequence

from rlp.runtime.errors import UserCodeError, UserError

SHOWN = 3  # names that a message lists
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

# Terminals interpret these characters: control characters, directional formatting, line and
# paragraph separators, interlinear annotation. Lone surrogates cannot be encoded. Joiners (U+200C,
# U+200D) are part of the spelling of Persian and emoji, and are kept.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff]"
)
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&]|(?<!\w)_|_(?!\w)")
_NOT_IN_TAG = re.compile(r"[^-\w/. ,+=@%()]")


def printable(text: str, keep: str = "") -> str:
    """Escape every character that a terminal would interpret or that cannot be encoded.

    Args:
      text: Untrusted text.
      keep: Characters that are not escaped, such as newlines.
    """
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


def markdown_cell(text: str) -> str:
    """Return Markdown that displays the text literally, on one line and in one table cell."""
    return _MARKDOWN.sub(lambda match: f"\\{match[0]}", printable(text))


def markdown_code(text: str) -> str:
    """Return the text as a Markdown code span, on one line and in one table cell."""
    line = printable(text)
    if "`" in line:  # it would end the span
        return markdown_cell(line)
    return f"`{line.replace('|', chr(92) + '|')}`"


def tag(text: str) -> str:
    """Return the text as a TensorBoard tag; different texts give different tags."""
    return _NOT_IN_TAG.sub(lambda match: _escaped(match[0]), text)


def error_lines(error: UserError) -> str:
    """Return the error message on one line, followed by the traceback frames of the user's code if
    that code raised the error."""
    line = f"error: {printable(' '.join(str(error).split()))}"
    frames = error.frames.rstrip() if isinstance(error, UserCodeError) else ""
    return f"{line}\n{printable(frames, keep=chr(10))}" if frames else line


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def listed(names: Sequence[str]) -> str:
    """Return the first few of several names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def readable_bytes(size: int) -> str:
    """Format a number of bytes, such as "1.5 GiB". Integers beyond the range of floats work too."""
    unit = min(max(size.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    whole = size >> 10 * unit
    if unit == 0 or whole >= 100:
        return f"{whole:,} {UNITS[unit]}"
    return f"{size / 2 ** (10 * unit):.3g} {UNITS[unit]}"
