"""Questions with options, how likely options are, and the arrays of rows of questions."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rlp.evaluation.options.row_batches import Shape, table
from rlp.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Question:
    """A question with the options of its answer.

    Attributes:
      context: token ids before the answer, with the BOS; at least one.
      options: token ids of every option; at least one id of each.
    """

    context: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class OptionScore:
    """How likely an option is.

    Attributes:
      logprob: nats, summed over its tokens; nan if logits of the network are not finite.
      greedy: whether every token is the likeliest one.
      tokens: number of its tokens.
    """

    logprob: float
    greedy: bool
    tokens: int


Row = tuple[int, list[int]]  # index of a question, and indices of some of its options


def mean_over_thoughts(scores: Sequence[Sequence[OptionScore]]) -> list[float]:
    """Return log of the mean over thoughts of p(option | context, thought), nats, per option.

    It is an estimate of log p(option | context) of a network that thinks before it answers.

    Args:
      scores: of one question, per thought and option.
    """
    logprob = np.array([[option.logprob for option in thought] for thought in scores], np.float64)
    return (np.logaddexp.reduce(logprob, axis=0) - np.log(len(scores))).tolist()


def check_questions(
    questions: Sequence[Question], vocab_size: int, limit: int | None, between: int = 0
) -> None:
    """Refuse questions that a network cannot score.

    Args:
      questions: all of them.
      vocab_size: rows of its embedding.
      limit: most tokens that it reads at a time; None if there is no limit.
      between: tokens between a context and its options.

    Raises:
      UserError: If a question has no context, no options or an option without tokens, an id that
        is not in the embedding, or too many tokens; names the question.
    """
    for number, question in enumerate(questions):
        name = f"question {number}"
        if not question.context:
            raise UserError(f"{name} has no context; begin it with a BOS or another token")
        if not question.options or not all(question.options):
            missing = "an option without tokens" if question.options else "no options"
            raise UserError(f"{name} has {missing}; every option needs at least one token")
        for ids in (question.context, *question.options):
            check_ids(ids, vocab_size, name)
        read = len(question.context) + between + max(map(len, question.options)) - 1
        if limit is not None and read > limit:
            raise UserError(
                f"{name} has {read} tokens with its longest option, but the network reads at most "
                f"{limit}; shorten its context"
            )


def check_ids(ids: Sequence[int], vocab_size: int, name: str) -> None:
    """Refuse ids that are not in the embedding; `name` says what they belong to.

    Raises:
      UserError: If there are such ids.
    """
    for wrong in (x for x in ids if not 0 <= x < vocab_size):
        raise UserError(
            f"{name} has the id {wrong}, but the embedding has {vocab_size} rows; use the "
            "tokenizer of the network"
        )


def question_arrays(
    questions: Sequence[Question], rows: Sequence[Row], count: int, shape: Shape
) -> tuple[np.ndarray, ...]:
    """Return contexts [B, T], their lengths [B], options [B, N, H] and their sizes [B, N]."""
    length, branches, slots = shape
    contexts = [questions[i].context for i, _ in rows]
    options = [[questions[i].options[o] for o in chosen] for i, chosen in rows]
    flat = [table(of_row, branches, slots).ravel().tolist() for of_row in options]
    return (
        table(contexts, count, length),
        table([[len(ids)] for ids in contexts], count, 1)[:, 0],
        table(flat, count, branches * slots).reshape(count, branches, slots),
        table([list(map(len, of_row)) for of_row in options], count, branches),
    )
