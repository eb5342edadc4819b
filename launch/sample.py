"""Shows what a network writes: `python -m launch.sample --checkpoint=runs/rlp --prompt='Once'`.

    --chat                      the prompt is a message of the user, put into the chat template; the
                                answer ends with its turn (--system='…' is a message before it)
    --think --thoughts=4        thoughts at the end of the prompt, instead of a continuation …
    --target=' upon a time'     … and how much each raises the log-likelihood of this

`--checkpoint` takes what `init_from` does: a run, a step of it, or a model in the Hugging Face
format or in a GGUF file.
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
    "checkpoint", None, "a run, <workdir>@<step>, or a Hugging Face folder", required=True
)
_PROMPT = flags.DEFINE_string("prompt", None, "text before", required=True)
_CHAT = flags.DEFINE_bool("chat", False, "the prompt is a message, for the chat template")
_SYSTEM = flags.DEFINE_string("system", "", "with --chat: the message of the system")
_BOS = flags.DEFINE_string(
    "bos", "", "token before the text, 'none' for nothing; '' = what the model's tokenizer puts"
)
_THINK = flags.DEFINE_bool("think", False, "sample thoughts at the end of the prompt")
_TARGET = flags.DEFINE_string("target", "", "text after, to be scored with and without thoughts")
_THOUGHTS = flags.DEFINE_integer("thoughts", 4, "how many", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 128, "most tokens of a text or a thought", lower_bound=1)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.7, "0 = the likeliest token", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "of the draws", lower_bound=0)


def main(_: Sequence[str]) -> None:
    """Streams a continuation, or shows thoughts."""
    from rlp.run.model import load

    if not math.isfinite(_TEMPERATURE.value):
        raise UserError(f"--temperature={_TEMPERATURE.value}; give a finite number")
    if _SYSTEM.value and not _CHAT.value:
        raise UserError("--system is a message of a chat; add --chat")
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
    pieces = model.stream(_PROMPT.value, keep_end=not _CHAT.value, **sampling)
    print(_shown(_PROMPT.value), end="\n" if _CHAT.value else "", flush=True)
    for piece in pieces:
        print(_shown(piece), end="", flush=True)
    print()


def _shown(text: str) -> str:
    """What a model or a user wrote, without the power to move the cursor or to name the window.

    The same in a pipe, behind which there often is a terminal.
    """
    return printable(text, keep="\n\t")


def _show(thoughts: "Thoughts") -> None:
    """Prints thoughts, and what they do for the target."""
    for number, thought in enumerate(thoughts, 1):
        ended = "closed" if thought.closed else "unclosed"
        print(f"thought {number} ({thought.tokens} tokens, {ended}): {_shown(thought.text)}")
        if thought.gain is not None:
            told = f"{thought.log_likelihood:.3f} nats, gain {thought.gain:+.3f}"
            print(f"  log-likelihood of the target {told}")
    if thoughts.mean_gain is not None:
        print(
            f"without a thought {thoughts.log_likelihood:.3f} nats; "
            f"mean gain {thoughts.mean_gain:+.3f}"
        )


if __name__ == "__main__":
    program.run(main)
