"""The thoughts of a run (thoughts.json): validation, and conversion for the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlp.runtime.errors import UserError


def check_thoughts(content: Mapping[str, Any], path: Path) -> None:
    """Check the content of thoughts.json.

    Raises:
        UserError: If the content is not valid; names the file, document, position and thought.
    """
    documents = _get(content, "documents", list, str(path))
    for d, document in enumerate(documents):
        where = f"{path}: document {d}"
        tokens = _get(document, "tokens", list, where)
        _check_strings(tokens, "tokens", where)
        _get(document, "separator", str, where)
        for p, position in enumerate(_get(document, "positions", list, where)):
            at = f"{where}, position {p}"
            fork = _get(position, "fork", int, at)
            if not 0 <= fork < len(tokens):
                raise UserError(f"{at}: fork {fork} is outside its {len(tokens)} tokens")
            _check_strings(_get(position, "target", list, at), "target", at)
            for key in ("baseline_logprob", "information_gain"):
                _get(position, key, int | float | None, at)
            for n, thought in enumerate(_get(position, "thoughts", list, at)):
                at_thought = f"{at}, thought {n}"
                _check_strings(_get(thought, "pieces", list, at_thought), "pieces", at_thought)
                _get(thought, "closed", bool, at_thought)
                for key in ("reasoned_logprob", "reward", "advantage"):
                    _get(thought, key, int | float | None, at_thought)


def _get(item: object, key: str, kind: Any, where: str) -> Any:
    if not isinstance(item, dict) or key not in item:
        raise UserError(f'{where} has no "{key}"; the file is damaged')
    value = item[key]
    if not isinstance(value, kind):
        raise UserError(f'{where}: "{key}" has the wrong type; the file is damaged')
    return value


def _check_strings(values: list[Any], key: str, where: str) -> None:
    if not all(isinstance(value, str) for value in values):
        raise UserError(f'{where}: "{key}" must contain only strings; the file is damaged')


def browser_documents(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Convert documents for the page's script: joins the tokens of thoughts and targets.

    Documents without positions are left out. All log-probabilities and rewards are in nats.
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
            text = {"tokens": document["tokens"], "separator": document["separator"]}
            shown.append({**text, "positions": positions})
    return shown
