"""Reads the files of a run's folder, each checked before anything relies on it.

Every function raises a UserError that names the file and the place where it is damaged.
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

_COUNTS = {"step", "steps", "wall_s"}  # what evaluation.json has besides metrics


def read_figures(path: Path) -> dict[str, Any]:
    """The content of evaluation.json."""
    figures = read_object(path)
    check_numbers(figures, str(path))
    return figures


def read_thoughts(path: Path) -> dict[str, Any]:
    """The content of thoughts.json."""
    thoughts = read_object(path)
    check_thoughts(thoughts, path)
    return thoughts


def read_warnings(path: Path) -> list[dict[str, Any]]:
    """What the run found amiss."""
    warnings = _read_json(path)
    if not _all_have(warnings, {"name": str, "step": int, "message": str}):
        raise UserError(f"{path}: not a list of names, steps and messages; the file is damaged")
    return warnings


def read_problems(path: Path) -> list[dict[str, Any]]:
    """Problems with the responses to them."""
    problems = read_object(path).get("problems")
    of_problem = {"file": str, "prompt": str, "answer": str, "responses": list}
    of_response = {"text": str, "answer": str | None, "correct": bool, "closed": bool}
    if not _all_have(problems, of_problem) or not all(
        _all_have(problem["responses"], of_response) for problem in problems or ()
    ):
        raise UserError(f"{path}: not a list of problems and responses; the file is damaged")
    return problems or []


def _all_have(items: object, kinds: Mapping[str, Any]) -> bool:
    """Whether this is a list of objects that hold values of these kinds by these names."""
    return isinstance(items, list) and all(
        isinstance(item, dict)
        and all(name in item and isinstance(item[name], kind) for name, kind in kinds.items())
        for item in items
    )


def check_numbers(content: Mapping[str, Any], where: str) -> None:
    """What the report reads must be a number or null; "wall_s" holds seconds by stage."""
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
    """The JSON object in a file."""
    content = _read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold one JSON object; the file is damaged")
    return content
