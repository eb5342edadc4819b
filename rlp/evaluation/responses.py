"""How a network answers problems: what stands before a response and around it, and who checks it.

A response is a thought to the engine: actions that leave the prompt at its end. It begins with an
opening of its own, the thinking tag, or with the last token of the prompt; it ends with the token
that ends a turn of the chat, or a text.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from rlp.answers.grading import Grade, Grader, StepTime
from rlp.answers.planning_phrases import planning_actions
from rlp.engine.branches import Vocabulary
from rlp.engine.step import RLPSettings
from rlp.runtime import hosts
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer
from rlp.tokenizers.turns import after_response, end_of_turn

_ASKED = "a problem"


@dataclasses.dataclass(frozen=True)
class Frame:
    """What stands around a response.

    Attributes:
      ask: a prompt to the text that asks for its response.
      head: ids before that text.
      opening: ids that a response begins with, which are not sampled.
      shared: the opening is the last token of the prompt's text.
      end: id that ends a response.
    """

    ask: Callable[[str], str]
    head: tuple[int, ...]
    opening: tuple[int, ...]
    shared: bool
    end: int


def make_frame(tokenizer: Tokenizer, template: str | None, think: bool) -> Frame:
    """The frame of responses.

    Args:
      tokenizer: gives ids.
      template: of the chat, Jinja; None for prompts as they are.
      think: responses begin with the opening thinking tag.

    Raises:
      UserError: a template without an end of a response, or with one that is ordinary text; one
        that opens a thought by itself where `think` does too; no template where the opening is to
        be its last token.
    """
    if template is None:
        if not think:
            raise UserError(
                "data.problems.think=False lets responses begin with what a chat template puts "
                "before them, and there is none; set data.chat_template, or think=True"
            )
        opening = tokenizer.think_open
        return Frame(lambda text: text, tokenizer.bos, opening, False, tokenizer.separator)

    def ask(text: str) -> str:
        return tokenizer.chat([{"role": "user", "content": text}], template, True)

    after = after_response(tokenizer, template)
    if not after:
        raise UserError(
            "the chat template puts nothing after a response, so none could end; set "
            "data.chat_template to another one, or to 'none'"
        )
    before, opening = tokenizer.encode(ask(_ASKED)), tokenizer.think_open
    if think and tuple(tokenizer.encode(ask(_ASKED).rstrip())[-len(opening) :]) == opening:
        raise UserError(
            "the chat template opens a thought by itself; set data.problems.think=False"
        )
    end = end_of_turn(tokenizer, template)
    if end is None:
        text = tokenizer.decode(tokenizer.encode(after)[:1])
        raise UserError(
            f"the chat template ends a response with {text!r}, which responses hold, too; set "
            "data.chat_template to one that has a token for it, or to 'none'"
        )
    return Frame(ask, (), opening if think else (before[-1],), not think, end)


def begins_in_thought(frame: Frame, tokenizer: Tokenizer) -> bool:
    """Whether a response begins inside of a thought: after the opening tag of the frame, or of the
    chat template."""
    if not frame.shared:
        return frame.opening == tokenizer.think_open
    asked = tuple(tokenizer.encode(frame.ask(_ASKED).rstrip()))
    return asked[-len(tokenizer.think_open) :] == tokenizer.think_open


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
      settings, vocabulary: of a rollout that samples them.
      frame: what stands around them.
      grader: checks them.
      decode: ids to text.
      trained: training samples responses; else they are held out alone.
      texts: bytes of every token, to find planning phrases; None where nobody asks.
      phrases: that plan.
    """

    settings: RLPSettings
    vocabulary: Vocabulary
    frame: Frame
    grader: Grader
    decode: Callable[[Sequence[int]], str]
    trained: bool
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
