"""Sample text or thoughts: `python -m launch.sample --checkpoint=runs/rlp --prompt='Once'`.

    --chat                      format the prompt as a user message with the chat template, and stop
                                at the end of the turn (--system='…' adds a system message)
    --think --thoughts=4        sample thoughts after the prompt instead of a continuation …
    --target=' upon a time'     … and print how much each raises the log-likelihood of the target

`--checkpoint` takes the same values as `init_from`: a run, a step of it, or a model in the Hugging
Face format or in a GGUF file.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from launch import program
from rlp.runtime.display import printable
from rlp.runtime.errors import UserError

if TYPE_CHECKING:
    from rlp.run.model import Thoughts

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "run, <workdir>@<step>, Hugging Face folder or GGUF file", required=True
)
_PROMPT = flags.DEFINE_string("prompt", None, "text to continue", required=True)
_CHAT = flags.DEFINE_bool(
    "chat", False, "format the prompt as a user message with the chat template"
)
_SYSTEM = flags.DEFINE_string("system", "", "system message, with --chat")
_BOS = flags.DEFINE_string(
    "bos", "", "token before the text; 'none' = no token, '' = that of the model's tokenizer"
)
_THINK = flags.DEFINE_bool("think", False, "sample thoughts after the prompt")
_TARGET = flags.DEFINE_string("target", "", "text to score with and without thoughts, with --think")
_THOUGHTS = flags.DEFINE_integer("thoughts", 4, "number of thoughts", lower_bound=1)
_LENGTH = flags.DEFINE_integer(
    "length", 128, "maximum tokens of a continuation or a thought", lower_bound=1
)
_TEMPERATURE = flags.DEFINE_float(
    "temperature", 0.7, "sampling temperature; 0 = greedy", lower_bound=0
)
_TOP_P = flags.DEFINE_float(
    "top_p", 1.0, "sample among the likeliest tokens with this share of the probability; 1 = all"
)
_TOP_K = flags.DEFINE_integer(
    "top_k", 0, "sample among this number of the likeliest tokens; 0 = all", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the samples", lower_bound=0)


def main(_: Sequence[str]) -> None:
    """Stream a continuation, or print thoughts."""
    from rlp.run.model import load

    if not math.isfinite(_TEMPERATURE.value):
        raise UserError(f"--temperature={_TEMPERATURE.value}; it must be a finite number")
    if _SYSTEM.value and not _CHAT.value:
        raise UserError("--system is the system message of a chat; add --chat")
    truncated = {"top_p": _TOP_P.value, "top_k": _TOP_K.value}
    if _THINK.value and truncated != {"top_p": 1, "top_k": 0}:
        raise UserError("--top_p and --top_k are for continuations; leave them out with --think")
    model = load(_CHECKPOINT.value, bos=_BOS.value)
    thoughts = _THOUGHTS.value if _THINK.value else 1
    model.check_memory({"--thoughts": thoughts, "--length": _LENGTH.value})
    sampling: dict[str, Any] = {
        "length": _LENGTH.value,
        "temperature": _TEMPERATURE.value,
        "seed": _SEED.value,
        "chat": _CHAT.value,
        "system": _SYSTEM.value,
    }
    if _THINK.value:
        _show(model.think(_PROMPT.value, thoughts, _TARGET.value, **sampling))
        return
    sampling |= truncated
    pieces = model.stream(_PROMPT.value, keep_end=not _CHAT.value, **sampling)
    print(_shown(_PROMPT.value), end="\n" if _CHAT.value else "", flush=True)
    for piece in pieces:
        print(_shown(piece), end="", flush=True)
    print()


def _shown(text: str) -> str:
    """Escape control characters in text of a model or a user, also if stdout is a pipe."""
    return printable(text, keep="\n\t")


def _show(thoughts: "Thoughts") -> None:
    """Print thoughts, and their gains for the target."""
    for number, thought in enumerate(thoughts, 1):
        ended = "closed" if thought.closed else "unclosed"
        print(f"thought {number} ({thought.tokens} tokens, {ended}): {_shown(thought.text)}")
        if thought.gain is not None:
            score = f"{thought.log_likelihood:.3f} nats, gain {thought.gain:+.3f}"
            print(f"  log-likelihood of the target {score}")
    if thoughts.mean_gain is not None:
        print(
            f"without a thought {thoughts.log_likelihood:.3f} nats; "
            f"mean gain {thoughts.mean_gain:+.3f}"
        )


if __name__ == "__main__":
    program.run(main)
