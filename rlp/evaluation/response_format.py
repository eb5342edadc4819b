"""What stands before a response to a problem and around it.

A response is a thought to the engine: actions that leave the prompt at its end. It begins with an
opening of its own, the thinking tag, or with the last token of the prompt; it ends with the token
that ends a turn of the chat, or a text.
"""

import dataclasses
from collections.abc import Callable

from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer
from rlp.tokenizers.turns import after_response, end_of_turn

_ASKED = "a problem"


@dataclasses.dataclass(frozen=True)
class ResponseFormat:
    """What stands around a response.

    Attributes:
      ask: a prompt to the text that asks for its response.
      head: ids before that text.
      opening: ids that a response begins with, which are not sampled.
      shared: the opening is the last token of the prompt's text.
      end: id that ends a response.
    """

    ask: Callable[[str], str]
    head: tuple[int, ...]
    opening: tuple[int, ...]
    shared: bool
    end: int


def make_response_format(tokenizer: Tokenizer, template: str | None, think: bool) -> ResponseFormat:
    """The format of responses.

    Args:
      tokenizer: gives ids.
      template: of the chat, Jinja; None for prompts as they are.
      think: responses begin with the opening thinking tag.

    Raises:
      UserError: a template without an end of a response, or with one that is ordinary text; one
        that opens a thought by itself where `think` does too; no template where the opening is to
        be its last token.
    """
    if template is None:
        if not think:
            raise UserError.of(
                "data.problems.think",
                False,
                "lets responses begin with what a chat template puts before them, and there is "
                "none; set data.chat_template, or think=True",
            )
        opening = tokenizer.think_open
        return ResponseFormat(lambda text: text, tokenizer.bos, opening, False, tokenizer.separator)

    def ask(text: str) -> str:
        return tokenizer.chat([{"role": "user", "content": text}], template, True)

    after = after_response(tokenizer, template)
    if not after:
        raise UserError(
            "the chat template puts nothing after a response, so none could end; set "
            "data.chat_template to another one, or to 'none'",
            field="data.chat_template",
        )
    before, opening = tokenizer.encode(ask(_ASKED)), tokenizer.think_open
    if think and tuple(tokenizer.encode(ask(_ASKED).rstrip())[-len(opening) :]) == opening:
        raise UserError(
            "the chat template opens a thought by itself; set data.problems.think=False",
            field="data.problems.think",
            value=True,
        )
    end = end_of_turn(tokenizer, template)
    if end is None:
        text = tokenizer.decode(tokenizer.encode(after)[:1])
        raise UserError(
            f"the chat template ends a response with {text!r}, which responses hold, too; set "
            "data.chat_template to one that has a token for it, or to 'none'",
            field="data.chat_template",
        )
    return ResponseFormat(ask, (), opening if think else (before[-1],), not think, end)


def begins_in_thought(response_format: ResponseFormat, tokenizer: Tokenizer) -> bool:
    """Whether a response begins inside of a thought: after its opening tag, or that
    of the chat template."""
    if not response_format.shared:
        return response_format.opening == tokenizer.think_open
    asked = tuple(tokenizer.encode(response_format.ask(_ASKED).rstrip()))
    return asked[-len(tokenizer.think_open) :] == tokenizer.think_open
