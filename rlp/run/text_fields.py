"""Fields of a config that name a file whose text is meant."""

from pathlib import Path

from rlp.runtime.errors import UserError

LONGEST_TEXT = 2**24  # bytes of a chat template, a prompt or a list of phrases


def file_text(field: str, name: str, others: str) -> str:
    """The text of the file that a field names.

    Args:
      field: of the config.
      name: its value.
      others: the values of the field that name no file, for the message.

    Raises:
      UserError: there is no such file, it is too large, or it is not UTF-8.
    """
    path = Path(name)
    if not path.is_file():
        raise UserError.of(field, name, f"is no file; give one, or {others}")
    if (size := path.stat().st_size) > LONGEST_TEXT:
        raise UserError.of(field, name, f"has {size:,} bytes; {LONGEST_TEXT:,} are the most")
    try:
        return path.read_text(encoding="utf-8-sig")  # without a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError.of(field, name, f"cannot be read: {error}") from error
