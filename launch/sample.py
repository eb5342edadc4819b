"""Shows what a network writes: `python -m launch.sample --checkpoint=runs/rlp --prompt='Once'`.

    --chat                      the prompt is a message of the user, put into the chat template; the
                                answer ends with its turn (--system='…' is a message before it)
    --think --thoughts=4        thoughts at the end of the prompt, instead of a continuation …
    --target=' upon a time'     … and how much each raises the log-likelihood of this

`--checkpoint` takes what `init_from` does: a run, a step of it, or a model in the Hugging Face
format or in a GGUF file.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags

from launch import program
from rlp.runtime.display import printable
from rlp.runtime.errors import UserError

if TYPE_CHECKING:
    import jax

    from rlp.run.opened_model import Opened

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
    import jax

    from configs import default
    from rlp.capacity import device_memory
    from rlp.run import memory_check, opened_model, prompts
    from rlp.tokenizers.tokenizer import THINK_OPEN

    if not math.isfinite(_TEMPERATURE.value):
        raise UserError(f"--temperature={_TEMPERATURE.value}; give a finite number")
    if _SYSTEM.value and not _CHAT.value:
        raise UserError("--system is a message of a chat; add --chat")
    device = jax.devices()[0]
    opened = opened_model.open_model(_CHECKPOINT.value, default.get_config(), device, _BOS.value)
    thoughts = _THOUGHTS.value if _THINK.value else 1
    limits = device_memory.limits([device])
    sizes = {"--thoughts": thoughts, "--length": _LENGTH.value}
    memory_check.check_sampling(opened.method, sizes, limits)
    key = jax.random.key(_SEED.value)
    text = _PROMPT.value
    if _CHAT.value:
        text = prompts.chat_prompt(opened, _PROMPT.value, _SYSTEM.value)
        if _THINK.value and text.rstrip().endswith(THINK_OPEN):
            raise UserError("the chat template opens a thought by itself; leave out --think")
    if _THINK.value:
        if _CHAT.value:
            prompt, target = prompts.split_tokens(opened, text, _TARGET.value)
        else:
            prompt, target = prompts.prompt_and_target(opened, text, _TARGET.value)
        _show_thoughts(opened, prompt, target, key, _CHAT.value)
    elif _CHAT.value:
        _answer(opened, opened.method.tokenizer.encode(text), key)
    else:
        _stream(opened, prompts.prompt_ids(opened, text), key)


def _stream(opened: "Opened", prompt: list[int], key: "jax.Array") -> None:
    """Prints the prompt, and what follows it as it comes."""
    from rlp.run import prompts

    print(_shown(_PROMPT.value), end="", flush=True)
    _print(opened, prompt, _sampled(opened, prompt, prompts.stop_ids(opened), key))


def _answer(opened: "Opened", prompt: list[int], key: "jax.Array") -> None:
    """Prints the message of the user, and the answer as it comes, without the end of its turn."""
    from rlp.run import prompts

    ends = prompts.stop_ids(opened, chat=True)
    print(_shown(_PROMPT.value), flush=True)
    sampled = _sampled(opened, prompt, ends, key)
    _print(opened, prompt, (token for token in sampled if token not in ends))


def _sampled(
    opened: "Opened", prompt: list[int], ends: Sequence[int], key: "jax.Array"
) -> Iterator[int]:
    """What follows a prompt, up to and with one of the ends."""
    from rlp.evaluation.generation import continuation

    method = opened.method
    return continuation(
        method.model,
        opened.params,
        prompt,
        _LENGTH.value,
        temperature=_TEMPERATURE.value,
        key=key if _TEMPERATURE.value else None,
        banned=tuple(range(method.tokenizer.vocab_size, method.model.vocab_size)),
        ends=ends,
    )


def _print(opened: "Opened", prompt: list[int], tokens: Iterator[int]) -> None:
    """Prints the text of tokens as they come."""
    # Decoded behind the prompt: alone, what follows would lose the space before its first word.
    tokenizer, ids = opened.method.tokenizer, list(prompt)
    shown = len(tokenizer.decode(ids))
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # the next may complete a character
            print(_shown(text[shown:]), end="", flush=True)
            shown = len(text)
    print(_shown(tokenizer.decode(ids)[shown:]))


def _shown(text: str) -> str:
    """What a model or a user wrote, without the power to move the cursor or to name the window.

    The same in a pipe, behind which there often is a terminal.
    """
    return printable(text, keep="\n\t")


def _show_thoughts(
    opened: "Opened", prompt: list[int], target: list[int], key: "jax.Array", chat: bool
) -> None:
    """Prints thoughts, and what they do for the target."""
    from rlp.evaluation.generation import thoughts_after

    method = opened.method
    tokenizer = method.tokenizer
    settings = dataclasses.replace(
        method.settings, temperature=_TEMPERATURE.value, thought_length=_LENGTH.value
    )
    if chat:  # it begins with its template, as responses to problems do
        settings = dataclasses.replace(settings, prompt=())
    method = dataclasses.replace(method, settings=settings)
    thoughts, without = thoughts_after(method, opened.params, prompt, target, _THOUGHTS.value, key)
    for number, thought in enumerate(thoughts, 1):
        ended = "closed" if thought.closed else "unclosed"
        text = _shown(tokenizer.decode(thought.words))
        print(f"thought {number} ({len(thought.words)} tokens, {ended}): {text}")
        if thought.reasoned is not None and without is not None:
            gain = thought.reasoned - without
            print(f"  log-likelihood of the target {thought.reasoned:.3f} nats, gain {gain:+.3f}")
    if without is not None:
        mean = sum(thought.reasoned or 0.0 for thought in thoughts) / len(thoughts)
        print(f"without a thought {without:.3f} nats; mean gain {mean - without:+.3f}")


if __name__ == "__main__":
    program.run(main)
