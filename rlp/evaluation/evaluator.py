"""Held-out figures of a network, with and without thoughts, and thoughts to look at.

Both paths are the network's own: the gain reported here is the network with a thought against the
same network without one (phi = theta), at the same positions. Documents are spread over the mesh;
how many are worked on at a time changes no figure beyond the rounding of sums.

Thoughts branch off documents only. Of a prompt with its response, which may hold thoughts of its
own, the loss of the response is all that is asked.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from models.sharding import replicated
from models.transformer import Params, bind
from rlp.data.batch import Batch, HeldOut
from rlp.data.rows import parts, spread
from rlp.engine.branches import document_trunk
from rlp.engine.method import Method
from rlp.engine.placement import gatherer
from rlp.engine.scoring import (
    Scores,
    document_scores,
    learnt_tokens,
    predicted_tokens,
)
from rlp.engine.token_bytes import TokenBytes
from rlp.evaluation.answer_evaluator import AnswerEvaluator
from rlp.evaluation.thinking import think
from rlp.metrics import catalogue


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Scores a network on held-out documents, always at the same forks with the same draws.

    Attributes:
      method: of the run.
      positions: forks are "uniform", or "given" by the data.
      forks: positions per document.
      thoughts: sampled thoughts per position.
      batch_size: documents at a time.
      mesh: that the documents are spread over.
      table: bytes of the tokens, for an objective that reads whether predictions match.
      answers: of problems; None where there are none.
    """

    method: Method
    positions: str
    forks: int
    thoughts: int
    batch_size: int
    mesh: Mesh
    table: TokenBytes | None = None
    answers: AnswerEvaluator | None = None

    def evaluate(
        self, params: Params, held_out: HeldOut, key: jax.Array, watch: Callable = iter
    ) -> dict[str, float]:
        """`figures` of the documents, `response_loss` of the pairs, and figures of the
        answers to problems; of those that there are.

        Args:
          params, key, watch: as of `figures`; what is watched are the batches of each kind.
          held_out: rows.
        """
        found: dict[str, float] = {}
        if held_out.documents is not None:
            found |= self.figures(params, held_out.documents, key, watch)
        if held_out.pairs is not None:
            found["response_loss"] = self.response_loss(params, held_out.pairs, watch)
        if held_out.problems:
            assert self.answers is not None
            found |= self.answers.figures(params, held_out.problems, key, watch)
        return found

    def response_loss(self, params: Params, pairs: Batch, watch: Callable = iter) -> float:
        """Nats per token of held-out responses, what ends them included."""
        with jax.set_mesh(self.mesh):
            totals = self._totals(self._score_responses, params, pairs, watch)
        return totals["nats"] / totals["tokens"]

    def figures(
        self, params: Params, documents: Batch, key: jax.Array, watch: Callable = iter
    ) -> dict[str, float]:
        """The metrics of documents in `rlp.metrics.catalogue`; nan where a network's logits were
        not finite.

        Args:
          params: the network.
          documents: held-out rows of one document each.
          key: PRNG key of the forks and draws.
          watch: wraps the iterable of batches, for a progress bar or to stop early.
        """
        with jax.set_mesh(self.mesh):
            score = lambda params, part: self._score(params, part, key)
            totals = self._totals(score, params, documents, watch)
        totals["document_loss"] = totals.pop("document_nats") / totals.pop("document_tokens")
        return {name: totals[name] for name in catalogue.names("documents")}

    def _totals(
        self, score: Callable, params: Params, rows: Batch, watch: Callable
    ) -> dict[str, float]:
        """Means over rows of what `score` gives for (params, some rows), [B] each."""
        totals: dict[str, float] = {}
        params = self._gather(params) if self._gather else params
        for part in watch(list(parts(rows, self.batch_size))):
            each = jax.device_get(score(params, spread(part, self.mesh)))
            for name, values in each.items():
                real = values[: len(part.index)].astype(np.float64)
                totals[name] = totals.get(name, 0.0) + float(real.sum()) / len(rows.index)
        return totals

    @functools.cached_property
    def _gather(self) -> Callable[[Params], Params] | None:
        return gatherer(self.method.model, self.mesh, self.method.settings.rollout_layout)

    @functools.cached_property
    def _score(self) -> Callable[[Params, Batch, jax.Array], dict[str, jax.Array]]:
        """Figures of every document, [B] each."""
        sampled = dataclasses.replace(
            self.method.settings,
            positions=self.positions,
            forks_per_document=self.forks,
            group_size=self.thoughts,
        )
        greedy = dataclasses.replace(sampled, group_size=1, temperature=0.0)
        model, words = self.method.model, self.method.vocabulary
        thinking = dataclasses.replace(self.method, settings=sampled)
        best_thinking = dataclasses.replace(self.method, settings=greedy)

        @functools.partial(jax.jit, out_shardings=replicated(self.mesh))
        def score(params, batch, key):
            found = think(thinking, params, batch, key, self.table)
            best = think(best_thinking, params, batch, key, self.table)
            trunk = document_trunk(batch)
            whole = document_scores(bind(model, params), trunk, words)
            thoughts = found["rollout"].thoughts
            sampled_well = jnp.isfinite(thoughts.logprobs).all(axis=-1)
            each = {
                "no_think_accuracy": _hits(found["no_think"], found["target"]),
                "greedy_think_accuracy": _hits(best["reasoned"], best["target"]),
                "sampled_think_accuracy": _hits(found["reasoned"], found["target"]),
                "no_think_loss": -found["no_think"].logprob,
                "think_loss": -found["reasoned"].logprob,
                "mean_information_gain": found["gain"],
                "thought_length": jnp.where(sampled_well, thoughts.length, jnp.nan),
                "closed_fraction": jnp.where(sampled_well, thoughts.closed, jnp.nan),
            }
            means = {name: x.reshape(x.shape[0], -1).mean(axis=-1) for name, x in each.items()}
            return means | {
                "document_nats": -whole.logprob.sum(axis=-1),
                "document_tokens": predicted_tokens(trunk).sum(axis=-1),
            }

        return score

    @functools.cached_property
    def _score_responses(self) -> Callable[[Params, Batch], dict[str, jax.Array]]:
        """Nats and tokens of the responses of every pair, [B] each; no token is banned there."""

        @functools.partial(jax.jit, out_shardings=replicated(self.mesh))
        def score(params, batch):
            trunk = document_trunk(batch)
            learnt = learnt_tokens(trunk, batch.loss_mask)
            scores = document_scores(bind(self.method.model, params), trunk)
            nats = -jnp.where(learnt, scores.logprob, 0.0).sum(axis=-1)
            return {"nats": nats, "tokens": learnt.sum(axis=-1)}

        return score

    def browse(
        self,
        params: Params,
        documents: Batch,
        key: jax.Array,
        pieces: Callable[[list[int]], list[str]],
        separator: str,
        positions: int,
    ) -> list[dict]:
        """Thoughts all along some documents, as plain data for `thoughts.json`.

        Args:
          params: the network.
          documents: a few held-out rows.
          key: PRNG key of the draws.
          pieces: ids to visible strings.
          separator: put between pieces when a text is shown.
          positions: most positions per document, spread evenly; given forks are always among them.
        """
        length = (np.asarray(documents.segment) > 0).sum(axis=-1)
        s = self.method.settings
        places = [
            _even_places(s.min_prefix, int(n) - s.horizon, positions, given.tolist())
            for n, given in zip(length, np.asarray(documents.forks), strict=True)
        ]
        most = max(map(len, places))
        padded = np.array([p + p[-1:] * (most - len(p)) for p in places], np.int32)
        group = max(self.thoughts, 2)  # an advantage needs company
        settings = dataclasses.replace(
            s, positions="given", forks_per_document=most, group_size=group
        )
        method = dataclasses.replace(self.method, settings=settings)

        @functools.partial(jax.jit, out_shardings=replicated(self.mesh))
        def run(params, batch):
            found = think(method, params, batch, key, self.table)
            return found | {"rollout": None, "thoughts": found["rollout"].thoughts}

        with jax.set_mesh(self.mesh):
            chosen = spread(dataclasses.replace(documents, forks=padded), self.mesh)
            params = self._gather(params) if self._gather else params
            found = jax.device_get(run(params, chosen))
        return [
            {
                "tokens": pieces(np.asarray(documents.tokens)[row, : length[row]].tolist()),
                "separator": separator,
                "positions": [
                    self._position(found, row, i, fork, group, pieces, documents)
                    for i, fork in enumerate(places[row])
                ],
            }
            for row in range(len(places))
        ]

    def _position(
        self,
        found: dict,
        row: int,
        i: int,
        fork: int,
        group: int,
        pieces: Callable[[list[int]], list[str]],
        documents: Batch,
    ) -> dict:
        branches = range(i * group, (i + 1) * group)
        thoughts = found["thoughts"]
        words = thoughts.words(self.method.vocabulary)
        target = np.asarray(documents.tokens)[row, fork : fork + self.method.settings.horizon]
        return {
            "fork": fork,
            "given": bool((np.asarray(documents.forks)[row] == fork).any()),
            "target": pieces(target.tolist()),
            "baseline_logprob": float(found["no_think"].logprob[row, i].sum()),
            "information_gain": float(found["gain"][row, i].mean()),
            "thoughts": [
                {
                    "pieces": pieces(thoughts.actions[row, n, : words[row, n]].tolist()),
                    "closed": bool(thoughts.closed[row, n]),
                    "reasoned_logprob": float(found["reasoned"].logprob[row, i, g].sum()),
                    "reward": float(found["rewards"][row, i, g]),
                    "advantage": float(found["advantages"][row, i, g]),
                }
                for g, n in enumerate(branches)
            ],
        }


def _hits(scores: Scores, target: jax.Array) -> jax.Array:
    """Whether every target token is the likeliest, as 1 or 0: scores [B, K, …, H] of [B, K, H].

    It is nan where the logits were not finite: then no token is the likeliest.
    """
    between = (1,) * (scores.likeliest.ndim - target.ndim)
    hits = scores.likeliest == target.reshape(*target.shape[:2], *between, target.shape[-1])
    return jnp.where(jnp.isfinite(scores.logprob), hits, jnp.nan)


def _even_places(first: int, last: int, count: int, given: list[int]) -> list[int]:
    """At most `count` positions from `first` to `last`, and the given ones (-1 is none)."""
    even = np.linspace(first, last, min(count, last - first + 1)).round().astype(int)
    return sorted({*even.tolist(), *(fork for fork in given if fork >= 0)})
