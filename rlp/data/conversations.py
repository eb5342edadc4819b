"""Prompts with their responses: rows of files as stretches of text, some of which are learnt.

    row → messages → stretches → tokens (`pairs`)

A conversation is a list of messages with roles; a prompt with its response is one of two. What the
role "assistant" says is learnt. The stretches of a row are tokenized together, as one text.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlp.data.sources import Column, as_text
from rlp.errors import UserError

ASSISTANT = "assistant"
ROLES = {"human": "user", "gpt": ASSISTANT}  # of ShareGPT's form: {"from": "gpt", "value": …}

Message = Mapping[str, Any]
Render = Callable[[Sequence[Message], bool], str]  # with what stands before an answer, if asked


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Text of a row; `learnt` if it is (a part of) a response."""

    text: str
    learnt: bool


@dataclasses.dataclass(frozen=True)
class Format:
    """In which columns a row holds its texts: a prompt and a response, or messages.

    Attributes:
      prompt, response, messages: names; "" for those that are not there.
    """

    prompt: str = ""
    response: str = ""
    messages: str = ""

    @property
    def columns(self) -> list[Column]:
        """With the fields of the config that name them."""
        named = (
            ("data.sft.prompt_column", self.prompt),
            ("data.sft.response_column", self.response),
            ("data.sft.messages_column", self.messages),
        )
        return [column for column in named if column[1]]

    def conversation(self, where: str, values: Sequence[object]) -> list[Message]:
        """The messages of a row; none if all that its assistant says is white space.

        Args:
          where: the row stands, for messages of errors.
          values: of `columns`.

        Raises:
          UserError: a value that is no text or no list of messages; no message of an assistant.
        """
        if self.messages:
            messages = _messages(where, self.messages, values[0])
        else:
            texts = [
                as_text(where, name, value)
                for (_, name), value in zip(self.columns, values, strict=True)
            ]
            roles = ("user", ASSISTANT)
            messages = [{"role": r, "content": x} for r, x in zip(roles, texts, strict=True)]
        said = [message["content"] for message in messages if message["role"] == ASSISTANT]
        if not said:
            raise UserError(f"{where}: no message of role {ASSISTANT!r}, so nothing to learn")
        return messages if any(text.strip() for text in said) else []


def joined(messages: Sequence[Message]) -> list[Stretch]:
    """The contents of messages as they are, up to the last one that is learnt."""
    stretches = [Stretch(m["content"], m["role"] == ASSISTANT) for m in messages]
    while stretches and not stretches[-1].learnt:
        stretches.pop()
    return stretches


def rendered(where: str, messages: Sequence[Message], render: Render) -> list[list[Stretch]]:
    """A conversation through a chat template, as one row or several.

    What is learnt of a message is what the template adds to a prompt that asks for it: the content,
    and what ends it. A message that opens the conversation has no such prompt; there, what is
    learnt begins with the content. Templates may render earlier messages otherwise once others
    follow (Qwen3's leaves out their thoughts); then a row of its own begins, which holds the
    conversation up to there as a sampler would see it. So every response is learnt once, after its
    very prompt.

    Args:
      where: the row stands, for messages of errors.
      messages: with roles and contents.
      render: messages to text.

    Raises:
      UserError: the template fails, or answers do not begin with what it puts before an answer.
    """
    rows: list[list[Stretch]] = []
    told = ""  # the text of the last row
    for number, message in enumerate(messages):
        if message["role"] != ASSISTANT:
            continue
        try:
            after = render(messages[: number + 1], False)
            before = render(messages[:number], True) if number else _opened(message, after)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        if not after.startswith(before):
            raise UserError(
                f"{where}: the chat template does not put the same text before message "
                f"{number + 1} and where it asks for it ({before[-40:]!r}), so its response has no "
                "beginning; give another template with data.chat_template"
            )
        if not rows or not before.startswith(told):
            rows.append([])
            told = ""
        rows[-1] += [Stretch(before[len(told) :], False), Stretch(after[len(before) :], True)]
        told = after
    return rows


def _opened(message: Message, text: str) -> str:
    """What a template puts before the content of the message that opens a conversation."""
    before, content, _ = text.partition(message["content"].strip())
    if not content:
        raise UserError("the chat template leaves out or changes the first message's content")
    return before


def _messages(where: str, column: str, value: object) -> list[Message]:
    """A value as messages with roles and contents, other keys kept for the template."""
    if not isinstance(value, list):
        raise UserError(
            f"{where}: column {column!r} is no list of messages: {type(value).__name__}"
        )
    messages: list[Message] = []
    for number, given in enumerate(value, 1):
        place = f"{where}, message {number}"
        if not isinstance(given, dict):
            raise UserError(f"{place}: not a role with a content but {type(given).__name__}")
        if "from" in given:
            role = given["from"]
            role = ROLES.get(role, role) if isinstance(role, str) else role
            given = {"role": role, "content": given.get("value")}
        texts = {name: as_text(place, name, given.get(name)) for name in ("role", "content")}
        messages.append(given | texts)
    return messages
