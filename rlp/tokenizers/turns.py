"""Find how a chat template ends a turn."""

from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

_QUESTION, _ANSWER = "a problem", "something"  # arbitrary text that a template does not change


def after_response(tokenizer: Tokenizer, template: str) -> str:
    """Return the text that a template puts after an assistant message, without surrounding space.

    Raises:
      UserError: If the template fails or omits the content of the assistant message.
    """
    messages = [
        {"role": "user", "content": _QUESTION},
        {"role": "assistant", "content": _ANSWER},
    ]
    _, answer, after = tokenizer.chat(messages, template, False).rpartition(_ANSWER)
    if not answer:
        raise UserError(
            "the chat template leaves out what an assistant says; set data.chat_template to "
            "another one, or to 'none'"
        )
    return after.strip()


def end_of_turn(tokenizer: Tokenizer, template: str | None) -> int | None:
    """Return the id that ends a response.

    With a template this is the first id after the response, or None if the template puts nothing or
    ordinary text there (a line break is ordinary text, even as an added token). Without a template
    it is the separator.

    Raises:
      UserError: If `after_response` raises it.
    """
    if template is None:
        return tokenizer.separator
    after = after_response(tokenizer, template)
    if not after:
        return None
    end = tokenizer.encode(after)[0]
    return end if end in tokenizer.added and tokenizer.decode([end]).strip() else None
