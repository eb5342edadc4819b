"""Read and validate the files of a run folder.

Every function raises a UserError that names the file and what is damaged in it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlp.metrics import catalogue, metrics_file
from rlp.metrics.metric import HELD_OUT_PREFIX
from rlp.report.thoughts import check_thoughts
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import parse

_COUNTS = {"step", "steps", "wall_s"}  # the keys of evaluation.json that are not metrics


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read evaluation.json."""
    metrics = read_object(path)
    check_numbers(metrics, str(path))
    return metrics


def read_thoughts(path: Path) -> dict[str, Any]:
    """Read thoughts.json."""
    thoughts = read_object(path)
    check_thoughts(thoughts, path)
    return thoughts


def read_warnings(path: Path) -> list[dict[str, Any]]:
    """Read warnings.json: the name, step and message of each warning."""
    warnings = _read_json(path)
    if not _all_have(warnings, {"name": str, "step": int, "message": str}):
        raise UserError(f"{path}: not a list of names, steps and messages; the file is damaged")
    return warnings


def read_problems(path: Path) -> list[dict[str, Any]]:
    """Read responses.json: held-out problems with the responses to them."""
    problems = read_object(path).get("problems")
    of_problem = {"file": str, "prompt": str, "answer": str, "responses": list}
    of_response = {"text": str, "answer": str | None, "correct": bool, "closed": bool}
    if not _all_have(problems, of_problem) or not all(
        _all_have(problem["responses"], of_response) for problem in problems or ()
    ):
        raise UserError(f"{path}: not a list of problems and responses; the file is damaged")
    return problems or []


def _all_have(items: object, kinds: Mapping[str, Any]) -> bool:
    """Return whether `items` is a list of objects that have these names with these types."""
    return isinstance(items, list) and all(
        isinstance(item, dict)
        and all(name in item and isinstance(item[name], kind) for name, kind in kinds.items())
        for item in items
    )


def check_numbers(content: Mapping[str, Any], where: str) -> None:
    """Check that every metric and count is a number or null; "wall_s" maps stages to seconds."""
    for key, value in content.items():
        if key == "wall_s" and isinstance(value, dict):
            check_numbers({f"seconds_{stage}": s for stage, s in value.items()}, where)
            continue
        metric = catalogue.find(key) or catalogue.find(HELD_OUT_PREFIX + key)
        if (metric or key in _COUNTS) and not metrics_file.is_number(value):
            raise UserError(f'{where}: "{key}" is not a number; the file is damaged')


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _read_json(path: Path) -> Any:
    try:
        return parse(_read_text(path))
    except ValueError as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}{line}: not valid JSON ({error}); the file is damaged") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that contains one JSON object."""
    content = _read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must contain one JSON object; the file is damaged")
    return content
