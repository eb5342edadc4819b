"""Held-out metrics of a network, with and without thoughts, and example thoughts.

The gain compares the network with a thought to the same network without one (phi = theta), at the
same positions. Documents are sharded over the mesh; the batch size does not change metrics, up to
the rounding of sums.

Thoughts are sampled in documents only. For pairs of prompt and response, only the loss of the
response is evaluated, since responses may contain thoughts.
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
    loss_tokens,
    predicted_tokens,
)
from rlp.engine.token_bytes import TokenBytes
from rlp.evaluation.answer_evaluator import AnswerEvaluator
from rlp.evaluation.thinking import think
from rlp.metrics import catalogue
from rlp.objectives import equations


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluates a network on held-out rows; a key determines all forks and random numbers.

    Attributes:
      method: of the run.
      positions: rule of forks, "uniform" or "given" (by the data).
      forks: K, positions per document.
      thoughts: G, sampled thoughts per position.
      batch_size: documents per batch.
      mesh: the documents of a batch are sharded over it.
      table: bytes of the tokens, for an objective that reads `Outcome.matches`.
      answers: evaluates problems; None without problems.
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
        """Return the metrics of all kinds of held-out rows: documents, pairs and problems.

        Args:
          params, key, watch: as in `document_metrics`; `watch` is called once per kind.
          held_out: rows of every kind.
        """
        metrics: dict[str, float] = {}
        if held_out.documents is not None:
            metrics |= self.document_metrics(params, held_out.documents, key, watch)
        if held_out.pairs is not None:
            metrics["response_loss"] = self.response_loss(params, held_out.pairs, watch)
        if held_out.problems:
            assert self.answers is not None
            metrics |= self.answers.problem_metrics(params, held_out.problems, key, watch)
        return metrics

    def response_loss(self, params: Params, pairs: Batch, watch: Callable = iter) -> float:
        """Return the loss of held-out responses with their end tokens, in nats per token."""
        with jax.set_mesh(self.mesh):
            totals = self._totals(self._score_responses, params, pairs, watch)
        return totals["nats"] / totals["tokens"]

    def document_metrics(
        self, params: Params, documents: Batch, key: jax.Array, watch: Callable = iter
    ) -> dict[str, float]:
        """Return the metrics of documents (see `rlp.metrics.catalogue`); nan if logits of the
        network are not finite.

        Args:
          params: of the network.
          documents: held-out single-document rows.
          key: PRNG key of forks and sampling.
          watch: wraps the list of batches, to show progress or to stop early.
        """
        with jax.set_mesh(self.mesh):
            score = lambda params, part: self._score(params, part, key)
            totals = self._totals(score, params, documents, watch)
        totals["document_loss"] = totals.pop("document_nats") / totals.pop("document_tokens")
        return {name: totals[name] for name in catalogue.names("documents")}

    def _totals(
        self, score: Callable, params: Params, rows: Batch, watch: Callable
    ) -> dict[str, float]:
        """Return means over rows; `score(params, batch)` returns a value per row, [B], by name."""
        totals: dict[str, float] = {}
        params = self._gather(params) if self._gather else params
        for part in watch(list(parts(rows, self.batch_size))):
            scores = jax.device_get(score(params, spread(part, self.mesh)))
            for name, values in scores.items():
                real = values[: len(part.index)].astype(np.float64)
                totals[name] = totals.get(name, 0.0) + float(real.sum()) / len(rows.index)
        return totals

    @functools.cached_property
    def _gather(self) -> Callable[[Params], Params] | None:
        return gatherer(self.method.model, self.mesh, self.method.settings.rollout_layout)

    @functools.cached_property
    def _score(self) -> Callable[[Params, Batch, jax.Array], dict[str, jax.Array]]:
        """Return a jitted function to the metrics of every document, [B] each."""
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
            result = think(thinking, params, batch, key, self.table)
            best = think(best_thinking, params, batch, key, self.table)
            trunk = document_trunk(batch)
            whole = document_scores(bind(model, params), trunk, words)
            thoughts = result["rollout"].thoughts
            finite = jnp.isfinite(thoughts.logprobs).all(axis=-1)
            target, present = result["target"], result["present"]
            of_tokens = {
                "no_think_accuracy": _hits(result["no_think"], target),
                "greedy_think_accuracy": _hits(best["reasoned"], target),
                "sampled_think_accuracy": _hits(result["reasoned"], target),
                "no_think_loss": -result["no_think"].logprob,
                "think_loss": -result["reasoned"].logprob,
            }
            of_thoughts = {
                "mean_information_gain": result["gain"],
                "thought_length": jnp.where(finite, thoughts.length, jnp.nan),
                "closed_fraction": jnp.where(finite, thoughts.closed, jnp.nan),
            }
            means = {name: _mean(x, present) for name, x in of_tokens.items()}
            means |= {name: _mean(x) for name, x in of_thoughts.items()}
            return means | {
                "document_nats": -whole.logprob.sum(axis=-1),
                "document_tokens": predicted_tokens(trunk).sum(axis=-1),
            }

        return score

    @functools.cached_property
    def _score_responses(self) -> Callable[[Params, Batch], dict[str, jax.Array]]:
        """Return a jitted function to the summed loss (nats) and the tokens of every response, [B]
        each; no token is banned."""

        @functools.partial(jax.jit, out_shardings=replicated(self.mesh))
        def score(params, batch):
            trunk = document_trunk(batch)
            in_loss = loss_tokens(trunk, batch.loss_mask)
            scores = document_scores(bind(self.method.model, params), trunk)
            nats = -jnp.where(in_loss, scores.logprob, 0.0).sum(axis=-1)
            return {"nats": nats, "tokens": in_loss.sum(axis=-1)}

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
        """Return thoughts at positions along some documents, as plain data for thoughts.json.

        Args:
          params: of the network.
          documents: a few held-out rows.
          key: PRNG key of the sampling.
          pieces: from ids to printable strings.
          separator: printed between pieces.
          positions: at most this number of evenly spaced positions per document, besides the forks
            that are given by the data.
        """
        length = (np.asarray(documents.segment) > 0).sum(axis=-1)
        s = self.method.settings
        forks = [
            _even_positions(s.min_prefix, int(n) - s.horizon, positions, given.tolist())
            for n, given in zip(length, np.asarray(documents.forks), strict=True)
        ]
        most = max(map(len, forks))
        padded = np.array([row + row[-1:] * (most - len(row)) for row in forks], np.int32)
        group = max(self.thoughts, 2)  # advantages need at least two thoughts
        settings = dataclasses.replace(
            s, positions="given", forks_per_document=most, group_size=group
        )
        method = dataclasses.replace(self.method, settings=settings)

        @functools.partial(jax.jit, out_shardings=replicated(self.mesh))
        def run(params, batch):
            result = think(method, params, batch, key, self.table)
            return result | {"rollout": None, "thoughts": result["rollout"].thoughts}

        with jax.set_mesh(self.mesh):
            rows = spread(dataclasses.replace(documents, forks=padded), self.mesh)
            params = self._gather(params) if self._gather else params
            result = jax.device_get(run(params, rows))
        return [
            {
                "tokens": pieces(np.asarray(documents.tokens)[row, : length[row]].tolist()),
                "separator": separator,
                "positions": [
                    self._position(result, row, i, fork, group, pieces, documents)
                    for i, fork in enumerate(forks[row])
                ],
            }
            for row in range(len(forks))
        ]

    def _position(
        self,
        result: dict,
        row: int,
        i: int,
        fork: int,
        group: int,
        pieces: Callable[[list[int]], list[str]],
        documents: Batch,
    ) -> dict:
        branches = range(i * group, (i + 1) * group)
        thoughts = result["thoughts"]
        words = thoughts.words(self.method.vocabulary)
        text = np.asarray(documents.tokens)[row, np.asarray(documents.segment)[row] > 0]
        target = text[fork : fork + self.method.settings.horizon]
        return {
            "fork": fork,
            "given": bool((np.asarray(documents.forks)[row] == fork).any()),
            "target": pieces(target.tolist()),
            "baseline_logprob": float(result["no_think"].logprob[row, i].sum()),
            "information_gain": float(result["gain"][row, i].mean()),
            "thoughts": [
                {
                    "pieces": pieces(thoughts.actions[row, n, : words[row, n]].tolist()),
                    "closed": bool(thoughts.closed[row, n]),
                    "reasoned_logprob": float(result["reasoned"].logprob[row, i, g].sum()),
                    "reward": float(result["rewards"][row, i, g]),
                    "advantage": float(result["advantages"][row, i, g]),
                }
                for g, n in enumerate(branches)
            ],
        }


def _hits(scores: Scores, target: jax.Array) -> jax.Array:
    """Return 1 for every target token that is the likeliest one, else 0; nan if logits are not
    finite.

    Args:
      scores: [B, K, …, H].
      target: [B, K, H] int32.
    """
    hits = scores.likeliest == equations.over_thoughts(target, scores.likeliest)
    return jnp.where(jnp.isfinite(scores.logprob), hits, jnp.nan)


def _mean(values: jax.Array, present: jax.Array | None = None) -> jax.Array:
    """Return the mean over all axes but the first, [B].

    Args:
      values: [B, …], or of every target token, [B, K, …, H].
      present: [B, K, H] bool, target tokens that the documents have and the mean is over; None for
        all values.
    """
    flat = lambda x: jnp.broadcast_to(x, values.shape).reshape(len(values), -1)
    if present is None:
        return flat(values).mean(axis=-1)
    return equations.target_mean(flat(values), flat(equations.over_thoughts(present, values)))


def _even_positions(first: int, last: int, count: int, given: list[int]) -> list[int]:
    """Return at most `count` even positions from `first` to `last`, of which there may be none, and
    the given ones (not -1)."""
    even = np.linspace(first, last, max(0, min(count, last - first + 1))).round().astype(int)
    return sorted({*even.tolist(), *(fork for fork in given if fork >= 0)})
