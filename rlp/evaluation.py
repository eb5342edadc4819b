"""Held-out figures of a network, with and without thoughts, and thoughts to look at.

Both paths are the network's own: the gain reported here is the network with a thought against the
same network without one (phi = theta), at the same positions. Documents are spread over the mesh;
how many are worked on at a time changes no figure beyond the rounding of sums.

Thoughts branch off documents only. Of a prompt with its response, which may hold thoughts of its
own, the loss of the response is all that is asked.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from models.config import ModelConfig
from models.sharding import batch_shards, replicated
from models.transformer import Params, bind
from models.tree import forward
from rlp.branches import Vocabulary, document_trunk
from rlp.data.batch import Batch, HeldOut, Problems
from rlp.data.rows import Rows
from rlp.judging import TokenBytes
from rlp.objective import equations
from rlp.placement import gatherer
from rlp.responses import Answering
from rlp.scoring import (
    Scores,
    document_scores,
    learnt_tokens,
    no_think_scores,
    predicted_tokens,
)
from rlp.step import RLPSettings, judgement_of, outcome_of, read_stage, rollout_stage

FIGURES = (
    "no_think_accuracy",  # share of target tokens that are the likeliest, without a thought
    "greedy_think_accuracy",  # the same after a greedy thought
    "sampled_think_accuracy",  # the same after sampled thoughts, mean over them
    "no_think_loss",  # nats per target token, without a thought
    "think_loss",  # the same after sampled thoughts, mean over them
    "mean_information_gain",  # nats per target, sampled thoughts against no thought
    "thought_length",  # tokens of a sampled thought, its closing tag included
    "closed_fraction",  # share of sampled thoughts that closed by themselves
)

ANSWER_FIGURES = (
    "accuracy",  # share of sampled responses with the right answer (pass@1)
    "greedy_accuracy",  # the same of greedy responses
    "majority_accuracy",  # share of problems whose most common sampled answer is right
    "any_accuracy",  # share of problems with a right answer among the sampled ones
    "answered_share",  # share of sampled responses with an answer that can be read
    "response_length",  # tokens of a sampled response, the one that ends it included
    "response_closed_fraction",  # share of sampled responses that ended by themselves
)


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Scores a network on held-out documents, always at the same forks with the same draws.

    Attributes:
      model: shape of the network.
      settings: of the method.
      vocabulary: tags and banned ids.
      positions: forks are "uniform", or "given" by the data.
      forks: positions per document.
      thoughts: sampled thoughts per position.
      batch_size: documents at a time.
      mesh: that the documents are spread over.
      table: bytes of the tokens, for an objective that reads whether predictions match.
      answering: of problems; None where there are none.
      responses: sampled per problem, besides a greedy one.
    """

    model: ModelConfig
    settings: RLPSettings
    vocabulary: Vocabulary
    positions: str
    forks: int
    thoughts: int
    batch_size: int
    mesh: Mesh
    table: TokenBytes | None = None
    answering: Answering | None = None
    responses: int = 1

    def evaluate(
        self, params: Params, held_out: HeldOut, key: jax.Array, watch: Callable = iter
    ) -> dict[str, float]:
        """`figures` of the documents, `response_loss` of the pairs, and `answer_figures` of the
        problems; of those that there are.

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
            found |= self.answer_figures(params, held_out.problems, key, watch)
        return found

    def answer_figures(
        self,
        params: Params,
        problems: Mapping[str, Problems],
        key: jax.Array,
        watch: Callable = iter,
    ) -> dict[str, float]:
        """Means of `ANSWER_FIGURES` over files, each the mean over its problems; and of every
        file that has a name its accuracy, as accuracy/<name>.

        Args:
          params, key, watch: as of `figures`.
          problems: of every file.
        """
        each = {
            name: self._answers(params, of_file, key, watch) for name, of_file in problems.items()
        }
        mean = lambda figure: float(np.mean([figures[figure] for figures in each.values()]))
        named = {f"accuracy/{name}": figures["accuracy"] for name, figures in each.items() if name}
        return {figure: mean(figure) for figure in ANSWER_FIGURES} | named

    def _answers(
        self, params: Params, problems: Problems, key: jax.Array, watch: Callable
    ) -> dict[str, float]:
        """Means of `ANSWER_FIGURES` over some problems."""
        assert self.answering is not None
        totals, left = dict.fromkeys(ANSWER_FIGURES, 0.0), list(problems.answers)
        with jax.set_mesh(self.mesh):
            params = self._gather(params) if self._gather else params
            for part in watch(list(_parts(problems.prompts, self.batch_size))):
                size = len(part.index)
                answers, left = left[:size], left[size:]
                found = jax.device_get(self._respond(params, self._placed(part), key))
                sampled, greedy = (
                    self.answering.grades(actions[:size], words[:size], answers)
                    for actions, words, _ in found
                )
                _, words, closed = found[0]
                for row, (group, best) in enumerate(zip(sampled, greedy, strict=True)):
                    right = [grade.correct for grade in group]
                    agreed = [grade.agrees and grade.correct for grade in group]
                    figures = {
                        "accuracy": np.mean(right),
                        "greedy_accuracy": best[0].correct,
                        "majority_accuracy": any(agreed),
                        "any_accuracy": any(right),
                        "answered_share": np.mean([grade.answer is not None for grade in group]),
                        "response_length": np.mean(words[row] + closed[row]),
                        "response_closed_fraction": np.mean(closed[row]),
                    }
                    for name, value in figures.items():
                        totals[name] += float(value) / len(problems.answers)
        return totals

    def browse_answers(
        self, params: Params, problems: Mapping[str, Problems], key: jax.Array, count: int
    ) -> list[dict]:
        """Responses to the first problems of every file, as plain data for `responses.json`.

        Args:
          params, key: as of `figures`.
          problems: of every file.
          count: most problems of a file.
        """
        assert self.answering is not None
        shown = []
        for name, of_file in problems.items():
            # As many at a time as for the figures: that program is compiled.
            chosen = next(_parts(of_file.prompts, max(count, self.batch_size)))
            answers = of_file.answers[:count]
            with jax.set_mesh(self.mesh):
                whole = self._gather(params) if self._gather else params
                found, _ = jax.device_get(self._respond(whole, self._placed(chosen), key))
            actions, words, closed = (x[: len(answers)] for x in found)
            grades = self.answering.grades(actions, words, answers)
            texts = self.answering.responses(actions, words)
            length = (np.asarray(chosen.segment) > 0).sum(axis=-1)
            shown += [
                {
                    "file": name,
                    "prompt": self.answering.decode(
                        np.asarray(chosen.tokens)[row, : length[row]].tolist()
                    ),
                    "answer": answers[row],
                    "responses": [
                        {
                            "text": text,
                            "answer": grade.answer,
                            "correct": grade.correct,
                            "closed": bool(closed[row, n]),
                        }
                        for n, (text, grade) in enumerate(zip(texts[row], grades[row], strict=True))
                    ],
                }
                for row in range(len(answers))
            ]
        return shown

    @functools.cached_property
    def _respond(self) -> Callable[[Params, Batch, jax.Array], Any]:
        """Sampled responses to every prompt, and a greedy one: actions, how many of them are text,
        whether they ended by themselves; [B, N, …] each."""
        assert self.answering is not None
        words = self.answering.vocabulary
        sampled = dataclasses.replace(self.answering.settings, group_size=self.responses)
        greedy = dataclasses.replace(sampled, group_size=1, temperature=0.0)

        @functools.partial(jax.jit, out_shardings=replicated(self.mesh))
        def respond(params, batch, key):
            def of(settings):
                method = (self.model, settings, words)
                reading = read_stage(*method, params, params, batch, key, 0)
                found = rollout_stage(*method, params, reading).thoughts
                return found.actions, found.words(words), found.closed

            return of(sampled), of(greedy)

        return respond

    def response_loss(self, params: Params, pairs: Batch, watch: Callable = iter) -> float:
        """Nats per token of held-out responses, what ends them included."""
        with jax.set_mesh(self.mesh):
            totals = self._totals(self._score_responses, params, pairs, watch)
        return totals["nats"] / totals["tokens"]

    def figures(
        self, params: Params, documents: Batch, key: jax.Array, watch: Callable = iter
    ) -> dict[str, float]:
        """Means of `FIGURES`, and `document_loss` (nats per token over whole documents).

        Args:
          params: the network.
          documents: held-out rows of one document each.
          key: PRNG key of the forks and draws.
          watch: wraps the iterable of batches, for a progress bar or to stop early.
        """
        with jax.set_mesh(self.mesh):
            score = lambda params, part: self._score(params, part, key)
            totals = self._totals(score, params, documents, watch)
        loss = totals.pop("document_nats") / totals.pop("document_tokens")
        return {name: totals[name] for name in FIGURES} | {"document_loss": loss}

    def _totals(
        self, score: Callable, params: Params, rows: Batch, watch: Callable
    ) -> dict[str, float]:
        """Means over rows of what `score` gives for (params, some rows), [B] each."""
        totals: dict[str, float] = {}
        params = self._gather(params) if self._gather else params
        for part in watch(list(_parts(rows, self.batch_size))):
            each = jax.device_get(score(params, self._placed(part)))
            for name, values in each.items():
                real = values[: len(part.index)].astype(np.float64)
                totals[name] = totals.get(name, 0.0) + float(real.sum()) / len(rows.index)
        return totals

    def _placed(self, documents: Batch) -> Batch:
        """The documents on the mesh; the last one is repeated until every device has as many."""
        size, shards = len(documents.index), batch_shards(self.mesh)
        chosen = np.minimum(np.arange(-(-size // shards) * shards), size - 1)
        return Rows.of(jax.tree.map(lambda x: np.asarray(x)[chosen], documents)).placed(self.mesh)

    @functools.cached_property
    def _gather(self) -> Callable[[Params], Params] | None:
        return gatherer(self.model, self.mesh, self.settings.rollout_layout)

    @functools.cached_property
    def _score(self) -> Callable[[Params, Batch, jax.Array], dict[str, jax.Array]]:
        """Figures of every document, [B] each."""
        sampled = dataclasses.replace(
            self.settings,
            positions=self.positions,
            forks_per_document=self.forks,
            group_size=self.thoughts,
        )
        greedy = dataclasses.replace(sampled, group_size=1, temperature=0.0)

        @functools.partial(jax.jit, out_shardings=replicated(self.mesh))
        def score(params, batch, key):
            found = think(self.model, sampled, self.vocabulary, params, batch, key, self.table)
            best = think(self.model, greedy, self.vocabulary, params, batch, key, self.table)
            trunk = document_trunk(batch)
            whole = document_scores(bind(self.model, params), trunk, self.vocabulary)
            each = {
                "no_think_accuracy": _hits(found["no_think"], found["target"]),
                "greedy_think_accuracy": _hits(best["reasoned"], best["target"]),
                "sampled_think_accuracy": _hits(found["reasoned"], found["target"]),
                "no_think_loss": -found["no_think"].logprob,
                "think_loss": -found["reasoned"].logprob,
                "mean_information_gain": found["gain"],
                "thought_length": found["rollout"].thoughts.length,
                "closed_fraction": found["rollout"].thoughts.closed,
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
            scores = document_scores(bind(self.model, params), trunk)
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
        s = self.settings
        places = [
            _spread(s.min_prefix, int(n) - s.horizon, positions, given.tolist())
            for n, given in zip(length, np.asarray(documents.forks), strict=True)
        ]
        most = max(map(len, places))
        padded = np.array([p + p[-1:] * (most - len(p)) for p in places], np.int32)
        group = max(self.thoughts, 2)  # an advantage needs company
        settings = dataclasses.replace(
            s, positions="given", forks_per_document=most, group_size=group
        )

        @functools.partial(jax.jit, out_shardings=replicated(self.mesh))
        def run(params, batch):
            found = think(self.model, settings, self.vocabulary, params, batch, key, self.table)
            return found | {"rollout": None, "thoughts": found["rollout"].thoughts}

        with jax.set_mesh(self.mesh):
            chosen = self._placed(dataclasses.replace(documents, forks=padded))
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
        words = thoughts.words(self.vocabulary)
        target = np.asarray(documents.tokens)[row, fork : fork + self.settings.horizon]
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


def think(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    batch: Batch,
    key: jax.Array,
    table: TokenBytes | None = None,
) -> dict:
    """A rollout, scored with and without its thoughts by the same network; `table` as of
    `step.evidence_stage`."""
    s, model, method = settings, bind(model_config, params), (model_config, settings, vocabulary)
    reading = read_stage(*method, params, params, batch, key, 0)
    rollout, forks = rollout_stage(*method, params, reading), reading.forks
    hidden = forward(model, document_trunk(batch)) if s.prompt else reading.documents.hidden
    no_think = no_think_scores(model, hidden, forks.position, forks.target, vocabulary)
    # The reward and the advantage are those that training would see, with phi = theta.
    found, reasoned = outcome_of(*method, params, reading, rollout, no_think.logprob, 0, table)
    judgement = judgement_of(s, found)
    total = lambda scores: scores.logprob.sum(axis=-1)
    return {
        "rollout": rollout,
        "target": forks.target,
        "reasoned": reasoned,
        "no_think": no_think,
        "gain": equations.information_gain(total(reasoned), total(no_think)),
        "rewards": judgement.rewards,
        "advantages": judgement.advantages,
    }


def _hits(scores: Scores, target: jax.Array) -> jax.Array:
    """Whether every target token is the likeliest: scores [B, K, …, H] of [B, K, H]."""
    between = (1,) * (scores.likeliest.ndim - target.ndim)
    return scores.likeliest == target.reshape(*target.shape[:2], *between, target.shape[-1])


def _parts(batch: Batch, size: int) -> Iterator[Batch]:
    for first in range(0, len(batch.index), size):
        yield jax.tree.map(operator.itemgetter(slice(first, first + size)), batch)


def _spread(first: int, last: int, count: int, given: list[int]) -> list[int]:
    """At most `count` positions from `first` to `last`, and the given ones (-1 is none)."""
    even = np.linspace(first, last, min(count, last - first + 1)).round().astype(int)
    return sorted({*even.tolist(), *(fork for fork in given if fork >= 0)})
