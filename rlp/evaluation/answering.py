"""How a network answers problems: with what it samples responses, and who checks them."""

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
    """The settings of a method for responses: one at the end of each prompt, and no text after it.

    Args:
      settings: whose numbers of groups, sampling and updates are taken.
      length: most actions of a response.
    """
    return dataclasses.replace(
        settings,
        thought_length=length,
        forks_per_document=1,
        horizon=1,
        positions="given",
        prompt=(),
        baseline="none",
        target_weight=0.0,
    )


@dataclasses.dataclass(frozen=True)
class Answering:
    """Responses to problems.

    Attributes:
      method: of a rollout that samples them.
      response_format: what stands around them.
      grader: checks them.
      decode: ids to text.
      texts: bytes of every token, to find planning phrases; None where nobody asks.
      phrases: that plan.
    """

    method: Method
    response_format: ResponseFormat
    grader: Grader
    decode: Callable[[Sequence[int]], str]
    texts: Sequence[bytes] | None
    phrases: Sequence[str]

    def responses(self, actions: np.ndarray, words: np.ndarray) -> list[list[str]]:
        """The texts of actions [B, N, L], of which the first `words` [B, N] are text."""
        return [
            [
                self.decode(actions[row, n, : words[row, n]].tolist())
                for n in range(actions.shape[1])
            ]
            for row in range(actions.shape[0])
        ]

    def grades(
        self, actions: np.ndarray, words: np.ndarray, answers: Sequence[str], left: StepTime
    ) -> list[list[Grade]]:
        """The grades of the responses to problems with these answers; `left` as of `grade_all`.

        They are checked on the first host, since a check that fails for want of time there may
        pass elsewhere; all hosts call this.
        """

        def decide() -> list[list[dict]]:
            grades = self.grader.grade_all(self.responses(actions, words), answers, left)
            return [[dataclasses.asdict(grade) for grade in group] for group in grades]

        return [[Grade(**grade) for grade in group] for group in hosts.agree(decide)]

    def planning(self, actions: np.ndarray, words: np.ndarray) -> np.ndarray | None:
        """Which actions plan, bool [B, N, L]; None where nobody asks."""
        if self.texts is None:
            return None
        return planning_actions(actions, words, self.texts, self.phrases)
