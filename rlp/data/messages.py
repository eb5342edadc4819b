"""Messages of conversations, in the formats that occur in files.

    {"role": "user", "content": "…"}      the content is a text, or a list of parts of type text
    {"from": "human", "value": "…"}       the format of ShareGPT

A message that cannot be interpreted raises UserError: no message is dropped.
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
CALLS = ("tool_calls", "function_call")  # keys of an assistant message besides its content
_TEXT_PARTS = ("text", "input_text", "output_text")

Message = Mapping[str, Any]


def read_messages(where: str, column: str, value: object) -> list[Message]:
    """Convert a value of a column to messages, each with a role and a text as its content.

    Role names are case-insensitive and are mapped to those of `ROLES`. Other keys are kept for the
    chat template, unless their value is null.

    Args:
      where: file and row, for error messages.
      column: name of the column.
      value: a list of messages, or its JSON text.

    Raises:
      UserError: If the value is not a list of messages, or is empty, or a message is malformed.
    """
    check_present(where, value)
    items = _from_json(value) if isinstance(value, str) else value
    if not isinstance(items, list):
        kind = "null" if items is None else type(items).__name__
        raise UserError(f"{where}: column {column!r} must be a list of messages but is {kind}")
    if not items:
        raise UserError(f"{where}: column {column!r} is an empty list of messages")
    return [_message(f"{where}, message {number}", item) for number, item in enumerate(items, 1)]


def has_content(message: Message) -> bool:
    """Return whether a message has tool calls or contains more than white space."""
    return bool(message["content"].strip()) or any(message.get(call) for call in CALLS)


def _from_json(text: str) -> object:
    """Return the value of a JSON text; any other text is returned unchanged."""
    try:
        return parse(text)
    except ValueError:
        return text


def _message(where: str, item: object) -> Message:
    if not isinstance(item, dict):
        kind = type(item).__name__
        raise UserError(f'{where}: must be an object with "role" and "content" but is {kind}')
    present = {key: value for key, value in item.items() if value is not None}
    role, name = present.get("role", present.get("from")), "content"
    if name not in present and "value" in present:
        name = "value"
    message = {"role": _role(where, role), "content": _content(where, name, present)}
    return {k: x for k, x in present.items() if k not in ("from", "value")} | message


def _role(where: str, value: object) -> str:
    role = _ROLE_OF.get(value.strip().lower()) if isinstance(value, str) else None
    if role is None:
        known = "; ".join(
            role + (f" (or {', '.join(names[1:])})" if names[1:] else "")
            for role, names in ROLES.items()
        )
        problem = "the role is missing" if value is None else f"unknown role {value!r}"
        raise UserError(f"{where}: {problem}; use one of {known}")
    return role


def _content(where: str, name: str, message: Message) -> str:
    """Return the content of a message as one text."""
    content = message.get(name)
    if content is None:
        if any(message.get(call) for call in CALLS):
            return ""
        raise UserError(f"{where}: the content is missing or null")
    if isinstance(content, list):
        return "".join(
            _part(f"{where}, part {number}", part) for number, part in enumerate(content, 1)
        )
    return as_text(where, name, content)


def _part(where: str, part: object) -> str:
    """Return the text of one part of a content."""
    if isinstance(part, dict):
        if part.get("type", "text") not in _TEXT_PARTS:
            raise UserError(
                f"{where}: type {part['type']!r} is not supported; only text parts can be used"
            )
        part = part.get("text")
    return as_text(where, "text", part)
