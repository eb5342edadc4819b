"""Held-out metrics of a network's answers to problems, and example responses."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from models.sharding import replicated
from models.transformer import Params
from rlp.data.batch import Batch, Problems
from rlp.data.rows import parts, spread
from rlp.engine.placement import gatherer
from rlp.engine.stages import sample_thoughts
from rlp.evaluation.answering import Answering
from rlp.metrics import catalogue

NAMES = catalogue.names("problems")


@dataclasses.dataclass(frozen=True)
class AnswerEvaluator:
    """Evaluates a network on held-out problems, with the same random numbers for the same key.

    Attributes:
      answering: samples and grades responses.
      responses: number of sampled responses per problem, besides a greedy one.
      batch_size: problems per batch.
      mesh: the problems of a batch are sharded over it.
    """

    answering: Answering
    responses: int
    batch_size: int
    mesh: Mesh

    def problem_metrics(
        self,
        params: Params,
        problems: Mapping[str, Problems],
        key: jax.Array,
        watch: Callable = iter,
    ) -> dict[str, float]:
        """Return the metrics of problems (see `rlp.metrics.catalogue`), as means over files.

        The accuracy of a file with a name is also returned as accuracy/<name>. Metrics are nan if
        logits of the network are not finite.

        Args:
          params: of the network.
          problems: from the name of a file, or "", to its problems.
          key: PRNG key of the sampling.
          watch: wraps the list of batches, to show progress or to stop early.
        """
        by_file = {
            name: self._file_metrics(params, of_file, key, watch)
            for name, of_file in problems.items()
        }
        mean = lambda name: float(np.mean([metrics[name] for metrics in by_file.values()]))
        named = {
            f"accuracy/{name}": metrics["accuracy"] for name, metrics in by_file.items() if name
        }
        return {name: mean(name) for name in NAMES} | named

    def _file_metrics(
        self, params: Params, problems: Problems, key: jax.Array, watch: Callable
    ) -> dict[str, float]:
        """Return the means over the problems of a file."""
        totals, remaining = dict.fromkeys(NAMES, 0.0), list(problems.answers)
        with jax.set_mesh(self.mesh):
            params = self._gather(params) if self._gather else params
            for part in watch(list(parts(problems.prompts, self.batch_size))):
                size = len(part.index)
                answers, remaining = remaining[:size], remaining[size:]
                responses = jax.device_get(self._respond(params, spread(part, self.mesh), key))
                with self.answering.grader.step() as time:
                    sampled, greedy = (
                        self.answering.grades(actions[:size], words[:size], answers, time)
                        for actions, words, *_ in responses
                    )
                (_, words, closed, sampled_finite), (*_, greedy_finite) = responses
                for row, (group, best) in enumerate(zip(sampled, greedy, strict=True)):
                    correct = [grade.correct for grade in group]
                    agreed = [grade.agrees and grade.correct for grade in group]
                    metrics = {
                        "accuracy": np.mean(correct),
                        "greedy_accuracy": best[0].correct,
                        "majority_accuracy": any(agreed),
                        "any_accuracy": any(correct),
                        "answered_share": np.mean([grade.answer is not None for grade in group]),
                        "response_length": np.mean(words[row] + closed[row]),
                        "response_closed_fraction": np.mean(closed[row]),
                    }
                    if not greedy_finite[row].all():
                        metrics["greedy_accuracy"] = np.nan
                    if not sampled_finite[row].all():
                        metrics |= dict.fromkeys(metrics.keys() - {"greedy_accuracy"}, np.nan)
                    for name, value in metrics.items():
                        totals[name] += float(value) / len(problems.answers)
        return totals

    def browse(
        self, params: Params, problems: Mapping[str, Problems], key: jax.Array, count: int
    ) -> list[dict]:
        """Return responses to the first problems of every file, as plain data for responses.json.

        Args:
          params, problems, key: as in `problem_metrics`.
          count: at most this number of problems per file.
        """
        examples = []
        for name, of_file in problems.items():
            # The batch size of `problem_metrics`, whose program is already compiled.
            batch = next(parts(of_file.prompts, max(count, self.batch_size)))
            answers = of_file.answers[:count]
            with jax.set_mesh(self.mesh):
                whole = self._gather(params) if self._gather else params
                sampled, _ = jax.device_get(self._respond(whole, spread(batch, self.mesh), key))
            actions, words, closed, _ = (x[: len(answers)] for x in sampled)
            with self.answering.grader.step() as time:
                grades = self.answering.grades(actions, words, answers, time)
            texts = self.answering.responses(actions, words)
            length = (np.asarray(batch.segment) > 0).sum(axis=-1)
            examples += [
                {
                    "file": name,
                    "prompt": self.answering.decode(
                        np.asarray(batch.tokens)[row, : length[row]].tolist()
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
        return examples

    @functools.cached_property
    def _respond(self) -> Callable[[Params, Batch, jax.Array], Any]:
        """Return a jitted function that samples responses, and a greedy one, to every prompt.

        For both it returns actions [B, N, L], the number of them without the end token [B, N],
        whether they ended by themselves [B, N], and whether all logits were finite [B, N].
        """
        model, words = self.answering.method.model, self.answering.method.vocabulary
        settings = self.answering.method.settings
        sampled = dataclasses.replace(settings, group_size=self.responses)
        greedy = dataclasses.replace(sampled, group_size=1, temperature=0.0)

        @functools.partial(jax.jit, out_shardings=replicated(self.mesh))
        def respond(params, batch, key):
            def sample(settings):
                method = (model, settings, words)
                _, rollout = sample_thoughts(*method, params, batch, key)
                responses = rollout.thoughts
                finite = jnp.isfinite(responses.logprobs).all(axis=-1)
                return responses.actions, responses.words(words), responses.closed, finite

            return sample(sampled), sample(greedy)

        return respond

    @functools.cached_property
    def _gather(self) -> Callable[[Params], Params] | None:
        method = self.answering.method
        return gatherer(method.model, self.mesh, method.settings.rollout_layout)
