"""The JSON of responses, in the form of OpenAI's interface."""

import dataclasses
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from rlp.evaluation.options.token_ranks import Ranked
from rlp.runtime import strict_json
from rlp.serving.fields import ApiError
from rlp.serving.token_names import TokenNames

_TYPES = {404: "not_found_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}


@dataclasses.dataclass(frozen=True)
class Header:
    """What all parts of a response have in common.

    Attributes:
      id: of the response.
      created: seconds since 1970.
      model: name of the model.
      chat: whether it answers a chat.
    """

    id: str
    created: int
    model: str
    chat: bool

    @classmethod
    def new(cls, model: str, chat: bool) -> "Header":
        """Return the header of a new response."""
        return cls(f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}", _now(), model, chat)

    def json(self, chunk: bool = False) -> dict[str, Any]:
        """Return its fields; those of a chunk of a stream, or of a whole response."""
        kind = "text_completion"
        if self.chat:
            kind = "chat.completion.chunk" if chunk else "chat.completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _now() -> int:
    return int(time.time())


def encoded(content: Any) -> bytes:
    """Return JSON; numbers that are not finite become null."""
    return json.dumps(strict_json.finite(content), separators=(",", ":")).encode()


def error(failure: ApiError) -> dict[str, Any]:
    """Return an error."""
    return {
        "error": {
            "message": failure.message,
            "type": _TYPES.get(failure.status, "invalid_request_error"),
            "param": failure.param,
            "code": failure.code,
        }
    }


def usage(prompts: int, responses: int) -> dict[str, int]:
    """Return numbers of tokens."""
    return {
        "prompt_tokens": prompts,
        "completion_tokens": responses,
        "total_tokens": prompts + responses,
    }


def choice(
    header: Header, index: int, text: str, finish: str | None, logprobs: Any = None
) -> dict[str, Any]:
    """Return a whole response to a prompt."""
    content: dict[str, Any] = {"text": text}
    if header.chat:
        content = {"message": {"role": "assistant", "content": text, "refusal": None}}
    return {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}


def chunk(header: Header, index: int, text: str, finish: str | None, first: bool) -> dict[str, Any]:
    """Return the next part of a response to a prompt."""
    content: dict[str, Any] = {"text": text}
    if header.chat:
        content = {"delta": ({"role": "assistant"} if first else {}) | {"content": text}}
    choices = [{"index": index, **content, "logprobs": None, "finish_reason": finish}]
    return header.json(chunk=True) | {"choices": choices}


def event(content: Any) -> bytes:
    """Return an event of a stream."""
    return b"data: " + encoded(content) + b"\n\n"


LAST_EVENT = b"data: [DONE]\n\n"


@dataclasses.dataclass(frozen=True)
class Scored:
    """Tokens with their log-probabilities.

    Attributes:
      tokens: ids.
      ranked: of all of them but the first; None if there is no other.
      start: index of the first one that is reported.
      top: alternatives of each token.
      hidden: characters at the beginning of their text that the response leaves out.
    """

    tokens: Sequence[int]
    ranked: Ranked | None
    start: int
    top: int
    hidden: int = 0

    def logprob(self, at: int) -> float | None:
        """Return the log-probability of a token, nats; None for the first token of a text."""
        return float(self.ranked.logprobs[at - 1]) if self.ranked and at else None

    def alternatives(self, at: int) -> list[tuple[int, float]]:
        """Return the likeliest ids in the place of a token, with their log-probabilities."""
        if self.ranked is None or not at:
            return []
        ids, logprobs = self.ranked.likeliest[at - 1], self.ranked.top_logprobs[at - 1]
        return [(int(i), float(x)) for i, x in zip(ids, logprobs, strict=True)][: self.top]


def completion_logprobs(scored: Scored, names: TokenNames) -> dict[str, Any]:
    """Return the log-probabilities of a completion. A token is among its own alternatives."""
    places = range(scored.start, len(scored.tokens))
    tokens = [names.name(scored.tokens[at]) for at in places]
    logprobs = [scored.logprob(at) for at in places]
    offsets = names.offsets(scored.tokens)
    return {
        "tokens": tokens,
        "token_logprobs": logprobs,
        "top_logprobs": [_by_name(scored, at, names) for at in places] if scored.top else None,
        "text_offset": [max(0, offsets[at] - scored.hidden) for at in places],
    }


def _by_name(scored: Scored, at: int, names: TokenNames) -> dict[str, float] | None:
    """Return the alternatives of a token by name; the likeliest one of those with the same name."""
    own = scored.logprob(at)
    if own is None:
        return None
    found: dict[str, float] = {}
    for token, logprob in [*scored.alternatives(at), (scored.tokens[at], own)]:
        found.setdefault(names.name(token), logprob)
    return found


def chat_logprobs(scored: Scored, names: TokenNames) -> dict[str, Any]:
    """Return the log-probabilities of a chat response."""

    def one(token: int, logprob: float | None) -> dict[str, Any]:
        own = names.bytes_of(token) or names.name(token).encode()
        return {"token": names.name(token), "logprob": logprob, "bytes": list(own)}

    return {
        "content": [
            one(scored.tokens[at], scored.logprob(at))
            | {"top_logprobs": [one(*pair) for pair in scored.alternatives(at)]}
            for at in range(scored.start, len(scored.tokens))
        ],
        "refusal": None,
    }


def whole(header: Header, choices: Sequence[Any], numbers: dict[str, int]) -> dict[str, Any]:
    """Return a whole response."""
    return header.json() | {"choices": choices, "usage": numbers}


def models(name: str, created: int, context: int) -> dict[str, Any]:
    """Return the list of models."""
    return {"object": "list", "data": [model(name, created, context)]}


def model(name: str, created: int, context: int) -> dict[str, Any]:
    """Return the description of a model."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "rlp",
        "max_model_len": context,
    }
