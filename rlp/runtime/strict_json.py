"""Standard JSON with bounds on its nesting and on the length of numbers.

When JSON is written, numbers that are not finite become null. When it is read, values that are
nested too deeply and integers with too many digits are refused; no meaningful file has them.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlp.runtime.errors import UserError

DEPTH = 100  # maximum nesting of arrays and objects
DIGITS = 300  # maximum digits of an integer, about the range of a float


class Excessive(ValueError):
    """JSON that exceeds DEPTH or DIGITS."""


def finite(data: Any) -> Any:
    """Return the same JSON value with null in place of every number that is not finite."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data


def readable(content: Mapping[str, Any]) -> str:
    """Return the JSON of an object for people to read: indented, and without escaped letters."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    # A lone surrogate cannot be encoded; "backslashreplace" writes the same escape as JSON.
    return text.encode(errors="backslashreplace").decode()


def parse(text: str) -> Any:
    """Parse JSON.

    Raises:
      ValueError: If the text is not JSON.
      Excessive: If it exceeds the bounds; a subclass of ValueError.
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise Excessive(_TOO_DEEP) from None
    # Counting brackets is fast, and few texts have more than DEPTH of them.
    if text.count("[") + text.count("{") > DEPTH and _is_deeper(value, DEPTH):
        raise Excessive(_TOO_DEEP)
    return value


def read_object(path: Path, advice: str = "the file is damaged") -> dict[str, Any]:
    """Read a JSON object from a file in UTF-8, with or without a byte order mark.

    Args:
      path: The file.
      advice: The end of the error message if the file does not contain a JSON object.

    Raises:
      UserError: If the file cannot be read or is not a JSON object.
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
    """Whether arrays and objects are nested more than `depth` deep."""
    level = [value]
    for _ in range(depth):
        containers = [x for x in level if isinstance(x, dict | list)]
        level = [child for x in containers for child in (x.values() if isinstance(x, dict) else x)]
    return any(isinstance(x, dict | list) for x in level)
