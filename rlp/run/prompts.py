"""Prompts of an opened model as token ids, and the ids at which its texts end."""

from typing import Any

from rlp.interop import init_from as starting
from rlp.run.model_files import eos_ids, generation_config
from rlp.run.opened_model import Opened
from rlp.runtime.errors import UserError
from rlp.tokenizers.turns import end_of_turn


def stop_ids(opened: Opened, chat: bool = False) -> tuple[int, ...]:
    """The ids after which what the model writes is over: those at which `generate` stops with its
    export, those that end a text or a document, and in a chat the one that ends a turn."""
    tokenizer: Any = opened.method.tokenizer
    found = [*exported_stop_ids(opened), tokenizer.eos, tokenizer.separator]
    if chat and (end := end_of_turn(tokenizer, opened.method.template)) is not None:
        found.append(end)
    return tuple(dict.fromkeys(found))


def exported_stop_ids(opened: Opened) -> tuple[int, ...]:
    """The ids at which `generate` stops with the export of a model."""
    known = starting.same_tokenizer(opened.config, opened.files)
    return eos_ids(generation_config(opened.method, opened.files, known, opened.config.data))


def chat_prompt(opened: Opened, text: str, system: str = "") -> str:
    """What the model's chat template makes of a message of the user, with what asks for an answer.

    Args:
      opened: the model.
      text: of the user.
      system: message before it; "" for none.

    Raises:
      UserError: there is no template, or it fails.
    """
    tokenizer, template = opened.method.tokenizer, opened.method.template
    if template is None:
        raise UserError(
            f"{opened.name} has no chat template; ask without chat, or name a model that has one "
            "(a run trained with data.chat_template=<Jinja file> keeps it)"
        )
    return tokenizer.chat(messages(text, system), template, True)


def messages(text: str, system: str = "") -> list[dict[str, str]]:
    """A chat of one message of the user, after that of the system where there is one."""
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": text}]


def prompt_ids(opened: Opened, text: str) -> list[int]:
    """Ids of a text, behind what stands before every text.

    Raises:
      UserError: there is nothing to begin with, or it holds what the tokenizer cannot write.
    """
    return prompt_and_target(opened, text, "")[0]


def prompt_and_target(opened: Opened, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """Ids of a text, behind what stands before every text, and of another that follows it.

    Together they have the ids of the whole text. A token across the place between them is the first
    of the target.

    Raises:
      UserError: there is nothing to begin with, or it holds what the tokenizer cannot write.
    """
    ids, rest = split_tokens(opened, prompt, target)
    ids = [*opened.method.tokenizer.bos, *ids]
    if not ids:
        raise UserError(
            "the prompt is empty, and the tokenizer puts nothing before a text; give a prompt"
        )
    return ids, rest


def split_tokens(opened: Opened, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """Ids of a text and of another that follows it, with nothing before them. Together they have
    the ids of the whole text; a token across the place between them is the first of the target."""
    tokenizer = opened.method.tokenizer
    alone, both = tokenizer.encode(prompt), tokenizer.encode(prompt + target)
    pairs = zip(alone, both, strict=False)
    shared = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(alone), len(both)))
    return both[:shared], both[shared:]
