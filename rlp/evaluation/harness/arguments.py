"""The generation arguments of a request of lm-evaluation-harness."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from rlp.evaluation.generation.generator import Sampling
from rlp.runtime.errors import UserError

# Arguments of other backends, with the value at which they change nothing.
_NEUTRAL = {
    "min_p": 0.0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "typical_p": 1.0,
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What a request asks for.

    Attributes:
      sampling: temperature and cuts of the distribution.
      stop: texts that end a response.
      max_tokens: most tokens of a response.
    """

    sampling: Sampling
    stop: tuple[str, ...]
    max_tokens: int


def read_arguments(given: Mapping[str, Any], max_tokens: int) -> Arguments:
    """Read the arguments that a task or the command line gives, under any of their names.

    Sampling is greedy unless there is a temperature above 0 and `do_sample` is not false, as in
    lm-evaluation-harness.

    Args:
      given: `generation_kwargs` of a task.
      max_tokens: most tokens of a response, if there is no such argument.

    Raises:
      UserError: If a value cannot be used, or an argument would change the responses in a way that
        the sampler does not support.
    """
    try:
        known = dict(normalize_gen_kwargs(dict(given), max_tokens))
        sampled, temperature = known.pop("do_sample"), float(known.pop("temperature", 0.0))
        stop = tuple(str(text) for text in known.pop("until") if text)
        limit = int(known.pop("max_gen_toks"))
        top_p = 1.0 if (share := known.pop("top_p", None)) is None else float(share)
        top_k = max(int(known.pop("top_k", None) or 0), 0)
    except (TypeError, ValueError) as error:
        raise UserError(f"generation arguments {dict(given)}: {error}; correct them") from error
    if sampled and not temperature:
        raise UserError("do_sample=true needs a temperature; add temperature=… to gen_kwargs")
    for name, value, ok in (
        ("temperature", temperature, 0 <= temperature < float("inf")),
        ("top_p", top_p, 0 < top_p <= 1),
        ("max_gen_toks", limit, limit >= 1),
    ):
        if not ok:
            raise UserError(f"the generation argument {name}={value} is out of range; change it")
    for name, value in known.items():
        if name not in _NEUTRAL or (value is not None and value != _NEUTRAL[name]):
            raise UserError(
                f"the generation argument {name}={value!r} would change the responses, and the "
                "sampler does not have it; remove it from the task or from gen_kwargs"
            )
    return Arguments(Sampling(temperature, top_p, top_k), stop, limit)
