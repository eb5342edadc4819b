"""Questions whose contexts begin with the same tokens, such as the examples of a few-shot prompt.

These tokens are read once for up to `MAX_BRANCHES` branches. The rest of each context is a branch,
at whose end its options are scored: all of them if they have one token each, else one per branch.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from rlp.evaluation.options.questions import Question
from rlp.evaluation.options.row_batches import MAX_BRANCHES, Shape, doubled, slots_of

MIN_REST = 32  # tokens of branches are padded to 32, 64, 128, …
LEAST_SHARED = 64  # tokens; fewer are read again for every question


@dataclasses.dataclass(frozen=True)
class Branch:
    """The rest of a context, and options that are scored after it.

    Attributes:
      question: index of the question.
      options: indices of the options: one, or several of one token each.
      tokens: the rest of the context, and all tokens of the option but the last.
      start: number of tokens of the rest of the context, at least 1.
    """

    question: int
    options: tuple[int, ...]
    tokens: tuple[int, ...]
    start: int


@dataclasses.dataclass(frozen=True)
class SharedRow:
    """Tokens that contexts begin with, and branches after them."""

    prefix: tuple[int, ...]
    branches: tuple[Branch, ...]


def shared_rows(questions: Sequence[Question], limit: int) -> tuple[list[SharedRow], list[int]]:
    """Divide questions into rows that share the beginning of a context, and the others.

    A beginning is shared if it is at least half of each context, and if branches after it have
    fewer tokens in all than the contexts.

    Args:
      questions: in any order.
      limit: most tokens of a row.

    Returns:
      The rows, and the indices of the questions that are in none of them.
    """
    rows: list[SharedRow] = []
    alone: list[int] = []
    for members, shared in _groups([question.context for question in questions]):
        made = list(_rows(questions, members, shared, limit))
        tokens = sum(len(row.prefix) + sum(len(b.tokens) for b in row.branches) for row in made)
        if made and tokens < sum(len(questions[i].context) for i in members):
            rows += made
        else:
            alone += members
    return rows, sorted(alone)


def _groups(contexts: Sequence[tuple[int, ...]]) -> Iterator[tuple[list[int], int]]:
    """Yield indices of contexts, with the number of tokens that all of them begin with."""
    members: list[int] = []
    shared = longest = 0
    for index in sorted(range(len(contexts)), key=contexts.__getitem__):
        context = contexts[index]
        common = min(shared, _common(contexts[members[-1]], context)) if members else 0
        # At least one token of a context is read in its branch, whose end predicts the options.
        common = min(common, len(context) - 1)
        length = max(longest, len(context))
        if common >= max(LEAST_SHARED, length / 2):
            members.append(index)
            shared, longest = common, length
            continue
        if members:
            yield members, shared
        members, shared, longest = [index], len(context) - 1, len(context)
    if members:
        yield members, shared


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the number of tokens that both begin with."""
    length = min(len(first), len(second))
    differ = np.flatnonzero(np.asarray(first[:length]) != np.asarray(second[:length]))
    return int(differ[0]) if differ.size else length


def _rows(
    questions: Sequence[Question], members: Sequence[int], shared: int, limit: int
) -> Iterator[SharedRow]:
    """Yield rows of branches of similar lengths; none if a branch does not fit."""
    if len(members) < 2:
        return
    branches = [branch for i in members for branch in _branches(i, questions[i], shared)]
    branches.sort(key=lambda branch: len(branch.tokens), reverse=True)
    room = limit - shared
    if room < doubled(len(branches[0].tokens), MIN_REST):
        return
    prefix = questions[members[0]].context[:shared]
    while branches:
        fit = room // doubled(len(branches[0].tokens), MIN_REST)
        count = min(MAX_BRANCHES, 2 ** (fit.bit_length() - 1))
        yield SharedRow(prefix, tuple(branches[:count]))
        branches = branches[count:]


def _branches(index: int, question: Question, shared: int) -> Iterator[Branch]:
    rest = question.context[shared:]
    if all(len(option) == 1 for option in question.options):
        yield Branch(index, tuple(range(len(question.options))), rest, len(rest))
        return
    for number, option in enumerate(question.options):
        yield Branch(index, (number,), rest + option[:-1], len(rest))


def shared_sizes(questions: Sequence[Question], row: SharedRow, length: int) -> Shape:
    """Return the padded sizes T, N, S, O, H of a row; see `shared_arrays`. Its prefix is padded to
    `length` tokens."""
    options = [questions[b.question].options[o] for b in row.branches for o in b.options]
    longest = max(map(len, options))
    return (
        length,
        doubled(len(row.branches)),
        doubled(max(len(branch.tokens) for branch in row.branches), MIN_REST),
        doubled(max(len(branch.options) for branch in row.branches)),
        slots_of(longest),
    )


def shared_arrays(
    questions: Sequence[Question], rows: Sequence[SharedRow], count: int, sizes: Shape
) -> tuple[np.ndarray, ...]:
    """Return the arguments of `option_programs.score_branches` for rows, padded to `count` rows:
    prefixes [B, T], their lengths [B], branches [B, N, S], their lengths [B, N], the tokens of the
    context in each [B, N], options [B, N, O, H], and their lengths [B, N, O]."""
    length, branches, slots, options, width = sizes
    shapes = (length,), (), (branches, slots), (branches,), (branches,), (branches, options, width)
    arrays = [np.zeros((len(rows), *shape), np.int32) for shape in (*shapes, (branches, options))]
    prefix, lengths, tokens, ends, starts, texts, widths = arrays
    for b, row in enumerate(rows):
        lengths[b] = len(row.prefix)
        prefix[b, : lengths[b]] = row.prefix
        for n, branch in enumerate(row.branches):
            starts[b, n], ends[b, n] = branch.start, len(branch.tokens)
            tokens[b, n, : ends[b, n]] = branch.tokens
            for o, option in enumerate(branch.options):
                text = questions[branch.question].options[option]
                widths[b, n, o] = len(text)
                texts[b, n, o, : len(text)] = text
    spare = np.full(count - len(rows), len(rows) - 1)  # repeats the last row
    return tuple(np.concatenate([x, x[spare]]) for x in arrays)
