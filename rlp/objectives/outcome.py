"""The input of an objective's functions: the outcome of thoughts."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax

from rlp.objectives.options import Options
from rlp.runtime.errors import UserError


@flax.struct.dataclass
class Answers:
    """The graded answers of responses, [B, 1, G] each; a problem is a document forked at its end.

    A response without an extractable answer is not correct and does not agree.
    """

    correct: jax.Array  # bool: the answer is correct
    reward: jax.Array  # 1 if correct, else 0; or the number that the verifier returns
    agrees: jax.Array  # bool: it equals the majority answer of its group
    confidence: jax.Array  # in [0, 1], as stated in the response; nan if it states none
    given: jax.Array  # bool: an answer could be extracted
    failed: jax.Array  # bool: grading timed out or raised an error


@flax.struct.dataclass
class Outcome:
    """The outcome of G thoughts at each of K forks of B documents, which rewards are computed from.

    Log-probabilities and evidence are in nats, at temperature 1, over tokens that can occur in
    text. For problems, the responses are the thoughts, no text follows them, and evidence is 0.

    The readings that an objective declares (`rlp.engine.readings`) are attributes, too.
    """

    reasoned: jax.Array  # [B, K, G], S_pred: evidence of the target after the thought
    baseline: jax.Array  # [B, K], S_ema: evidence without a thought; 0 without a baseline
    logprobs: jax.Array  # [B, K, G, H], of every target token after the thought
    baseline_logprobs: jax.Array  # [B, K, H], without a thought; 0 without a baseline
    present: jax.Array  # [B, K, H] bool: target tokens that the document has; the others have 0
    closed: jax.Array  # [B, K, G] bool: the thought closed by itself
    length: jax.Array  # [B, K, G] int32, |c|: actions of the thought
    uniform: jax.Array  # [B, K, G], random numbers in [0, 1), independent of all else
    limit: int = flax.struct.field(pytree_node=False)  # L, at most this number of actions
    readings: Mapping[str, Any] = flax.struct.field(default_factory=dict)  # declared ones, by name
    options: Options = flax.struct.field(pytree_node=False, default=Options())
    objective: str = flax.struct.field(pytree_node=False, default="")

    def __getattr__(self, name: str) -> Any:
        return reading(self, "outcome", name)


def reading(record: Any, called: str, name: str) -> Any:
    """Return the reading `name` of an `Outcome` or of `Actions`.

    Args:
      record: with attributes `readings` and `objective`.
      called: name of the record, for the error.
      name: of the reading.

    Raises:
      UserError: If the objective does not declare the reading.
    """
    if name.startswith("_") or name in ("readings", "objective"):  # not set yet, while it is copied
        raise AttributeError(name)
    if name not in record.readings:
        near = difflib.get_close_matches(name, [f.name for f in dataclasses.fields(record)], 1, 0.7)
        meant = f", or did you mean {called}.{near[0]}?" if near else ""
        raise UserError(
            f"objective={record.objective!r} reads {called}.{name}, which it does not declare; add "
            f'reads=("{name}",) to its Objective (docs/objectives.md lists the readings){meant}'
        )
    return record.readings[name]
