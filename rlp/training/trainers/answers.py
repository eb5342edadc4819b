"""The trainer of objectives over problems: rollout, grading on the host, update."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from rlp.answers.grading import Grade, StepTime
from rlp.data.rows import Rows
from rlp.engine.optimizer import Optimizer
from rlp.engine.step import TrainState
from rlp.evaluation.answering import Answering
from rlp.objectives.outcome import Answers
from rlp.training.trainers.base import Clock
from rlp.training.trainers.thoughts import RLPTrainer, ScoredRollout


class AnswerTrainer(RLPTrainer):
    """Takes steps of an objective that rewards responses for their answers, such as RLVR.

    The host grades the responses of each rollout batch and sends the grades back to the devices:
    phase "verify".
    """

    phases = ("data", "rollout", "verify", "update")

    def __init__(
        self,
        answering: Answering,
        answer: Callable[[int], str],
        optimizer: Optimizer,
        mesh: Mesh,
        shardings: Any,
    ):
        """Initialize the trainer.

        Args:
          answering: method, grader and planning phrases.
          answer: from the index of a problem to its gold answer.
          optimizer, mesh, shardings: as in `RLPTrainer`.
        """
        super().__init__(answering.method, optimizer, mesh, shardings)
        self._answering, self._answer = answering, answer
        self._time_left: StepTime
        self.programs["grade"] = self._grade

    def _rollout_batches(
        self, state: TrainState, rows: Rows, key: jax.Array, clock: Clock
    ) -> tuple[list[ScoredRollout], int]:
        """See `RLPTrainer`; all rollout batches of a step share its time limit for grading."""
        with self._answering.grader.step() as self._time_left:
            return super()._rollout_batches(state, rows, key, clock)

    def _grade(self, responses: tuple[jax.Array, ...]) -> tuple[Answers, np.ndarray | None]:
        """Grade the outputs of the stage `responses`; return answers [B, 1, G], and which actions
        are planning [B, N, L], or None."""
        actions, words, index = jax.device_get(responses)
        answers = [self._answer(int(i)) for i in index]
        grades = self._answering.grades(actions, words, answers, self._time_left)
        return answers_of(grades), self._answering.planning(actions, words)


def answers_of(grades: list[list[Grade]]) -> Answers:
    """Return the grades of B groups of G responses as numpy arrays [B, 1, G], on every host."""

    def array(value: Callable[[Grade], Any], dtype: Any) -> Any:
        return np.array([[[value(grade) for grade in group]] for group in grades], dtype)

    return Answers(
        correct=array(lambda grade: grade.correct, bool),
        reward=array(lambda grade: grade.reward, np.float32),
        agrees=array(lambda grade: grade.agrees, bool),
        confidence=array(
            lambda grade: np.nan if grade.confidence is None else grade.confidence, np.float32
        ),
        given=array(lambda grade: grade.answer is not None, bool),
        failed=array(lambda grade: grade.failed, bool),
    )
