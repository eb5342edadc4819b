"""The trainer of objectives over problems: rollout, answers checked on the host, update."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from models.config import ModelConfig
from models.sharding import replicated
from models.transformer import Params
from rlp.answers.grading import Grade, StepTime
from rlp.data.batch import Batch
from rlp.data.rows import Rows
from rlp.engine.branches import Vocabulary
from rlp.engine.optimizer import Optimizer
from rlp.engine.rollout import Rollout
from rlp.engine.step import Evidence, TrainState, verdict_stage
from rlp.evaluation.responses import Answering
from rlp.objectives.record import Answers
from rlp.training.trainers import Clock, RLPTrainer, jit_stage


class AnswerTrainer(RLPTrainer):
    """Responses to problems, each rewarded by its answer (RLVR and its kin).

    A wave's responses come to the host, are read and checked there, and what they are worth goes
    back: stage "verify".

    Attributes:
      shown: jitted rollout and batch to what the host reads of them.
      verdict: the stage of `rlp.engine.step` in the place of `evidence`.
    """

    clocked = ("data", "rollout", "verify", "update")

    def __init__(
        self,
        model: ModelConfig,
        answering: Answering,
        answer: Callable[[int], str],
        optimizer: Optimizer,
        mesh: Mesh,
        shardings: Any,
    ):
        """A trainer; `answer` gives the right one to the problem of a record."""
        settings, words = answering.settings, answering.vocabulary
        super().__init__(model, settings, words, optimizer, mesh, shardings)
        self._answering, self._answer = answering, answer
        self._time_left: StepTime
        self.shown = jax.jit(shown(words), out_shardings=replicated(mesh))
        self.verdict = jit_stage(model, settings, words, verdict_stage)

    def _waves(
        self, state: TrainState, rows: Rows, key: jax.Array, clock: Clock
    ) -> tuple[Rollout, Evidence]:
        """See `RLPTrainer`; all waves of a step share the time for its checks."""
        with self._answering.grader.step() as self._time_left:
            return super()._waves(state, rows, key, clock)

    def _wave(
        self,
        state: TrainState,
        params: Params,
        batch: Batch,
        forks: int,
        key: jax.Array,
        clock: Clock,
    ) -> list[tuple[Rollout, Evidence]]:
        with clock("rollout") as done:
            reading = done(self.read(params, params, batch, key, state.step))
            rollout = done(self.rollout(params, reading, forks=forks))
        with clock("verify") as done:
            actions, words, index = jax.device_get(self.shown(rollout, batch))
            answers = [self._answer(int(i)) for i in index]
            grades = self._answering.grades(actions, words, answers, self._time_left)
            planning = self._answering.planning(actions, words)
            verdict = done(self.verdict(reading, rollout, answers_of(grades), planning))
        return [(rollout.without_cache(), verdict)]


def shown(vocabulary: Vocabulary) -> Callable[[Rollout, Batch], tuple[jax.Array, ...]]:
    """A function to what the host reads of responses: actions [B, N, L], how many of them are text
    [B, N], and the numbers of the records [B]."""

    def read(rollout: Rollout, batch: Batch) -> tuple[jax.Array, ...]:
        thoughts = rollout.thoughts
        return thoughts.actions, thoughts.words(vocabulary), jnp.asarray(batch.index)

    return read


def answers_of(grades: list[list[Grade]]) -> Answers:
    """Grades of groups as arrays, in numpy: every host has them whole."""

    def each(value: Callable[[Grade], Any], dtype: Any) -> Any:
        return np.array([[[value(grade) for grade in group]] for group in grades], dtype)

    return Answers(
        correct=each(lambda grade: grade.correct, bool),
        reward=each(lambda grade: grade.reward, np.float32),
        agrees=each(lambda grade: grade.agrees, bool),
        confidence=each(
            lambda grade: np.nan if grade.confidence is None else grade.confidence, np.float32
        ),
        given=each(lambda grade: grade.answer is not None, bool),
        failed=each(lambda grade: grade.failed, bool),
    )
