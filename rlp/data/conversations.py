"""Prompts with their responses: rows of files as stretches of text, some of which are learnt.

    row → messages (`messages`) → stretches → tokens (`pairs`)

A conversation is a list of messages with roles; a prompt with its response is one of two. What the
role "assistant" says is learnt. The stretches of a row are tokenized together, as one text.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

from rlp.data.columns import Column
from rlp.data.messages import ASSISTANT, CALLS, USER, Message, read_messages, says
from rlp.data.sources import as_text
from rlp.runtime.errors import UserError
from rlp.tokenizers.chat_templates import LimitExceeded, Request

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

        A prompt and a response are texts, or lists of messages.

        Args:
          where: the row stands, for messages of errors.
          values: of `columns`.

        Raises:
          UserError: a value that is not a text or a list of messages; no message of an assistant.
        """
        if self.messages:
            messages = read_messages(where, self.messages, values[0])
        else:
            prompt = _turns(where, self.prompt, values[0], USER)
            if any(message["role"] == ASSISTANT for message in prompt):
                raise UserError(
                    f"{where}: column {self.prompt!r} holds a message of role {ASSISTANT!r}; join "
                    "it and the response in one list for data.sft.messages_column, where all "
                    "that the assistant says is learnt"
                )
            messages = [*prompt, *_turns(where, self.response, values[1], ASSISTANT)]
        said = [message for message in messages if message["role"] == ASSISTANT]
        if not said:
            raise UserError(f"{where}: no message of role {ASSISTANT!r}, so nothing to learn")
        return messages if any(map(learns, said)) else []


def learns(message: Message) -> bool:
    """Whether a message is learnt: the assistant says something there, and it has no weight of 0,
    with which OpenAI's format marks what is not to be learnt."""
    return message["role"] == ASSISTANT and says(message) and message.get("weight") != 0


def _turns(where: str, column: str, value: object, role: str) -> list[Message]:
    """One side of a pair: a text, which `role` says, or a list of messages."""
    if isinstance(value, list):
        return read_messages(where, column, value)
    return [{"role": role, "content": as_text(where, column, value)}]


def asked_for(messages: Sequence[Message]) -> Iterator[Request]:
    """What `rendered` renders of a conversation, but for what a first message begins with."""
    for number, message in enumerate(messages):
        if learns(message):
            yield messages[: number + 1], False
            if number:
                yield messages[:number], True


def leaves_out_calls(messages: Sequence[Message], render: Render | None) -> bool:
    """Whether what an assistant calls beside its content is not in the text of a conversation.

    Args:
      messages: with an assistant's.
      render: as of `rendered`; None where contents are joined as they are.
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
    except UserError:  # the template reads them: it refuses the conversation without them
        return False


def check_whole(
    where: str, messages: Sequence[Message], rows: Sequence[Sequence[Stretch]], render: Render
) -> None:
    """Raises UserError if a chat template leaves out the content of a message.

    Args:
      where: the row stands, for messages of errors.
      messages: of a conversation.
      rows: that `rendered` made of it.
      render: as of `rendered`.
    """
    written = "".join(stretch.text for row in rows for stretch in row)
    count = max(i for i, message in enumerate(messages, 1) if message["role"] == ASSISTANT)
    used = list(messages[:count])
    whole = ""  # rendered when it is needed
    for number, message in enumerate(used):
        plain = message["role"] in (USER, ASSISTANT)
        if plain and message["content"].strip() in written:
            continue
        # A template may trim or escape a content: it leaves it out if another one reads alike.
        other = {**message, "content": message["content"] + "x"}
        whole = whole or render(used, False)
        if render([*used[:number], other, *used[number + 1 :]], False) == whole:
            raise UserError(
                f"{where}, message {number + 1}: the chat template leaves out the content of role "
                f"{message['role']!r}; give another template with data.chat_template",
                field="data.chat_template",
            )


def joined(messages: Sequence[Message]) -> list[Stretch]:
    """The contents of messages as they are, up to the last one that is learnt."""
    stretches = [Stretch(m["content"], learns(m)) for m in messages]
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
        if not learns(message):
            continue
        try:
            after = render(messages[: number + 1], False)
            before = render(messages[:number], True) if number else _opened(message, render)
        except UserError as error:
            raise error.within(where) from error
        if not after.startswith(before):
            raise UserError(
                f"{where}: the chat template does not put the same text before message "
                f"{number + 1} and where it asks for it ({before[-40:]!r}), so its response has no "
                "beginning; give another template with data.chat_template",
                field="data.chat_template",
            )
        if not rows or not before.startswith(told):
            rows.append([])
            told = ""
        rows[-1] += [Stretch(before[len(told) :], False), Stretch(after[len(before) :], True)]
        told = after
    return rows


def _opened(message: Message, render: Render) -> str:
    """What a template puts before the content of the message that opens a conversation: the common
    beginning of two such messages that say different things."""
    return os.path.commonprefix([render([{**message, "content": x}], False) for x in ("0", "1")])
