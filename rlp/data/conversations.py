"""Prompts with their responses: rows of files as spans of text, some of which are trained on.

    row → messages (`messages`) → spans → tokens (`pairs`)

A conversation is a list of messages with roles; a prompt with its response is a conversation of two
messages. The messages of the role "assistant" are trained on. The spans of a row are tokenized
together, as one text.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

from rlp.data.columns import Column
from rlp.data.messages import ASSISTANT, CALLS, USER, Message, has_content, read_messages
from rlp.data.sources import as_text
from rlp.runtime.errors import UserError
from rlp.tokenizers.chat_templates import LimitExceeded, Request

# Renders messages as text; the flag is `add_generation_prompt` of `apply_chat_template`.
Render = Callable[[Sequence[Message], bool], str]


@dataclasses.dataclass(frozen=True)
class TextSpan:
    """Text of a row; `trained_on` if it is a response or part of one."""

    text: str
    trained_on: bool


@dataclasses.dataclass(frozen=True)
class Format:
    """The columns that contain the texts of a row: a prompt and a response, or messages.

    Attributes:
      prompt, response, messages: names of columns; "" for a column that is not used.
    """

    prompt: str = ""
    response: str = ""
    messages: str = ""

    @property
    def columns(self) -> list[Column]:
        """The columns that are used, with the config fields that name them."""
        named = (
            ("data.sft.prompt_column", self.prompt),
            ("data.sft.response_column", self.response),
            ("data.sft.messages_column", self.messages),
        )
        return [column for column in named if column[1]]

    def conversation(self, where: str, values: Sequence[object]) -> list[Message]:
        """Return the messages of a row; an empty list if no assistant message is trained on.

        A prompt and a response are texts, or lists of messages.

        Args:
          where: file and row, for error messages.
          values: the values of `columns`.

        Raises:
          UserError: If a value is neither a text nor a list of messages, or no message has the role
            "assistant".
        """
        if self.messages:
            messages = read_messages(where, self.messages, values[0])
        else:
            prompt = _turns(where, self.prompt, values[0], USER)
            if any(message["role"] == ASSISTANT for message in prompt):
                raise UserError(
                    f"{where}: column {self.prompt!r} contains a message of role {ASSISTANT!r}; "
                    "join it and the response in one list and set data.sft.messages_column, which "
                    "trains on all assistant messages"
                )
            messages = [*prompt, *_turns(where, self.response, values[1], ASSISTANT)]
        replies = [message for message in messages if message["role"] == ASSISTANT]
        if not replies:
            raise UserError(
                f"{where}: no message has the role {ASSISTANT!r}, so nothing to train on"
            )
        return messages if any(map(is_trained_on, replies)) else []


def is_trained_on(message: Message) -> bool:
    """Return whether a message is trained on: it is a non-empty message of the assistant, and its
    "weight" is not 0, which excludes a message from training in OpenAI's format."""
    return message["role"] == ASSISTANT and has_content(message) and message.get("weight") != 0


def _turns(where: str, column: str, value: object, role: str) -> list[Message]:
    """Return one side of a pair as messages: a text becomes one message of `role`."""
    if isinstance(value, list):
        return read_messages(where, column, value)
    return [{"role": role, "content": as_text(where, column, value)}]


def render_requests(messages: Sequence[Message]) -> Iterator[Request]:
    """Yield the requests that `rendered` makes for a conversation, except those of `_opened`."""
    for number, message in enumerate(messages):
        if is_trained_on(message):
            yield messages[: number + 1], False
            if number:
                yield messages[:number], True


def drops_tool_calls(messages: Sequence[Message], render: Render | None) -> bool:
    """Return whether the tool calls of a conversation are missing from its text.

    Args:
      messages: the conversation.
      render: as for `rendered`; None if contents are joined without a template.
    """
    if not any(message.get(call) for message in messages for call in CALLS):
        return False
    if render is None:
        return True
    others = [{k: x for k, x in message.items() if k not in CALLS} for message in messages]
    try:
        return render(others, False) == render(messages, False)
    except LimitExceeded:
        raise
    except UserError:  # the template uses the calls: it fails on the conversation without them
        return False


def check_complete(
    where: str, messages: Sequence[Message], rows: Sequence[Sequence[TextSpan]], render: Render
) -> None:
    """Raise UserError if a chat template leaves out the content of a message.

    Args:
      where: file and row, for error messages.
      messages: the conversation.
      rows: the result of `rendered` for it.
      render: as for `rendered`.
    """
    written = "".join(span.text for row in rows for span in row)
    count = max(i for i, message in enumerate(messages, 1) if message["role"] == ASSISTANT)
    used = list(messages[:count])
    text = ""  # rendered on demand
    for number, message in enumerate(used):
        plain = message["role"] in (USER, ASSISTANT)
        if plain and message["content"].strip() in written:
            continue
        # A template may trim or escape contents: compare the text with that of a changed content.
        changed = {**message, "content": message["content"] + "x"}
        text = text or render(used, False)
        if render([*used[:number], changed, *used[number + 1 :]], False) == text:
            raise UserError(
                f"{where}, message {number + 1}: the chat template drops the content of role "
                f"{message['role']!r}; set data.chat_template to another template",
                field="data.chat_template",
            )


def joined(messages: Sequence[Message]) -> list[TextSpan]:
    """Return the contents of messages, unchanged, up to the last one that is trained on."""
    spans = [TextSpan(m["content"], is_trained_on(m)) for m in messages]
    while spans and not spans[-1].trained_on:
        spans.pop()
    return spans


def rendered(where: str, messages: Sequence[Message], render: Render) -> list[list[TextSpan]]:
    """Render a conversation with a chat template, as one or more rows.

    The trained-on span of a message is the text that the template adds to the generation prompt
    for it: the content and the end of the turn. A message that opens the conversation has no such
    prompt; its span begins with the content. Templates may render earlier messages differently once
    others follow (Qwen3's drops their thoughts); then a separate row begins, which contains the
    conversation up to that message as a sampler would see it. Every response is thus trained on
    once, after the exact prompt that precedes it in sampling.

    Args:
      where: file and row, for error messages.
      messages: the conversation.
      render: converts messages to text.

    Raises:
      UserError: If the template fails, or a rendered response does not begin with its generation
        prompt.
    """
    rows: list[list[TextSpan]] = []
    previous = ""  # the text of the last row
    for number, message in enumerate(messages):
        if not is_trained_on(message):
            continue
        try:
            after = render(messages[: number + 1], False)
            before = render(messages[:number], True) if number else _opened(message, render)
        except UserError as error:
            raise error.within(where) from error
        if not after.startswith(before):
            raise UserError(
                f"{where}: the chat template renders message {number + 1} without the text that "
                f"its generation prompt ends with ({before[-40:]!r}), so the beginning of the "
                "response is unknown; set data.chat_template to another template",
                field="data.chat_template",
            )
        if not rows or not before.startswith(previous):
            rows.append([])
            previous = ""
        rows[-1] += [TextSpan(before[len(previous) :], False), TextSpan(after[len(before) :], True)]
        previous = after
    return rows


def _opened(message: Message, render: Render) -> str:
    """Return the text that a template puts before the content of an opening message: the common
    prefix of two such messages with different contents."""
    return os.path.commonprefix([render([{**message, "content": x}], False) for x in ("0", "1")])
