"""Prompts of texts and of chats, and the ids that end what follows them."""

from collections.abc import Mapping, Sequence

from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer
from rlp.tokenizers.turns import end_of_turn


def with_bos(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """Return the ids of a prompt that a model continues: the BOS and the ids of its text.

    Raises:
      UserError: If there are no ids.
    """
    prompt = [*tokenizer.bos, *ids]
    if not prompt:
        raise UserError(
            "the prompt is empty, and the tokenizer does not add a BOS; pass a nonempty prompt"
        )
    return prompt


def chat_text(
    name: str,
    tokenizer: Tokenizer,
    template: str | None,
    messages: Sequence[Mapping[str, str]],
) -> str:
    """Format messages with the chat template of a model, including the generation prompt.

    Args:
      name: The name of the model, for messages.
      tokenizer: Its tokenizer.
      template: Its Jinja chat template; None if it has none.
      messages: The messages, each with a role and a content.

    Raises:
      UserError: If there is no template, or it fails.
    """
    if template is None:
        raise UserError(
            f"{name} has no chat template; use it without chat, or use a model that has one "
            "(a run trained with data.chat_template=<Jinja file> saves it)"
        )
    return tokenizer.chat(messages, template, True)


def chat_ends(tokenizer: Tokenizer, template: str | None, ends: Sequence[int]) -> tuple[int, ...]:
    """Return the ids that end a response in a chat: those that end a text, and the end of a turn.

    Args:
      tokenizer: The tokenizer.
      template: The Jinja chat template; None if there is none.
      ends: The ids that end a text.

    Raises:
      UserError: If the template fails.
    """
    end = end_of_turn(tokenizer, template)
    return tuple(dict.fromkeys(ends if end is None else [*ends, end]))
