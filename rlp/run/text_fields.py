"""Read the text of files that config fields name."""

from pathlib import Path

from rlp.runtime.errors import UserError

LONGEST_TEXT = 2**24  # most bytes of a chat template, a prompt or a list of phrases


def file_text(field: str, name: str, others: str) -> str:
    """Read the text of the file that a field names.

    Args:
      field: The config field.
      name: Its value.
      others: The values of the field that do not name a file, for the message.

    Raises:
      UserError: If the file does not exist, is too large, or is not UTF-8.
    """
    path = Path(name)
    if not path.is_file():
        raise UserError.of(field, name, f"is not a file; name a file, or use {others}")
    if (size := path.stat().st_size) > LONGEST_TEXT:
        raise UserError.of(
            field, name, f"has {size:,} bytes; use a file of at most {LONGEST_TEXT:,}"
        )
    try:
        return path.read_text(encoding="utf-8-sig")  # without a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError.of(field, name, f"cannot be read: {error}") from error
