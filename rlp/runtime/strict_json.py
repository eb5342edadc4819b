"""JSON as the standard has it, within bounds.

What is written has null for every number that is not finite. What is read is refused if it is
nested deeper, or has longer numbers, than any file that means something.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlp.runtime.errors import UserError

DEPTH = 100  # most arrays and objects inside of one another
DIGITS = 300  # most digits of a whole number; a float holds as many


class Excessive(ValueError):
    """JSON beyond DEPTH or DIGITS."""


def finite(data: Any) -> Any:
    """The same JSON value with null in place of every number that is not finite."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data


def readable(content: Mapping[str, Any]) -> str:
    """The JSON of an object, for people to read: indented, and with letters as they are."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    # A half surrogate cannot be encoded; its escape is the one that JSON has for it.
    return text.encode(errors="backslashreplace").decode()


def parse(text: str) -> Any:
    """The JSON value of a text.

    Raises:
      ValueError: it is not JSON. The subclass Excessive: it is beyond the bounds.
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise Excessive(_TOO_DEEP) from None
    # Counting brackets is fast, and few texts have so many.
    if text.count("[") + text.count("{") > DEPTH and _is_deeper(value, DEPTH):
        raise Excessive(_TOO_DEEP)
    return value


def read_object(path: Path, advice: str = "the file is damaged") -> dict[str, Any]:
    """The JSON object in a file, in UTF-8 with or without a byte order mark.

    Args:
      path: of the file.
      advice: the end of what is said of a file without such an object.

    Raises:
      UserError: the file cannot be read, or it is not a JSON object.
    """
    try:
        content = parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); {advice}") from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise UserError(f"{path} cannot be read: it is not JSON ({error}); {advice}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object; {advice}")
    return content


_TOO_DEEP = f"its values are nested more than {DEPTH} deep"


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise Excessive(f"it has a number of {len(digits)} digits")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_whole)


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether more than `depth` arrays and objects are inside of one another."""
    level = [value]
    for _ in range(depth):
        containers = [x for x in level if isinstance(x, dict | list)]
        level = [child for x in containers for child in (x.values() if isinstance(x, dict) else x)]
    return any(isinstance(x, dict | list) for x in level)
