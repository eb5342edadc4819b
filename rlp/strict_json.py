"""JSON as the standard has it: a number that is not finite is written as null."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlp.errors import UserError


def finite(data: Any) -> Any:
    """The same JSON value with null in place of every number that is not finite."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      UserError: the file cannot be read, or it is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; the file is damaged") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object; the file is damaged")
    return content
