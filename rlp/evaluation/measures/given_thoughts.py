"""Log-likelihoods of text on a mesh: whole rows, after sampled thoughts, and after given thoughts.

A given thought is any sequence of words (token ids without tags). It is laid out at its fork like a
sampled one whose closing tag was appended, and its target is scored in one pass over the slots of
all branches on the cache of their document. So a sampled thought, given, has the evidence that it
had when it was sampled, up to rounding, and an empty one is the opening tag and the closing tag.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from models.sharding import batch_shards, replicated
from models.transformer import Params, bind
from rlp.data.batch import Array, Batch
from rlp.data.rows import parts, spread
from rlp.engine.branches import Thoughts, document_trunk, lay_out
from rlp.engine.method import Method
from rlp.engine.placement import gatherer
from rlp.engine.scoring import document_scores, transplanted_scores, where_present
from rlp.engine.step import read_stage
from rlp.evaluation.thinking import think
from rlp.objectives.options import Options

Words = tuple[int, ...]  # ids of a thought, without tags
ROW = 8  # a row without thoughts counts as so many thoughts in the size of a batch


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Sampled thoughts at the forks of rows, and the log-probabilities of their targets.

    Attributes:
      words: S thoughts at each of K forks of R rows, as nested lists [R][K][S].
      closed: bool [R, K, S], whether the network closed the thought.
      after: float [R, K, S, H] nats, of the targets after the thoughts.
      without: float [R, K, H] nats, of the targets without a thought.
      target: int [R, K, H], ids of the targets; -1 after the end of a document, where the
        log-probabilities are 0.
    """

    words: list[list[list[Words]]]
    closed: np.ndarray
    after: np.ndarray
    without: np.ndarray
    target: np.ndarray


@flax.struct.dataclass
class _GivenRows(Batch):
    """Rows with M thoughts at each of their K forks; N = K · M."""

    actions: Array | None = None  # [R, N, L] int32, words, then pad
    count: Array | None = None  # [R, N] int32, number of words


@dataclasses.dataclass(frozen=True)
class TextScorer:
    """Scores the text of rows with one network on a mesh.

    The results of a row depend on its tokens, forks and index and on the key, not on the other
    rows, up to rounding.

    Attributes:
      method: network, settings (thought length, horizon, temperature, prompt) and vocabulary.
      mesh: rows are sharded over it.
      branches: maximum number of thoughts at a time; at least one row per device is scored.
    """

    method: Method
    mesh: Mesh
    branches: int = 64

    def text(self, params: Params, rows: Batch, watch: Callable = iter) -> np.ndarray:
        """Return the log-probability of every token of rows, [R, T] nats; 0 for padding and for a
        first token.

        Args:
          params: of the network.
          rows: single-document rows.
          watch: wraps the list of batches, to show progress.
        """
        return np.concatenate(self._run(self._text, params, rows, self.branches // ROW, watch))

    def sample(
        self, params: Params, rows: Batch, thoughts: int, key: jax.Array, watch: Callable = iter
    ) -> Sampled:
        """Sample thoughts at the forks of rows, and score the targets with and without them.

        Args:
          params, watch: as in `text`.
          rows: with forks [R, K], each of which has a token before it and one from it on.
          thoughts: S, per fork.
          key: PRNG key of the sampling.
        """
        forks = rows.forks.shape[1]
        sample = self._sampler(forks, thoughts)
        run = lambda params, part: sample(params, part, key)
        parts_of_result = self._run(run, params, rows, self.branches // (forks * thoughts), watch)
        joined = jax.tree.map(lambda *x: np.concatenate(x), *parts_of_result)
        count = joined.pop("words").reshape(-1, forks, thoughts)
        actions = joined.pop("actions").reshape(*count.shape, -1)
        words = [
            [[tuple(ids[:n].tolist()) for ids, n in zip(*fork, strict=True)] for fork in
             zip(*row, strict=True)]
            for row in zip(actions, count, strict=True)
        ]  # fmt: skip
        return Sampled(words, joined.pop("closed").reshape(count.shape), **joined)

    def given(
        self,
        params: Params,
        rows: Batch,
        words: Sequence[Sequence[Sequence[Words]]],
        watch: Callable = iter,
    ) -> np.ndarray:
        """Return the log-probability of every target token after given thoughts, [R, K, M, H] nats;
        0 after the end of a document.

        Args:
          params, watch: as in `text`.
          rows: as in `sample`.
          words: M thoughts at each of K forks of R rows, [R][K][M], each of at most L ids.
        """
        limit, pad = self.method.settings.thought_length, self.method.vocabulary.pad
        forks, thoughts = len(words[0]), len(words[0][0])
        lines = [[line for fork in row for line in fork] for row in words]
        count = np.array([[len(line) for line in row] for row in lines], np.int32)
        actions = np.full((*count.shape, limit), pad, np.int32)
        for row, n in np.ndindex(*count.shape):
            actions[row, n, : count[row, n]] = lines[row][n]
        fields = {f.name: getattr(rows, f.name) for f in dataclasses.fields(Batch)}
        with_thoughts = _GivenRows(**fields, actions=actions, count=count)
        size = self.branches // (forks * thoughts)
        scores = np.concatenate(self._run(self._given, params, with_thoughts, size, watch))
        return scores.reshape(len(lines), forks, thoughts, -1)

    def _run(
        self, score: Callable, params: Params, rows: Batch, size: int, watch: Callable
    ) -> list[Any]:
        """Return what `score(params, batch)` returns for each batch of rows, without the rows that
        fill it; `size` is the number of rows of a batch over all devices.

        The last row fills the last batch, so that all batches share a compiled program.
        """
        results = []
        size = min(self._rows_of_device(size) * batch_shards(self.mesh), len(rows.index))
        with jax.set_mesh(self.mesh):
            params = self._gather(params) if self._gather else params
            for part in watch(list(parts(rows, size))):
                chosen = np.minimum(np.arange(size), len(part.index) - 1)
                filled = jax.tree.map(operator.itemgetter(chosen), part)
                scores = jax.device_get(score(params, spread(filled, self.mesh)))
                without_filling = operator.itemgetter(slice(len(part.index)))
                results.append(jax.tree.map(without_filling, scores))
        return results

    def held_rows(self, rows: int, per_row: int) -> int:
        """Return the most rows that a device holds at a time, of `rows` with `per_row` thoughts."""
        of_all = -(-rows // batch_shards(self.mesh))
        return min(self._rows_of_device(self.branches // per_row), of_all)

    def _rows_of_device(self, size: int) -> int:
        return max(1, size // batch_shards(self.mesh))

    @functools.cached_property
    def _gather(self) -> Callable[[Params], Params] | None:
        return gatherer(self.method.model, self.mesh, self.method.settings.rollout_layout)

    @functools.cached_property
    def _text(self) -> Callable[[Params, Batch], jax.Array]:
        model, words = self.method.model, self.method.vocabulary

        @functools.partial(jax.jit, out_shardings=replicated(self.mesh))
        def score(params: Params, batch: Batch) -> jax.Array:
            return document_scores(bind(model, params), document_trunk(batch), words).logprob

        return score

    def _at_forks(self, forks: int, thoughts: int) -> Method:
        """Return the method with the given forks, and the objective of RLP, which reads nothing
        more than the evidence."""
        settings = dataclasses.replace(
            self.method.settings,
            positions="given",
            forks_per_document=forks,
            group_size=thoughts,
            objective="rlp",
            options=Options(),
        )
        return Method(self.method.model, settings, self.method.vocabulary)

    @functools.cached_property
    def _sampler(self) -> Callable[[int, int], Callable]:
        """Return a function from K and S to the jitted function that samples thoughts."""
        return functools.cache(self._new_sampler)

    def _new_sampler(self, forks: int, thoughts: int) -> Callable:
        method = self._at_forks(forks, thoughts)

        @functools.partial(jax.jit, out_shardings=replicated(self.mesh))
        def sample(params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
            result = think(method, params, batch, key)
            sampled = result["rollout"].thoughts
            return {
                "actions": sampled.actions,
                "words": sampled.words(method.vocabulary),
                "closed": sampled.closed,
                "after": result["reasoned"].logprob,
                "without": result["no_think"].logprob,
                "target": jnp.where(result["present"], result["target"], -1),
            }

        return sample

    @functools.cached_property
    def _given(self) -> Callable[[Params, Batch], jax.Array]:
        """Return a jitted function that scores the targets after the thoughts of `_GivenRows`."""

        @functools.partial(jax.jit, out_shardings=replicated(self.mesh))
        def score(params: Params, batch: _GivenRows) -> jax.Array:
            assert batch.actions is not None
            assert batch.count is not None
            count = jnp.asarray(batch.count)
            group = count.shape[1] // batch.forks.shape[1]
            method = self._at_forks(batch.forks.shape[1], group)
            stage = (method.model, method.settings, method.vocabulary)
            forked = read_stage(*stage, params, params, batch, jax.random.key(0), 0)
            thoughts = Thoughts(
                actions=jnp.asarray(batch.actions),
                length=count,
                closed=jnp.zeros(count.shape, bool),
                logprobs=jnp.zeros(batch.actions.shape, jnp.float32),
            )
            trunk, cache = forked.documents.trunk, forked.documents.cache
            fork = jnp.repeat(forked.forks.position + len(method.settings.prompt), group, axis=1)
            of_thoughts = lambda x: jnp.repeat(x, group, axis=1)
            target = of_thoughts(forked.forks.target)
            branches = lay_out(thoughts, target, fork, jnp.ones_like(fork), method.vocabulary)
            model = bind(method.model, params)
            scores = transplanted_scores(model, trunk, cache, branches, target, method.vocabulary)
            return where_present(scores, of_thoughts(forked.forks.present)).logprob

        return score
