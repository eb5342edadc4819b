"""Requests for text and the responses to them, on the host."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

from rlp.runtime.errors import UserError

SEEDS = 2**32  # seeds of PRNG keys are below
BROKEN = "\N{REPLACEMENT CHARACTER}"  # what a decoder writes for a part of a character


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: at a temperature, of what top-k leaves and then top-p.

    Attributes:
      temperature: 0 takes the likeliest token.
      top_p: the likeliest tokens with this share of the probability that `top_k` leaves are kept;
        1 keeps all.
      top_k: this number of the likeliest tokens is kept; 0 keeps all.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0


@dataclasses.dataclass(frozen=True)
class Request:
    """A text to generate.

    Attributes:
      prompt: token ids, at least one.
      max_tokens: the most tokens of the response, including the one that ends it.
      sampling: how its tokens are chosen.
      seed: of its random numbers, from 0 to 2^32 - 1; token i has number i of this seed.
      stop: the response ends when its text contains one of these strings.
      ends: the response ends with one of these ids.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = Sampling()
    seed: int = 0
    stop: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Response:
    """A generated text.

    Attributes:
      tokens: its ids, including an end id, or the ids of a stop string.
      text: without the end id, and cut before the first stop string.
      logprobs: of each token under the distribution before it is truncated, at the temperature of
        the sampling, or at 1 if that is 0; nats.
      finish: "stop" after an end id or a stop string, "length" after `max_tokens` without one.
    """

    tokens: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]
    finish: str


def check(request: Request, vocab_size: int, context: int | None) -> None:
    """Refuse a request that cannot be served.

    Args:
      request: the request.
      vocab_size: ids of prompts are below.
      context: the most tokens of a prompt with its response; None if there is no limit.

    Raises:
      UserError: If it cannot be served; says why.
    """
    check_sampling(request.sampling)
    length = len(request.prompt) + request.max_tokens
    rules = [
        (not request.prompt, "the prompt has no tokens; begin it with a token, such as the BOS"),
        (
            not all(0 <= token < vocab_size for token in request.prompt),
            f"the prompt has ids outside of 0 … {vocab_size - 1}; encode it with the tokenizer of "
            "the model",
        ),
        (request.max_tokens < 1, f"max_tokens={request.max_tokens}; it must be at least 1"),
        (not 0 <= request.seed < SEEDS, f"seed={request.seed}; it must be from 0 to {SEEDS - 1}"),
        ("" in request.stop, "a stop string is empty; leave it out"),
        (
            context is not None and length > context,
            f"the prompt of {len(request.prompt)} tokens and max_tokens={request.max_tokens} are "
            f"more than the {context} tokens of the model's context; shorten one of them",
        ),
    ]
    _refuse(rules)


def check_sampling(sampling: Sampling) -> None:
    """Refuse settings with which nothing can be sampled.

    Raises:
      UserError: If a value is out of its range.
    """
    s = sampling
    rules = [
        (
            not 0 <= s.temperature < math.inf,
            f"temperature={s.temperature}; it must be 0 or a finite number above it",
        ),
        (not 0 < s.top_p <= 1, f"top_p={s.top_p}; it must be above 0 and at most 1"),
        (not 0 <= s.top_k < 2**31, f"top_k={s.top_k}; it must be 0 or a number of tokens"),
    ]
    _refuse(rules)


def _refuse(rules: Sequence[tuple[bool, str]]) -> None:
    """Raise the message of the first rule that is broken."""
    for broken, message in rules:
        if broken:
            raise UserError(message)


class Reader:
    """Collects the tokens of a response and finds its end.

    Attributes:
      request: the request.
      tokens: ids so far.
      response: the response once it is finished, else None.
    """

    def __init__(self, request: Request, decode: Callable[[Sequence[int]], str]) -> None:
        """Create one; `decode` returns the text of ids."""
        self.request, self._decode = request, decode
        self.tokens: list[int] = []
        self._logprobs: list[float] = []
        self._recent = _Recent(request, decode)
        self.response: Response | None = None

    def add(self, tokens: Sequence[int], logprobs: Sequence[float]) -> None:
        """Add tokens, and finish the response if it ends with one of them."""
        self.tokens += tokens
        self._logprobs += logprobs
        if (count := self._stopped()) is not None:
            text = self._text(count)
            cut = min(at for stop in self.request.stop if (at := text.find(stop)) >= 0)
            self._finish(count, text[:cut], "stop")
        elif self.tokens[-1] in self.request.ends:
            self._finish(len(self.tokens), self._text(len(self.tokens) - 1), "stop")
        elif len(self.tokens) == self.request.max_tokens:
            self._finish(len(self.tokens), self._text(len(self.tokens)), "length")

    def shown(self) -> str:
        """Return the text so far without its end that later tokens may still change: a character
        that is not whole, or the beginning of a stop string."""
        if self.response is not None:
            return self.response.text
        text = self._text(len(self.tokens)).rstrip(BROKEN)
        begins = lambda size: any(stop.startswith(text[-size:]) for stop in self.request.stop)
        longest = min(max(map(len, self.request.stop), default=1) - 1, len(text))
        held = next((size for size in range(longest, 0, -1) if begins(size)), 0)
        return text[: len(text) - held]

    def _finish(self, count: int, text: str, how: str) -> None:
        logprobs = tuple(self._logprobs[:count])
        self.response = Response(tuple(self.tokens[:count]), text, logprobs, how)

    def _stopped(self) -> int | None:
        """Return the number of tokens whose text is the first to contain a stop string; None if
        there is none."""
        stops, most = self.request.stop, len(self.tokens)
        most -= bool(self.tokens) and self.tokens[-1] in self.request.ends
        contains = lambda count: any(stop in self._text(count) for stop in stops)
        checked = self._recent.checked
        if not stops or not self._recent.stops(self.tokens[:most]) or not contains(most):
            return None
        return next(count for count in range(checked + 1, most + 1) if contains(count))

    def _text(self, count: int) -> str:
        """Return the text of the first tokens, decoded together with the prompt: alone, they would
        lose the space before their first word."""
        return self._decode([*self.request.prompt, *self.tokens[:count]])[
            self._recent.prompt_size :
        ]


class _Recent:
    """Looks for stop strings in the end of a growing response, without decoding all of it again.

    What is decoded begins between two characters, and a stop string and a character before the end
    of the last look. That character is for decoders that drop a space at the beginning.

    Attributes:
      checked: tokens of the response at the last look at which it ended with a whole character.
    """

    def __init__(self, request: Request, decode: Callable[[Sequence[int]], str]) -> None:
        self._request, self._decode = request, decode
        self._reach = max(map(len, request.stop), default=0) + 1
        self.checked = 0
        self._begin = 0  # tokens of the response that are not decoded; 0: the prompt is, too
        # The next value of `_begin`, and the characters before it of what is decoded now.
        self._next: tuple[int, int] | None = None

    def stops(self, tokens: Sequence[int]) -> bool:
        """Return whether a stop string seems to occur; `tokens` are all of the response so far."""
        before = () if self._begin else self._request.prompt
        text = self._decode([*before, *tokens[self._begin :]])
        after = text if self._begin else text[self.prompt_size :]
        if not after.endswith(BROKEN):  # else a character may go on in the next token
            self._advance(len(tokens), len(after))
        return any(stop in after for stop in self._request.stop)

    @functools.cached_property
    def prompt_size(self) -> int:
        """Characters of the prompt."""
        return len(self._decode(self._request.prompt))

    def _advance(self, count: int, size: int) -> None:
        """Note that a character ends after `count` tokens, `size` characters from `_begin`."""
        self.checked = count
        if self._next is None:
            self._next = count, size
        elif size - self._next[1] > self._reach:
            self._begin, self._next = self._next[0], (count, size - self._next[1])
