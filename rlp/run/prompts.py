"""Convert prompts of an opened model to token ids, and determine the ids that end its texts."""

from typing import Any

from rlp.interop import init_from as starting
from rlp.run.model_files import eos_ids, generation_config
from rlp.run.opened_model import Opened
from rlp.tokenizers.prompts import chat_ends, chat_text, with_bos


def stop_ids(opened: Opened, chat: bool = False) -> tuple[int, ...]:
    """Return the ids that end generation.

    These are the stop ids of the model's export, EOS, the document separator and, in a chat, the id
    that ends a turn.
    """
    tokenizer: Any = opened.method.tokenizer
    ids = dict.fromkeys([*exported_stop_ids(opened), tokenizer.eos, tokenizer.separator])
    return chat_ends(tokenizer, opened.method.template, [*ids]) if chat else tuple(ids)


def unused_ids(opened: Opened) -> tuple[int, ...]:
    """Return the rows of the embedding that the tokenizer does not use, which are not generated."""
    method = opened.method
    return tuple(range(method.tokenizer.vocab_size, method.model.vocab_size))


def exported_stop_ids(opened: Opened) -> tuple[int, ...]:
    """Return the ids at which transformers' `generate` stops with the export of a model."""
    known = starting.same_tokenizer(opened.config, opened.files)
    return eos_ids(generation_config(opened.method, opened.files, known, opened.config.data))


def chat_prompt(opened: Opened, text: str, system: str = "") -> str:
    """Format a user message with the model's chat template, including the generation prompt.

    Args:
      opened: The model.
      text: The user message.
      system: The system message; "" for none.

    Raises:
      UserError: If the model has no chat template, or the template fails.
    """
    method = opened.method
    return chat_text(opened.name, method.tokenizer, method.template, messages(text, system))


def messages(text: str, system: str = "") -> list[dict[str, str]]:
    """Return a chat of an optional system message and one user message."""
    system_messages = [{"role": "system", "content": system}] if system else []
    return [*system_messages, {"role": "user", "content": text}]


def prompt_ids(opened: Opened, text: str) -> list[int]:
    """Return the ids of a text, preceded by the BOS.

    Raises:
      UserError: If there are no ids, or the text cannot be encoded.
    """
    return prompt_and_target(opened, text, "")[0]


def prompt_and_target(opened: Opened, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """Return the ids of a prompt, preceded by the BOS, and of the target that follows it.

    Their concatenation is the encoding of the whole text. A token that spans the boundary is the
    first token of the target.

    Raises:
      UserError: If the prompt has no ids, or a text cannot be encoded.
    """
    ids, rest = split_tokens(opened, prompt, target)
    return with_bos(opened.method.tokenizer, ids), rest


def split_tokens(opened: Opened, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """Return the ids of a prompt and a target as `prompt_and_target` does, without the BOS."""
    tokenizer = opened.method.tokenizer
    alone, both = tokenizer.encode(prompt), tokenizer.encode(prompt + target)
    pairs = zip(alone, both, strict=False)
    shared = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(alone), len(both)))
    return both[:shared], both[shared:]
