"""Messages of conversations, in the forms that files have them.

    {"role": "user", "content": "…"}      a text, or a list of parts of type text
    {"from": "human", "value": "…"}       ShareGPT's form

A message that cannot be read as it is meant raises UserError: none is dropped.
"""

from collections.abc import Mapping
from typing import Any

from rlp.data.sources import as_text, check_present
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import parse

SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"
ROLES = {
    SYSTEM: (SYSTEM, "developer"),
    USER: (USER, "human"),
    ASSISTANT: (ASSISTANT, "gpt", "chatgpt", "bot", "chatbot", "model", "ai", "bing"),
    TOOL: (TOOL, "function", "observation", "ipython"),
}
_ROLE_OF = {name: role for role, names in ROLES.items() for name in names}
CALLS = ("tool_calls", "function_call")  # what an assistant may say besides its content
_TEXT_PARTS = ("text", "input_text", "output_text")

Message = Mapping[str, Any]


def read_messages(where: str, column: str, value: object) -> list[Message]:
    """A value of a column as messages, each with a role and a content that is a text.

    Roles become those of `ROLES`, in any case of letters. Other keys are kept for the chat
    template, but for those that hold null.

    Args:
      where: the row stands, for messages of errors.
      column: its name.
      value: a list, or its JSON text.

    Raises:
      UserError: it is something else, empty, or holds what is not such a message.
    """
    check_present(where, value)
    given = _from_json(value) if isinstance(value, str) else value
    if not isinstance(given, list):
        kind = "null" if given is None else type(given).__name__
        raise UserError(f"{where}: column {column!r} is not a list of messages but {kind}")
    if not given:
        raise UserError(f"{where}: column {column!r} is an empty list, without a message")
    return [
        _message(f"{where}, message {number}", message) for number, message in enumerate(given, 1)
    ]


def says(message: Message) -> bool:
    """Whether a message holds more than white space."""
    return bool(message["content"].strip()) or any(message.get(call) for call in CALLS)


def _from_json(text: str) -> object:
    """The value that a JSON text stands for; another text as it is."""
    try:
        return parse(text)
    except ValueError:
        return text


def _message(where: str, given: object) -> Message:
    if not isinstance(given, dict):
        raise UserError(f"{where}: not a role with a content but {type(given).__name__}")
    present = {key: value for key, value in given.items() if value is not None}
    role, name = present.get("role", present.get("from")), "content"
    if name not in present and "value" in present:
        name = "value"
    read = {"role": _role(where, role), "content": _content(where, name, present)}
    return {k: x for k, x in present.items() if k not in ("from", "value")} | read


def _role(where: str, given: object) -> str:
    role = _ROLE_OF.get(given.strip().lower()) if isinstance(given, str) else None
    if role is None:
        known = "; ".join(
            role + (f" (or {', '.join(names[1:])})" if names[1:] else "")
            for role, names in ROLES.items()
        )
        what = "it has no role" if given is None else f"unknown role {given!r}"
        raise UserError(f"{where}: {what}; the roles are {known}")
    return role


def _content(where: str, name: str, message: Message) -> str:
    """The content of a message as one text."""
    content = message.get(name)
    if content is None:
        if any(message.get(call) for call in CALLS):
            return ""
        raise UserError(f"{where}: it has no content, or null")
    if isinstance(content, list):
        return "".join(
            _part(f"{where}, part {number}", part) for number, part in enumerate(content, 1)
        )
    return as_text(where, name, content)


def _part(where: str, part: object) -> str:
    """The text of a part of a content."""
    if isinstance(part, dict):
        if part.get("type", "text") not in _TEXT_PARTS:
            raise UserError(f"{where}: type {part['type']!r} is not text")
        part = part.get("text")
    return as_text(where, "text", part)
