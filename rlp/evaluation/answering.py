"""Responses to problems: the settings that sample them, decoding and grading."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from rlp.answers.grading import Grade, Grader, StepTime
from rlp.answers.planning_phrases import planning_actions
from rlp.engine.method import Method
from rlp.engine.step import RLPSettings
from rlp.evaluation.response_format import ResponseFormat
from rlp.runtime import hosts


def response_settings(settings: RLPSettings, length: int) -> RLPSettings:
    """Return the settings for responses: one fork at the end of each prompt, and no text after it.

    Args:
      settings: of the method; group size, sampling and updates are kept.
      length: at most this number of actions per response.
    """
    return dataclasses.replace(
        settings,
        thought_length=length,
        thought_length_schedule=(),
        min_thought_length=1,
        forks_per_document=1,
        horizon=1,
        positions="given",
        prompt=(),
        baseline="none",
        target_weight=0.0,
    )


@dataclasses.dataclass(frozen=True)
class Answering:
    """Decodes and grades responses to problems.

    Attributes:
      method: for the rollout of responses.
      response_format: the tokens around responses.
      grader: compares answers with the gold answers.
      decode: from ids to text.
      texts: bytes of every token, to find planning phrases; None if the objective ignores them.
      phrases: planning phrases.
    """

    method: Method
    response_format: ResponseFormat
    grader: Grader
    decode: Callable[[Sequence[int]], str]
    texts: Sequence[bytes] | None
    phrases: Sequence[str]

    def responses(self, actions: np.ndarray, words: np.ndarray) -> list[list[str]]:
        """Decode actions [B, N, L], of which the first `words` [B, N] are text."""
        return [
            [
                self.decode(actions[row, n, : words[row, n]].tolist())
                for n in range(actions.shape[1])
            ]
            for row in range(actions.shape[0])
        ]

    def grades(
        self, actions: np.ndarray, words: np.ndarray, answers: Sequence[str], time: StepTime
    ) -> list[list[Grade]]:
        """Grade responses on process 0, and return the grades on all processes.

        Only one process grades, since a check that times out there may succeed elsewhere. All
        processes must call this.

        Args:
          actions, words: as in `responses`.
          answers: gold answers of the B problems.
          time: remaining time for grading in this step, see `Grader.grade_all`.
        """

        def decide() -> list[list[dict]]:
            grades = self.grader.grade_all(self.responses(actions, words), answers, time)
            return [[dataclasses.asdict(grade) for grade in group] for group in grades]

        return [[Grade(**grade) for grade in group] for group in hosts.agree(decide)]

    def planning(self, actions: np.ndarray, words: np.ndarray) -> np.ndarray | None:
        """Return which actions belong to planning phrases, [B, N, L] bool; None without `texts`."""
        if self.texts is None:
            return None
        return planning_actions(actions, words, self.texts, self.phrases)
