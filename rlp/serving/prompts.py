"""Prompts and messages in the JSON of requests."""

from collections.abc import Mapping
from typing import Any

from rlp.serving.fields import ApiError, checked_text, is_whole, wrong

Prompt = str | tuple[int, ...]
_MESSAGE_FIELDS = frozenset({"role", "content", "name"})


def read_prompts(value: Any) -> tuple[Prompt, ...]:
    """Return prompts from a text, texts, ids, or lists of ids.

    Raises:
      ApiError: If the value is none of these.
    """
    if isinstance(value, str):
        return (checked_text("prompt", value),)
    if isinstance(value, list) and value:
        if all(map(is_whole, value)):
            return (tuple(value),)
        if all(isinstance(text, str) for text in value):
            return tuple(checked_text("prompt", text) for text in value)
        if all(isinstance(ids, list) and all(map(is_whole, ids)) for ids in value):
            return tuple(map(tuple, value))
    raise wrong("prompt", value, "it must be a text, texts, a list of ids, or lists of ids")


def read_messages(value: Any) -> tuple[Mapping[str, str], ...]:
    """Return messages with "role", "content" and perhaps "name"; the texts of parts are joined.

    Raises:
      ApiError: If there are none, or one has something else than text.
    """
    if not isinstance(value, list) or not value:
        raise wrong("messages", value, "it must be a list of at least one message")
    return tuple(_message(one, f"messages[{at}]") for at, one in enumerate(value))


def _message(value: Any, where: str) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise wrong(where, value, "it must be an object")
    for name, content in value.items():
        if name not in _MESSAGE_FIELDS and content not in (None, [], ""):
            raise ApiError(f"{where} has {name[:80]!a}, which is not supported", param="messages")
    content = value.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, where) for part in content)
    read = {
        "role": checked_text(f"{where}.role", value.get("role")),
        "content": checked_text(f"{where}.content", content),
    }
    if value.get("name") is not None:
        read["name"] = checked_text(f"{where}.name", value["name"])
    return read


def _part(value: Any, where: str) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind != "text":
        what = f"type {kind[:80]!a}" if isinstance(kind, str) else "no type"
        raise ApiError(f"{where} has a part of {what}; only texts are supported", param="messages")
    for name in value:
        if name not in ("type", "text"):
            message = f"{where} has a part with {name[:80]!a}, which is not supported"
            raise ApiError(message, param="messages")
    return checked_text(f"{where}.content", value.get("text"))
