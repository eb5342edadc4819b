"""The thoughts of a run (thoughts.json): checking them, and their form on the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlp.runtime.errors import UserError


def check_thoughts(content: Mapping[str, Any], path: Path) -> None:
    """Raises UserError, naming the place in the file, where the content is not in order."""
    documents = _get(content, "documents", list, str(path))
    for d, document in enumerate(documents):
        where = f"{path}: document {d}"
        tokens = _get(document, "tokens", list, where)
        _check_strings(tokens, "tokens", where)
        _get(document, "separator", str, where)
        for p, position in enumerate(_get(document, "positions", list, where)):
            place = f"{where}, position {p}"
            fork = _get(position, "fork", int, place)
            if not 0 <= fork < len(tokens):
                raise UserError(f"{place}: fork {fork} is outside its {len(tokens)} tokens")
            _check_strings(_get(position, "target", list, place), "target", place)
            for key in ("baseline_logprob", "information_gain"):
                _get(position, key, int | float | None, place)
            for n, thought in enumerate(_get(position, "thoughts", list, place)):
                spot = f"{place}, thought {n}"
                _check_strings(_get(thought, "pieces", list, spot), "pieces", spot)
                _get(thought, "closed", bool, spot)
                for key in ("reasoned_logprob", "reward", "advantage"):
                    _get(thought, key, int | float | None, spot)


def _get(item: object, key: str, kind: Any, where: str) -> Any:
    if not isinstance(item, dict) or key not in item:
        raise UserError(f'{where} has no "{key}"; the file is damaged')
    value = item[key]
    if not isinstance(value, kind):
        raise UserError(f'{where}: "{key}" has the wrong type; the file is damaged')
    return value


def _check_strings(values: list[Any], key: str, where: str) -> None:
    if not all(isinstance(value, str) for value in values):
        raise UserError(f'{where}: "{key}" must hold strings only; the file is damaged')


def browser_documents(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The documents as the page's script wants them: thoughts and targets joined to one string.

    Documents without a position are left out. All log-probabilities and rewards are in nats.
    """
    shown = []
    for document in content["documents"]:
        join = document["separator"].join
        positions = [
            {
                "fork": position["fork"],
                "target": join(position["target"]),
                "baseline": position["baseline_logprob"],
                "gain": position["information_gain"],
                "given": position.get("given", False),
                "thoughts": [
                    {
                        "text": join(thought["pieces"]),
                        "tokens": len(thought["pieces"]),
                        "closed": thought["closed"],
                        "reasoned": thought["reasoned_logprob"],
                        "reward": thought["reward"],
                        "advantage": thought["advantage"],
                    }
                    for thought in position["thoughts"]
                ],
            }
            for position in sorted(document["positions"], key=lambda p: p["fork"])
        ]
        if positions:
            kept = {"tokens": document["tokens"], "separator": document["separator"]}
            shown.append({**kept, "positions": positions})
    return shown
