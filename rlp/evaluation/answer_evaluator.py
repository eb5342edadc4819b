"""Held-out figures of the answers that a network gives to problems, and responses to look at."""

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
    """Has a network answer held-out problems, always with the same draws.

    Attributes:
      answering: how problems are put and answers checked.
      responses: sampled per problem, besides a greedy one.
      batch_size: problems at a time.
      mesh: that the problems are spread over.
    """

    answering: Answering
    responses: int
    batch_size: int
    mesh: Mesh

    def figures(
        self,
        params: Params,
        problems: Mapping[str, Problems],
        key: jax.Array,
        watch: Callable = iter,
    ) -> dict[str, float]:
        """The metrics of problems in `rlp.metrics.catalogue`: means over files, each the mean over
        its problems; and the accuracy of every file that has a name, as accuracy/<name>. They are
        nan where a network's logits were not finite.

        Args:
          params: the network.
          problems: of every file.
          key: PRNG key of the draws.
          watch: wraps the iterable of batches, for a progress bar or to stop early.
        """
        each = {
            name: self._answers(params, of_file, key, watch) for name, of_file in problems.items()
        }
        mean = lambda figure: float(np.mean([figures[figure] for figures in each.values()]))
        named = {f"accuracy/{name}": figures["accuracy"] for name, figures in each.items() if name}
        return {name: mean(name) for name in NAMES} | named

    def _answers(
        self, params: Params, problems: Problems, key: jax.Array, watch: Callable
    ) -> dict[str, float]:
        """Means over some problems."""
        totals, left = dict.fromkeys(NAMES, 0.0), list(problems.answers)
        with jax.set_mesh(self.mesh):
            params = self._gather(params) if self._gather else params
            for part in watch(list(parts(problems.prompts, self.batch_size))):
                size = len(part.index)
                answers, left = left[:size], left[size:]
                found = jax.device_get(self._respond(params, spread(part, self.mesh), key))
                with self.answering.grader.step() as time:
                    sampled, greedy = (
                        self.answering.grades(actions[:size], words[:size], answers, time)
                        for actions, words, *_ in found
                    )
                (_, words, closed, sampled_well), (*_, greedy_well) = found
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
                    if not greedy_well[row].all():
                        figures["greedy_accuracy"] = np.nan
                    if not sampled_well[row].all():
                        figures |= dict.fromkeys(figures.keys() - {"greedy_accuracy"}, np.nan)
                    for name, value in figures.items():
                        totals[name] += float(value) / len(problems.answers)
        return totals

    def browse(
        self, params: Params, problems: Mapping[str, Problems], key: jax.Array, count: int
    ) -> list[dict]:
        """Responses to the first problems of every file, as plain data for `responses.json`.

        Args:
          params, key: as of `figures`.
          problems: of every file.
          count: most problems of a file.
        """
        shown = []
        for name, of_file in problems.items():
            # As many at a time as for the figures: that program is compiled.
            chosen = next(parts(of_file.prompts, max(count, self.batch_size)))
            answers = of_file.answers[:count]
            with jax.set_mesh(self.mesh):
                whole = self._gather(params) if self._gather else params
                found, _ = jax.device_get(self._respond(whole, spread(chosen, self.mesh), key))
            actions, words, closed, _ = (x[: len(answers)] for x in found)
            with self.answering.grader.step() as left:
                grades = self.answering.grades(actions, words, answers, left)
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
        whether they ended by themselves, whether the logits were finite; [B, N, …] each."""
        model, words = self.answering.method.model, self.answering.method.vocabulary
        settings = self.answering.method.settings
        sampled = dataclasses.replace(settings, group_size=self.responses)
        greedy = dataclasses.replace(sampled, group_size=1, temperature=0.0)

        @functools.partial(jax.jit, out_shardings=replicated(self.mesh))
        def respond(params, batch, key):
            def of(settings):
                method = (model, settings, words)
                _, rollout = sample_thoughts(*method, params, batch, key)
                found = rollout.thoughts
                well = jnp.isfinite(found.logprobs).all(axis=-1)
                return found.actions, found.words(words), found.closed, well

            return of(sampled), of(greedy)

        return respond

    @functools.cached_property
    def _gather(self) -> Callable[[Params], Params] | None:
        method = self.answering.method
        return gatherer(method.model, self.mesh, method.settings.rollout_layout)
