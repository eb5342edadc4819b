"""Log-likelihoods of the options of questions, with and without thoughts, and of long texts.

A question is a fork: its context is read once, and its options are branches that leave at its end.
Examples that the contexts of many questions begin with are read once for all of them
(`shared_contexts`).
The first token of an option is predicted by the last hidden state of the context, the others by the
slots of its branch. With thoughts, these are sampled at the same fork, and every option is scored
on the caches that sampling filled, as the evidence in training is.

No token is banned: log-probabilities are those of a softmax over all rows of the embedding.
"""

import dataclasses
import functools
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from models.config import ModelConfig
from models.sharding import batch_shards
from models.transformer import Params
from rlp.engine.method import Method
from rlp.engine.placement import gatherer
from rlp.evaluation.generation.reading import padded
from rlp.evaluation.generation.single import Thought
from rlp.evaluation.options import option_programs
from rlp.evaluation.options.questions import (
    OptionScore,
    Question,
    Row,
    check_ids,
    check_questions,
    question_arrays,
)
from rlp.evaluation.options.row_batches import (
    MAX_BRANCHES,
    Shape,
    doubled,
    placed,
    row_batches,
    slots_of,
    table,
)
from rlp.evaluation.options.shared_contexts import (
    SharedRow,
    shared_arrays,
    shared_rows,
    shared_sizes,
)
from rlp.evaluation.options.text_windows import rolling_windows
from rlp.runtime.errors import UserError

Done = Callable[[int, Any], None]  # called with the index and the result of what is finished


@dataclasses.dataclass(frozen=True, eq=False)
class OptionScorer:
    """Scores options and texts with one network on a mesh.

    Results do not depend on the order or the batches of questions, or on the mesh, up to rounding.
    A method checks all of its input before anything is computed.

    Attributes:
      method: the network; for thoughts, also the thinking prompt and the tags.
      params: of the network, sharded over the mesh.
      mesh: rows are sharded over it.
      context: most tokens that the network reads at a time; None if there is no limit.
      batch_tokens: most tokens of a batch per device that has its own rows.
    """

    method: Method
    params: Params
    mesh: Mesh
    context: int | None = None
    batch_tokens: int = 2**13

    def score(
        self, questions: Sequence[Question], done: Done | None = None
    ) -> list[list[OptionScore]]:
        """Score the options of questions.

        Args:
          questions: in any order.
          done: called with the index of a question and its scores as soon as they are known.

        Returns:
          The scores, per question and option.

        Raises:
          UserError: If a question has an empty context or option, an id that the network does not
            have, or more tokens than it reads.
        """
        self._check(questions)
        found: list[dict[int, OptionScore]] = [{} for _ in questions]

        def add(i: int, options: Sequence[int], logprob: np.ndarray, greedy: np.ndarray) -> None:
            """Add the scores of these options of question i."""
            found[i] |= _scores(questions[i], options, logprob, greedy)
            if done and len(found[i]) == len(questions[i].options):
                done(i, _in_order(found[i]))

        shared, alone = shared_rows(questions, self.batch_tokens)
        self._score_shared(questions, shared, add)
        tokens = lambda shape: shape[0] + shape[1] * (shape[2] - 1)
        rows = [row for i in alone for row in self._rows(i, questions[i])]
        for shape, part, count in self._batches(rows, questions, tokens):
            arrays = question_arrays(questions, part, count, shape)
            result = self.run(option_programs.score_options, self.method.model, *arrays)
            for (i, options), logprob, greedy in zip(part, *result, strict=False):
                add(i, options, logprob, greedy)
        return [_in_order(scores) for scores in found]

    def _score_shared(
        self, questions: Sequence[Question], rows: Sequence[SharedRow], add: Callable[..., None]
    ) -> None:
        """Score rows with shared contexts; `add(i, options, logprob, greedy)` takes the scores of
        some options of question i."""
        shape = lambda row: shared_sizes(questions, row, padded(len(row.prefix)))
        tokens = lambda sizes: sizes[0] + sizes[1] * sizes[2]
        limits = (self.batch_tokens, batch_shards(self.mesh))
        for sizes, part, count in row_batches(rows, shape, tokens, *limits):
            arrays = shared_arrays(questions, part, count, sizes)
            result = self.run(option_programs.score_branches, self.method.model, *arrays)
            for row, *of_row in zip(part, *result, strict=False):
                for branch, logprob, greedy in zip(row.branches, *of_row, strict=False):
                    add(branch.question, branch.options, logprob, greedy)

    def score_after_thoughts(
        self,
        questions: Sequence[Question],
        thoughts: int,
        length: int,
        temperature: float,
        seed: int,
        done: Done | None = None,
        sampled: Callable[[int, list[Thought]], None] | None = None,
    ) -> list[list[list[OptionScore]]]:
        """Sample thoughts after the context of every question, and score its options after each.

        The thinking prompt of the method follows the BOS of a context. The closing tag is appended
        to a thought without one. The thoughts of a question depend on its context and the seed.

        Args:
          questions: in any order.
          thoughts: number of thoughts per question.
          length: most tokens of a thought, its closing tag included.
          temperature: of the sampler; 0 takes the likeliest tokens.
          seed: of the sampling.
          done: called with the index of a question and its scores as soon as they are known.
          sampled: called before it, with the index of the question and its thoughts.

        Returns:
          The scores, per question, thought and option; see `mean_over_thoughts`.

        Raises:
          UserError: As `score` does; also if `thoughts`, `length` or `temperature` cannot be used.
        """
        for name, value in (("thoughts", thoughts), ("length", length)):
            if value < 1:
                raise UserError(f"{name}={value}; it must be at least 1")
        if not 0 <= temperature < math.inf:
            raise UserError(f"temperature={temperature}; it must be 0 or a finite number above it")
        method = self._thinking(thoughts, length, temperature)
        prompt = len(method.settings.prompt)
        thought = self.thought_tokens(length) - prompt
        self._check(questions, prompt + thought)
        found: list[list[list[OptionScore]]] = [[] for _ in questions]
        rows = [(i, list(range(len(one.options)))) for i, one in enumerate(questions)]
        # Options are scored one after another, each on a copy of the thoughts' caches.
        tokens = lambda shape: prompt + shape[0] + thoughts * (2 * thought + shape[2])
        for shape, part, count in self._batches(rows, questions, tokens):
            arrays = question_arrays(questions, part, count, shape)
            index = table([[_number(questions[i].context)] for i, _ in part], count, 1)[:, 0]
            program, key = option_programs.score_after_thoughts, jax.random.key(seed)
            result = self.run(program, method, *arrays, index, more=(key,))
            for (i, options), *row in zip(part, *result, strict=False):
                actions, counts, closed, logprob, greedy = row
                found[i] = [
                    _in_order(_scores(questions[i], options, logprob[:, n], greedy[:, n]))
                    for n in range(thoughts)
                ]
                if sampled:
                    each = zip(actions, counts, closed, strict=True)
                    sampled(i, [Thought(a[:n].tolist(), bool(c), None) for a, n, c in each])
                if done:
                    done(i, found[i])
        return found

    def text_logprobs(
        self,
        texts: Sequence[Sequence[int]],
        prefix: int,
        window: int | None = None,
        done: Done | None = None,
    ) -> list[np.ndarray]:
        """Score every token of texts of any length, in windows (see `rolling_windows`).

        Args:
          texts: token ids of every text, at least one each.
          prefix: id before the first token of a text.
          window: most tokens that the network reads at a time; None for `context`.
          done: called with the index of a text and its log-probabilities.

        Returns:
          For every text the log-probabilities of its tokens, float32 [tokens], nats.

        Raises:
          UserError: If there is no window, or one longer than `context`; if a text has no token, or
            an id that the network does not have.
        """
        window = self.context if window is None else window
        if window is None or not 1 <= window <= (self.context or window):
            limit = f"from 1 to {self.context}" if self.context else "a number of tokens"
            raise UserError(f"texts cannot be read in windows of {window} tokens; use {limit}")
        for number, text in enumerate(texts):
            if not text:
                raise UserError(f"text {number} is empty; leave it out")
            check_ids([prefix, *text], self.method.model.vocab_size, f"text {number}")
        found = [np.zeros(len(text), np.float32) for text in texts]
        missing = [len(text) for text in texts]
        rows = [
            (i, part)
            for i, text in enumerate(texts)
            for part in rolling_windows(text, prefix, window)
        ]
        shape = lambda row: (min(padded(len(row[1].ids) - 1), window),)
        limits = (self.batch_tokens, batch_shards(self.mesh))
        for (width,), some, count in row_batches(rows, shape, lambda shape: shape[0], *limits):
            ids = table([part.ids for _, part in some], count, width + 1)
            size = table([[len(part.ids)] for _, part in some], count, 1)[:, 0]
            logprob = self.run(option_programs.score_rows, self.method.model, ids, size)
            for (i, part), values in zip(some, logprob, strict=False):
                stop = len(part.ids) - 1
                found[i][part.first :][: part.count] = values[stop - part.count : stop]
                missing[i] -= part.count
                if done and not missing[i]:
                    done(i, found[i])
        return found

    def thought_tokens(self, length: int) -> int:
        """Return the most tokens that are between a context and its options: the thinking prompt,
        both tags, and a thought of `length` tokens."""
        words, prompt = self.method.vocabulary, self.method.settings.prompt
        return len(prompt) + len(words.think_open) + length + len(words.think_close)

    def _check(self, questions: Sequence[Question], between: int = 0) -> None:
        check_questions(questions, self.method.model.vocab_size, self.context, between)

    def _thinking(self, thoughts: int, length: int, temperature: float) -> Method:
        """Return the method that samples thoughts at the end of contexts."""
        settings = dataclasses.replace(
            self.method.settings,
            group_size=thoughts,
            thought_length=length,
            temperature=temperature,
            forks_per_document=1,
            positions="given",
            horizon=1,
            max_branches_in_flight=0,
        )
        return Method(self.method.model, settings, self.method.vocabulary)

    def _rows(self, number: int, question: Question) -> Iterator[Row]:
        """Yield rows of some options each, of similar lengths, which fit in a batch."""
        size = lambda o: len(question.options[o])
        by_size = sorted(range(len(question.options)), key=size)
        room = self.batch_tokens - padded(len(question.context))
        while by_size:
            most = slots_of(size(by_size[-1]))
            count = max(1, min(MAX_BRANCHES, room // most))
            by_size, part = by_size[:-count], by_size[-count:]
            yield number, part

    def _batches(
        self, rows: list[Row], questions: Sequence[Question], tokens: Callable[[Shape], int]
    ) -> Iterator[tuple[Shape, list[Row], int]]:
        """Yield batches of shape (T, N, H): tokens of a context, options, and tokens of options."""

        def shape(row: Row) -> Shape:
            i, options = row
            longest = max(len(questions[i].options[o]) for o in options)
            slots = slots_of(longest)
            return padded(len(questions[i].context)), doubled(len(options)), slots

        return row_batches(rows, shape, tokens, self.batch_tokens, batch_shards(self.mesh))

    def run(
        self,
        program: Callable,
        network: ModelConfig | Method,
        *arrays: np.ndarray,
        more: tuple = (),
    ) -> Any:
        """Run a program on rows that are spread over the mesh; return numpy arrays."""
        run = option_programs.compiled(program, network, self.mesh)
        with jax.set_mesh(self.mesh):
            return jax.device_get(run(self._whole, *placed(arrays, self.mesh), *more))

    @functools.cached_property
    def _whole(self) -> Params:
        """The parameters as the programs read them."""
        layout = self.method.settings.rollout_layout
        gather = gatherer(self.method.model, self.mesh, layout)
        with jax.set_mesh(self.mesh):
            return gather(self.params) if gather else self.params


def _scores(
    question: Question, options: Sequence[int], logprob: np.ndarray, greedy: np.ndarray
) -> dict[int, OptionScore]:
    """Return the scores of these options of a question by their indices."""
    pairs = zip(options, logprob, greedy, strict=False)
    return {o: OptionScore(float(x), bool(g), len(question.options[o])) for o, x, g in pairs}


def _in_order(scores: dict[int, OptionScore]) -> list[OptionScore]:
    return [scores[o] for o in sorted(scores)]


def _number(context: Sequence[int]) -> int:
    """Return the number that seeds the thoughts after a context."""
    return zlib.crc32(np.asarray(context, np.int32).tobytes()) >> 1
