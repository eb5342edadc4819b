"""What the functions of an objective may look at: the outcome of thoughts."""

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
    """What responses to problems answer, [B, 1, G] each: a document is a prompt, its fork the end.

    A response that gives no answer that can be read is neither correct nor agrees.
    """

    correct: jax.Array  # bool: it is the right answer
    reward: jax.Array  # 1 where correct, else 0; or the number that the verifier returns
    agrees: jax.Array  # bool: it is the answer that most responses of its group give
    confidence: jax.Array  # in [0, 1], stated by the response; nan where it states none
    given: jax.Array  # bool: it gives an answer that can be read
    failed: jax.Array  # bool: its check took too long, or broke down


@flax.struct.dataclass
class Outcome:
    """What a reward may look at, of G thoughts at each of K forks of B documents.

    Log-probabilities and evidence are in nats, at temperature 1, over tokens that text can hold.
    Where responses answer problems, they are what is called thoughts here, no text follows them,
    and evidence is 0.

    What only some objectives read, and `rlp.engine.readings` lists, is an attribute too, of an
    objective that declares it.
    """

    reasoned: jax.Array  # [B, K, G], S_pred: evidence of the target after the thought
    baseline: jax.Array  # [B, K], S_ema: evidence without a thought; 0 without a baseline
    logprobs: jax.Array  # [B, K, G, H], of every target token after the thought
    baseline_logprobs: jax.Array  # [B, K, H], without a thought; 0 without a baseline
    closed: jax.Array  # [B, K, G] bool: the thought closed by itself
    length: jax.Array  # [B, K, G] int32, |c|: actions of the thought
    uniform: jax.Array  # [B, K, G], numbers in [0, 1) that nothing else depends on
    limit: int = flax.struct.field(pytree_node=False)  # L: most actions
    readings: Mapping[str, Any] = flax.struct.field(default_factory=dict)  # those that are declared
    options: Options = flax.struct.field(pytree_node=False, default=Options())
    objective: str = flax.struct.field(pytree_node=False, default="")

    def __getattr__(self, name: str) -> Any:
        return reading(self, "outcome", name)


def reading(record: Any, called: str, name: str) -> Any:
    """The reading `name` of an `Outcome` or of `Actions`.

    Args:
      record: has `readings` and `objective`.
      called: what the error calls it.

    Raises:
      UserError: the objective did not declare it.
    """
    if name.startswith("_") or name in ("readings", "objective"):  # not set yet, while it is copied
        raise AttributeError(name)
    if name not in record.readings:
        near = difflib.get_close_matches(name, [f.name for f in dataclasses.fields(record)], 1, 0.7)
        meant = f"; or did you mean {called}.{near[0]}?" if near else ""
        raise UserError(
            f"objective={record.objective!r} reads {called}.{name}, which it does not declare; add "
            f'reads=("{name}",) to its Objective (docs/objectives.md lists the readings){meant}'
        )
    return record.readings[name]
