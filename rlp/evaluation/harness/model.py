"""A network of this project as a model of lm-evaluation-harness."""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from rlp.evaluation.generation.generator import Generator, Request
from rlp.evaluation.harness.arguments import read_arguments
from rlp.evaluation.options.option_scores import OptionScorer
from rlp.evaluation.options.questions import OptionScore, Question
from rlp.runtime.errors import UserError
from rlp.runtime.progress import progress
from rlp.tokenizers.tokenizer import Tokenizer

MAX_GEN_TOKS = 256  # of a task that sets no limit, as in the other models of the harness
END_MARK = "END_OF_CONTINUED_MESSAGE "  # no message contains it


class HarnessModel(TemplateLM):
    """Answers the requests of lm-evaluation-harness with a scorer and a generator of one network.

    Requests with the same context are options of one question, so the context is read once. A
    context that is too long loses tokens at its start, as in the other models of the harness.

    Attributes:
      max_length: Most tokens that the network reads at a time.
      truncated: The number of contexts that were too long, by the kind of their requests.
    """

    def __init__(
        self,
        scorer: OptionScorer,
        generator: Generator,
        tokenizer: Tokenizer,
        *,
        name: str,
        max_length: int,
        ends: Sequence[int] = (),
        template: str | None = None,
        seed: int = 0,
    ) -> None:
        """Create a model.

        Args:
          scorer: Of the network.
          generator: Of the network.
          tokenizer: Of the network.
          name: Of the network, for the caches of the harness.
          max_length: Most tokens that the network reads at a time.
          ends: Ids that end a response; () for the end of a text and of a document.
          template: Jinja chat template; None if the network has none.
          seed: Of the sampling.
        """
        super().__init__()
        self.max_length = max_length
        self.truncated: Counter[str] = Counter()
        self._scorer, self._generator, self._words = scorer, generator, tokenizer
        self._name, self._template, self._seed = name, template, seed
        self._ends = tuple(ends) or tuple(dict.fromkeys((tokenizer.eos, tokenizer.separator)))
        bos = tokenizer.bos_token
        self._prefix = tokenizer.separator if bos is None else bos

    @property
    def eot_token_id(self) -> int:
        """The id that ends a document."""
        return self._words.separator

    @property
    def prefix_token_id(self) -> int:
        """The id before a text without a context: the BOS token, even if texts do not begin with
        it, as in the other models of the harness; without one, the separator of documents."""
        return self._prefix

    @property
    def tokenizer_name(self) -> str:
        """The name under which the harness caches prompts."""
        return self._name.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the source of the chat template; None if it is not used.

        Raises:
          UserError: If there is none, or if a template is chosen by its name.
        """
        if not chat_template:
            return None
        if isinstance(chat_template, str):
            raise UserError(
                f"apply_chat_template={chat_template!r} names a template; use true for the one of "
                "the model"
            )
        if self._template is None:
            raise UserError(
                f"{self._name} has no chat template; evaluate it without apply_chat_template"
            )
        return self._template

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Format messages.

        Args:
          chat_history: Messages with "role" and "content".
          add_generation_prompt: End the text with the prompt of an answer. If False, the text ends
            with the last message, which the response continues.

        Raises:
          UserError: If there is no template, or it fails.
        """
        template = self.chat_template(True)
        assert template is not None
        if add_generation_prompt:
            return self._words.chat(chat_history, template, True)
        return self._continued(chat_history, template)

    def _continued(self, messages: list[dict[str, str]], template: str) -> str:
        """Return messages without what the template adds after the last one.

        As in transformers, a mark after the message shows where it ends. A template that trims
        messages takes the space at the end of the mark, and would take that of the message.
        """
        last = messages[-1]["content"]
        marked = [*messages[:-1], messages[-1] | {"content": last + END_MARK}]
        text = self._words.chat(marked, template, False)
        before, found, after = text.rpartition(END_MARK.rstrip())
        if not found or last.strip() not in before:
            raise UserError(
                f"the chat template of {self._name} changes messages, so that a response cannot "
                "continue one; evaluate it without apply_chat_template"
            )
        return before if after.startswith(" ") else before.rstrip()

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Return the ids of a text, with the BOS unless the text begins with it.

        Args:
          string: The text.
          add_special_tokens: Whether to add the BOS; None to look at the text.
          **kwargs: None are known.
        """
        if kwargs:
            raise TypeError(f"unknown arguments {sorted(kwargs)}")
        bos, ids = list(self._words.bos), self._words.encode(string)
        if add_special_tokens is None:
            add_special_tokens = ids[: len(bos)] != bos
        return [*bos, *ids] if add_special_tokens else ids

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Score continuations; a request is a pair of texts, and the ids of both."""
        del disable_tqdm, kwargs  # progress is shown as everywhere in this project
        questions: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
        asked = []
        for (_, text), context, continuation in requests:
            if not continuation or len(continuation) > self.max_length:
                raise UserError(
                    f"the continuation {text[:60]!r} has {len(continuation)} tokens after its "
                    f"context; it needs at least one, and at most max_length={self.max_length}"
                )
            room = self.max_length + 1 - len(continuation)
            pair = (
                self._cut(context or [self._prefix], room, "loglikelihood"),
                tuple(continuation),
            )
            questions.setdefault(pair[0], {})[pair[1]] = None
            asked.append(pair)
        known: dict[tuple, OptionScore] = {}
        listed = [Question(context, tuple(options)) for context, options in questions.items()]
        with progress(len(listed), label="options", unit="question") as bar:
            found = self._scorer.score(listed, lambda *_: bar.update(1))
        for question, scores in zip(listed, found, strict=True):
            pairs = zip(question.options, scores, strict=True)
            known |= {(question.context, option): score for option, score in pairs}
        answers = [(known[pair].logprob, known[pair].greedy) for pair in asked]
        for (texts, *_), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-likelihood of every text, read in windows of `max_length` tokens."""
        del disable_tqdm
        texts = [request.args[0] for request in requests]
        ids = [self.tok_encode(text) for text in texts]
        some = [i for i, tokens in enumerate(ids) if tokens]  # the sum over no token is 0
        totals = [0.0] * len(texts)
        with progress(len(some), label="texts", unit="text") as bar:
            found = self._scorer.text_logprobs(
                [ids[i] for i in some], self._prefix, self.max_length, lambda *_: bar.update(1)
            )
        for i, logprobs in zip(some, found, strict=True):
            totals[i] = float(logprobs.sum(dtype=float))
        for text, total in zip(texts, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the response to every prompt, without the text that ends it.

        Equal requests are samples of one response: each has a seed of its own.
        """
        del disable_tqdm
        seen: Counter[str] = Counter()
        listed = []
        for request in requests:
            context, given = request.args
            name = f"{self._seed} {context} {given}"
            listed.append(self._request(context, given, f"{seen[name]} {name}"))
            seen[name] += 1
        with progress(len(listed), label="responses", unit="response") as bar:
            responses = self._generator.generate(listed, lambda *_: bar.update(1))
        for request, response in zip(requests, responses, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, response.text)
        return [response.text for response in responses]

    def _request(self, context: str, given: Mapping[str, Any], name: str) -> Request:
        """Return a request; `name` determines its seed."""
        arguments = read_arguments(given, MAX_GEN_TOKS)
        if arguments.max_tokens >= self.max_length:
            raise UserError(
                f"responses of max_gen_toks={arguments.max_tokens} leave no room for a prompt in "
                f"max_length={self.max_length}; lower max_gen_toks in gen_kwargs"
            )
        ids = self.tok_encode(context) or [self._prefix]
        return Request(
            prompt=self._cut(ids, self.max_length - arguments.max_tokens, "generate_until"),
            max_tokens=arguments.max_tokens,
            sampling=arguments.sampling,
            seed=zlib.crc32(name.encode()) >> 1,
            stop=arguments.stop,
            ends=self._ends,
        )

    def _cut(self, ids: list[int], room: int, kind: str) -> tuple[int, ...]:
        """Return the last `room` ids, and count what was too long."""
        if len(ids) > room:
            self.truncated[kind] += 1
        return tuple(ids[-room:])
