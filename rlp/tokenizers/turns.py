"""Where a turn of a chat ends, as its template has it."""

from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

_ASKED, _SOMETHING = "a problem", "something"  # messages that no template leaves out


def after_response(tokenizer: Tokenizer, template: str) -> str:
    """The text that a template puts after what an assistant says, without surrounding space.

    Raises:
      UserError: the template fails, or leaves out what the assistant says.
    """
    messages = [
        {"role": "user", "content": _ASKED},
        {"role": "assistant", "content": _SOMETHING},
    ]
    _, said, after = tokenizer.chat(messages, template, False).rpartition(_SOMETHING)
    if not said:
        raise UserError(
            "the chat template leaves out what an assistant says; set data.chat_template to "
            "another one, or to 'none'"
        )
    return after.strip()


def end_of_turn(tokenizer: Tokenizer, template: str | None) -> int | None:
    """The id that ends a response: the first one that the template puts after it, or without a
    template the separator. None where a template puts nothing after it, or ordinary text (which a
    line break is, even where it is an added token).

    Raises:
      UserError: as `after_response`.
    """
    if template is None:
        return tokenizer.separator
    after = after_response(tokenizer, template)
    if not after:
        return None
    end = tokenizer.encode(after)[0]
    return end if end in tokenizer.added and tokenizer.decode([end]).strip() else None
