"""From a request of a route to texts and log-probabilities, and back; without HTTP."""

import dataclasses
import secrets
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from rlp.evaluation.generation.requests import Request, check
from rlp.evaluation.runner.model import EvaluatedModel
from rlp.serving import responses
from rlp.serving.engine import Finished
from rlp.serving.fields import ApiError
from rlp.serving.prompts import Prompt
from rlp.serving.protocol import Chat, Completion, Options, Tokenize
from rlp.serving.token_names import TokenNames


@dataclasses.dataclass(frozen=True)
class Work:
    """What the engine is to do for a request.

    Attributes:
      header: of the response.
      options: of the request.
      prompts: ids of every prompt.
      shown: the text before the responses to each prompt: its own with echo, else "".
      echo: whether log-probabilities begin with those of the prompt.
      requests: of every response, those to the same prompt together.
    """

    header: responses.Header
    options: Options
    prompts: tuple[tuple[int, ...], ...]
    shown: tuple[str, ...]
    echo: bool
    requests: tuple[Request, ...]

    def prefix(self, index: int) -> str:
        """Return the text before a response."""
        return self.shown[index // self.options.n]

    def usage(self, finished: Sequence[Finished]) -> dict[str, int]:
        """Return the numbers of tokens."""
        generated = sum(len(one.response.tokens) for one in finished)
        return responses.usage(sum(map(len, self.prompts)), generated)


class Service:
    """The routes of one model.

    Its methods encode and decode texts, which takes time; none uses the network.
    """

    def __init__(self, model: EvaluatedModel, context: int, queue: int) -> None:
        """Create it.

        Args:
          model: the model.
          context: the most tokens of a prompt with its response.
          queue: the most texts of a request.
        """
        self.model, self.context, self.created = model, context, int(time.time())
        self._queue = queue
        self.names = TokenNames(model.tokenizer)

    def completion(self, query: Completion) -> Work:
        """Return the work of a request of /v1/completions.

        Raises:
          ApiError, UserError: If it cannot be served.
        """
        for text in query.prompts:
            if isinstance(text, str):
                self._check_size(text)
        self._check_count(len(query.prompts) * query.options.n)
        prompts = tuple(self._ids(prompt, query.bos) for prompt in query.prompts)
        shown = tuple(map(self._text, query.prompts)) if query.echo else ("",) * len(prompts)
        return self._work(False, prompts, shown, query.options, query.echo)

    def chat(self, query: Chat) -> Work:
        """Return the work of a request of /v1/chat/completions.

        Raises:
          ApiError, UserError: If it cannot be served.
        """
        self._check_count(query.options.n)
        text = self._rendered(query.messages, True)
        self._check_size(text)
        prompt = tuple(self.model.tokenizer.encode(text))
        return self._work(True, (prompt,), ("",), query.options, echo=False)

    def tokenize(self, query: Tokenize) -> dict[str, Any]:
        """Return the JSON of /tokenize.

        Raises:
          ApiError, UserError: If the text cannot be encoded.
        """
        text = query.prompt
        if text is None:
            text = self._rendered(query.messages, query.ask)
        ids = self._ids(text, query.bos)
        found = {"count": len(ids), "max_model_len": self.context, "tokens": list(ids)}
        return found | {"token_strs": list(map(self.names.name, ids)) if query.names else None}

    def detokenize(self, ids: tuple[int, ...]) -> dict[str, Any]:
        """Return the JSON of /detokenize.

        Raises:
          ApiError: If an id is not of the tokenizer.
        """
        return {"prompt": self._text(self._ids(ids, False))}

    def tokenizer_info(self) -> dict[str, Any]:
        """Return the JSON of /tokenizer_info: the special tokens, and the chat template."""
        words = self.model.tokenizer
        name = lambda token: words.decode([token])
        return {
            "tokenizer_class": type(words).__name__,
            "bos_token": None if words.bos_token is None else name(words.bos_token),
            "eos_token": name(words.eos),
            "pad_token": name(words.pad),
            "chat_template": self.model.template,
        }

    def response(self, work: Work, finished: Sequence[Finished]) -> dict[str, Any]:
        """Return the JSON of a response.

        Args:
          work: of the request.
          finished: of every response, in order.
        """
        choices = []
        for one in finished:
            text, reason = work.prefix(one.index) + one.response.text, one.response.finish
            scores = self._logprobs(work, one)
            choices.append(responses.choice(work.header, one.index, text, reason, scores))
        return responses.whole(work.header, choices, work.usage(finished))

    def _logprobs(self, work: Work, one: Finished) -> dict[str, Any] | None:
        if work.options.top is None:
            return None
        prompt = work.requests[one.index].prompt
        shown = len(work.prefix(one.index))
        scored = responses.Scored(
            tokens=(*prompt, *one.response.tokens),
            ranked=one.ranked,
            start=0 if work.echo else len(prompt),
            top=work.options.top,
            hidden=len(self.model.tokenizer.decode(prompt)) - shown,  # such as a BOS
        )
        of_kind = responses.chat_logprobs if work.header.chat else responses.completion_logprobs
        return of_kind(scored, self.names)

    def _work(
        self,
        chat: bool,
        prompts: tuple[tuple[int, ...], ...],
        shown: tuple[str, ...],
        options: Options,
        echo: bool,
    ) -> Work:
        self._check_ids("stop_token_ids", options.stop_ids)
        ends = () if options.ignore_eos else self.model.chat_ends if chat else self.model.ends
        ends = tuple(dict.fromkeys([*ends, *options.stop_ids]))
        requests: list[Request] = []
        for prompt in prompts:
            seed = secrets.randbits(32) if options.seed is None else options.seed
            for number in range(options.n):
                request = Request(
                    prompt=prompt,
                    max_tokens=self._limit(prompt, options.max_tokens),
                    sampling=options.sampling,
                    seed=zlib.crc32(f"{seed} {number}".encode()) if number else seed,
                    stop=options.stop,
                    ends=ends,
                )
                if request.max_tokens:
                    check(request, self.model.tokenizer.vocab_size, self.context)
                requests.append(request)
        header = responses.Header.new(self.model.name, chat)
        return Work(header, options, prompts, shown, echo, tuple(requests))

    def _check_count(self, count: int) -> None:
        """Refuse more texts than the queue takes, before any prompt is encoded."""
        if count > self._queue:
            raise ApiError(
                f"{count} texts were asked for; this server takes {self._queue} at most", param="n"
            )

    def _check_size(self, text: str) -> None:
        """Refuse a text that is too long for the context whatever its tokens are, because it would
        take long to encode."""
        longest = self.names.longest
        if longest is not None and len(text.encode()) > longest * self.context:
            raise ApiError(
                f"the prompt of {len(text)} characters exceeds the context of this server, "
                f"{self.context} tokens; shorten it",
                param="prompt",
                code="context_length_exceeded",
            )

    def _limit(self, prompt: tuple[int, ...], wanted: int | None) -> int:
        """Return the most tokens of a response."""
        left = self.context - len(prompt)
        if not prompt:
            raise ApiError("the prompt has no tokens; begin it with some text", param="prompt")
        if left < (1 if wanted is None else wanted):
            more = "" if wanted is None else f" and max_tokens={wanted}"
            raise ApiError(
                f"the prompt of {len(prompt)} tokens{more} exceed the context of this server, "
                f"{self.context} tokens; shorten one of them",
                param="prompt" if left < 1 else "max_tokens",
                code="context_length_exceeded",
            )
        return left if wanted is None else wanted

    def _ids(self, prompt: Prompt, bos: bool) -> tuple[int, ...]:
        """Return the ids of a prompt; the BOS is added to a text that does not begin with it."""
        words = self.model.tokenizer
        if isinstance(prompt, str):
            ids = tuple(words.encode(prompt))
            return (*words.bos, *ids) if bos and ids[: len(words.bos)] != words.bos else ids
        self._check_ids("prompt", prompt)
        return prompt

    def _check_ids(self, param: str, ids: Sequence[int]) -> None:
        last = self.model.tokenizer.vocab_size - 1
        if not all(0 <= token <= last for token in ids):
            raise ApiError(
                f"{param} has ids outside of 0 … {last}; use those of the tokenizer of the model",
                param=param,
            )

    def _text(self, prompt: Prompt) -> str:
        return prompt if isinstance(prompt, str) else self.model.tokenizer.decode(prompt)

    def _rendered(self, messages: Sequence[Mapping[str, str]], ask: bool) -> str:
        """Return the text of messages."""
        if self.model.template is None:
            raise ApiError(
                f"{self.model.name} has no chat template; use /v1/completions", param="messages"
            )
        return self.model.tokenizer.chat(messages, self.model.template, ask)
