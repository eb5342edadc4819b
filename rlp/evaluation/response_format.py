"""The tokens around a response to a problem: prompt, opening and end.

For the engine, a response is a thought with a fork at the end of the prompt. Its opening is the
opening thinking tag or, without one, the last token of the prompt. It ends with the token that ends
a turn of the chat template or, without a template, with the document separator.
"""

import dataclasses
from collections.abc import Callable

from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer
from rlp.tokenizers.turns import after_response, end_of_turn

_SAMPLE_PROBLEM = "a problem"


@dataclasses.dataclass(frozen=True)
class ResponseFormat:
    """The tokens around a response.

    Attributes:
      ask: from a problem to the text of its prompt.
      head: ids that precede the prompt.
      opening: ids that start a response; they are not sampled.
      shared: whether the opening is the last token of the prompt.
      end: id that ends a response.
    """

    ask: Callable[[str], str]
    head: tuple[int, ...]
    opening: tuple[int, ...]
    shared: bool
    end: int


def make_response_format(tokenizer: Tokenizer, template: str | None, think: bool) -> ResponseFormat:
    """Return the format of responses.

    Args:
      tokenizer: of the network.
      template: Jinja chat template; None for problems as prompts without a template.
      think: whether responses start with the opening thinking tag.

    Raises:
      UserError: If there is neither a template nor `think`; if the template has no end of a
        response, or one that is ordinary text; if both template and `think` open a thought.
    """
    if template is None:
        if not think:
            raise UserError.of(
                "data.problems.think",
                False,
                "needs a chat template, whose last token starts the response; set "
                "data.chat_template, or data.problems.think=True",
            )
        opening = tokenizer.think_open
        return ResponseFormat(lambda text: text, tokenizer.bos, opening, False, tokenizer.separator)

    def ask(text: str) -> str:
        return tokenizer.chat([{"role": "user", "content": text}], template, True)

    after = after_response(tokenizer, template)
    if not after:
        raise UserError(
            "the chat template adds no token after a response, so responses could not end; set "
            "data.chat_template to another one, or to 'none'",
            field="data.chat_template",
        )
    prompt, opening = ask(_SAMPLE_PROBLEM), tokenizer.think_open
    if think and tuple(tokenizer.encode(prompt.rstrip())[-len(opening) :]) == opening:
        raise UserError(
            "the chat template opens a thought by itself; set data.problems.think=False",
            field="data.problems.think",
            value=True,
        )
    end = end_of_turn(tokenizer, template)
    if end is None:
        text = tokenizer.decode(tokenizer.encode(after)[:1])
        raise UserError(
            f"the chat template ends a response with {text!r}, which also occurs in responses; set "
            "data.chat_template to one that ends them with a special token, or to 'none'",
            field="data.chat_template",
        )
    last = tokenizer.encode(prompt)[-1]
    return ResponseFormat(ask, (), opening if think else (last,), not think, end)


def begins_in_thought(response_format: ResponseFormat, tokenizer: Tokenizer) -> bool:
    """Return whether a response starts inside a thought: after its opening tag, or after one of
    the chat template."""
    if not response_format.shared:
        return response_format.opening == tokenizer.think_open
    prompt = tuple(tokenizer.encode(response_format.ask(_SAMPLE_PROBLEM).rstrip()))
    return prompt[-len(tokenizer.think_open) :] == tokenizer.think_open
