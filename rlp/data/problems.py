"""Streams of problems: prompts whose answers can be checked.

    files → problems → prompts and answers → rows → records

A row holds the prompt alone, with the fork where the response begins. A prompt is never cut: one
that is longer than a row is left out and counted.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

import numpy as np

from rlp.data.batch import Batch, Fingerprint, Problems
from rlp.data.corpus import grouped, hold_out, reading
from rlp.data.fingerprint import digest, first_records
from rlp.data.sources import ENDINGS, Column, as_text, check_present, find_files, read_rows
from rlp.data.text import check_disjoint, shuffled, spread
from rlp.errors import UserError
from rlp.tokenizer import Tokenizer

GROUP = "data.problems"  # of the fields of the config
PROBLEM = "{problem}"  # its place in the instruction


@dataclasses.dataclass(frozen=True)
class ProblemFormat:
    """How a row of a file is a problem.

    Attributes:
      prompt, answer: names of the columns.
      options: of the column with a list of choices, shown as lines "A. …"; "" for none.
      marker: the answer is what follows its last occurrence in that column; "" for all of it.
      instruction: text with `PROBLEM` in it.
    """

    prompt: str
    answer: str
    options: str = ""
    marker: str = ""
    instruction: str = PROBLEM

    @property
    def columns(self) -> list[Column]:
        """With the fields of the config that name them."""
        named = (
            (f"{GROUP}.prompt_column", self.prompt),
            (f"{GROUP}.answer_column", self.answer),
            (f"{GROUP}.options_column", self.options),
        )
        return [column for column in named if column[1]]

    def problem(self, where: str, values: Sequence[object]) -> tuple[str, str]:
        """The prompt and the answer of a row.

        Args:
          where: the row stands, for messages of errors.
          values: of `columns`.

        Raises:
          UserError: a value of another kind, an answer without the marker, an empty one.
        """
        text, answer = as_text(where, self.prompt, values[0]), values[1]
        if isinstance(answer, int | float) and not isinstance(answer, bool):
            answer = str(answer)
        answer = as_text(where, self.answer, answer)
        if self.marker:
            _, found, answer = answer.rpartition(self.marker)
            if not found:
                raise UserError(
                    f"{where}: column {self.answer!r} has no {self.marker!r}, after which "
                    f"{GROUP}.answer_marker says that the answer stands"
                )
        for name, value, what in ((self.prompt, text, "problem"), (self.answer, answer, "answer")):
            if not value.strip():
                raise UserError(f"{where}: column {name!r} holds no {what}")
        if self.options:
            text = "\n".join([text, *self._choices(where, values[2])])
        return self.instruction.replace(PROBLEM, text), answer.strip()

    def _choices(self, where: str, values: object) -> list[str]:
        check_present(where, values)
        if not isinstance(values, list) or not 0 < len(values) <= 26:
            raise UserError(f"{where}: column {self.options!r} is no list of up to 26 choices")
        return [
            f"{chr(ord('A') + number)}. {as_text(where, self.options, value)}"
            for number, value in enumerate(values)
        ]


class ProblemStream:
    """Prompts by record number; endless and shuffled, or one pass."""

    def __init__(
        self,
        prompts: Sequence[np.ndarray],
        answers: Sequence[str],
        order: Sequence[int],
        *,
        sequence_length: int,
        pad: int,
    ) -> None:
        """A stream over problems.

        Args:
          prompts: ids of each, fewer than T.
          answers: of each.
          order: number of the problem of each record.
          sequence_length: T, tokens of a row.
          pad: id that fills a row.
        """
        self._prompts, self._answers, self._order = prompts, answers, order
        self._sequence_length, self._pad = sequence_length, pad
        self.records_per_epoch: int | None = len(prompts)

    def __len__(self) -> int:
        """Number of problems."""
        return len(self._prompts)

    def batch(self, first: int, size: int) -> Batch:
        """Records `first` … `first + size - 1`: prompts, each with the fork at its end.

        Raises:
          IndexError: a negative record, or one past the end of a stream that has an end.
        """
        if first < 0 or first + size > len(self._order):
            raise IndexError(f"no records {first} to {first + size - 1} among {len(self)} problems")
        tokens = np.full((size, self._sequence_length), self._pad, np.int32)
        length = np.zeros((size, 1), np.int32)
        for row in range(size):
            prompt = self._prompts[self._order[first + row]]
            tokens[row, : len(prompt)], length[row] = prompt, len(prompt)
        index = np.arange(first, first + size, dtype=np.int32)
        return Batch(tokens, *_prompt_places(length, tokens.shape[1]), index, length)

    def answer(self, record: int) -> str:
        """The right answer to the problem of a record."""
        return self._answers[self._order[record]]

    def fingerprint(self, field: str = f"{GROUP}.train") -> dict[str, Fingerprint]:
        """See `batch.Stream`: of prompts, answers and order, under the name of a field."""
        lengths = np.array([len(prompt) for prompt in self._prompts])
        tokens = np.concatenate([np.asarray(prompt, np.int32) for prompt in self._prompts])
        shape = np.array([self._sequence_length, self._pad])
        order = first_records(self._order, len(self))
        content = {
            "digest": digest([shape, order, lengths, tokens, *self._answers]),
            "problems": len(self),
            "tokens": len(tokens),
        }
        return {field: content}

    def beginning(self, count: int) -> Problems:
        """The first records, at most `count`, with their answers."""
        size = min(count, len(self))
        return Problems(self.batch(0, size), tuple(self.answer(k) for k in range(size)))


def _prompt_places(length: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Segments and positions of rows that hold a prompt of `length` [B, 1] tokens each."""
    place = np.arange(limit, dtype=np.int32)[None, :]
    inside = place < length
    return inside.astype(np.int32), np.where(inside, place, 0).astype(np.int32)


def problem_streams(
    *,
    train: str,
    evaluation: str = "",
    holdout_every: int = 20,
    form: ProblemFormat,
    ask: Callable[[str], str],
    tokenizer: Tokenizer,
    head: Sequence[int] = (),
    opening: int | None = None,
    sequence_length: int,
    seed: int = 0,
) -> tuple[ProblemStream | None, dict[str, ProblemStream], int]:
    """The training stream, the held-out ones by name, and how many problems were left out.

    Args:
      train: files, folders or globs, separated by commas; "" for no training.
      evaluation: held-out files in the same forms, each a stream with the file's name; "" holds
        out every `holdout_every`-th row of `train`, called "".
      holdout_every: rows of files.
      form: the columns.
      ask: the text before a response, of a prompt.
      tokenizer: gives ids.
      head: ids before every prompt.
      opening: the last token of every prompt, which the response begins with instead; None if the
        response has an opening of its own.
      sequence_length: T; prompts with T tokens or more are left out.
      seed: of the training order.

    Raises:
      UserError: files or rows that cannot be used, too few problems, none that is short enough.
    """
    skipped = 0

    def read(files: Sequence[str], field: str) -> tuple[list[np.ndarray], list[str]]:
        field = f"{GROUP}.{field}"
        ids, answers = _read(files, field, form, ask, tokenizer)
        prompts = [np.array([*head, *prompt]) for prompt in ids]
        if opening is not None:
            prompts = [_without(opening, prompt, field) for prompt in prompts]
        return prompts, answers

    def stream(
        problems: tuple[list[np.ndarray], list[str]], chosen: Sequence[int], what: str, train: bool
    ) -> ProblemStream:
        nonlocal skipped
        fits = [number for number in chosen if len(problems[0][number]) < sequence_length]
        if not fits:
            shortest = min(len(problems[0][number]) for number in chosen)
            raise UserError(
                f"no {what} fits in data.sequence_length={sequence_length} (the shortest has "
                f"{shortest} tokens, and one is needed after it): raise it"
            )
        skipped += len(chosen) - len(fits)
        prompts, answers = problems
        return ProblemStream(
            [prompts[number] for number in fits],
            [answers[number] for number in fits],
            shuffled(len(fits), seed) if train else spread(len(fits)),
            sequence_length=sequence_length,
            pad=tokenizer.pad,
        )

    held: dict[str, ProblemStream] = {}
    if evaluation:
        files = find_files(evaluation, f"{GROUP}.evaluation")
        if train:
            check_disjoint(find_files(train, f"{GROUP}.train"), files, GROUP)
        for name, file in zip(_names(files), files, strict=True):
            problems = read([file], "evaluation")
            every = range(len(problems[0]))
            held[name] = stream(problems, every, f"problem of {file}", train=False)
    if not train:
        return None, held, skipped
    problems = read(find_files(train, f"{GROUP}.train"), "train")
    kept: Sequence[int] = range(len(problems[0]))
    if not evaluation:
        kept, out = (x.tolist() for x in hold_out(len(kept), holdout_every, GROUP, "problems"))
        held[""] = stream(problems, out, f"held-out problem of {GROUP}.train", train=False)
    return stream(problems, kept, f"training problem of {GROUP}", train=True), held, skipped


def _names(paths: Sequence[str]) -> list[str]:
    """Names of files: without folder and ending; where several share one, with the folder.

    Raises:
      UserError: two files whose folders have the same name, too.
    """
    cut = lambda name: next((name.removesuffix(end) for end in ENDINGS if name.endswith(end)), name)
    short = [cut(PurePosixPath(path).name) for path in paths]
    folders = [PurePosixPath(path).parent.name for path in paths]
    names = [
        name if short.count(name) == 1 else f"{folder}-{name}"
        for name, folder in zip(short, folders, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{GROUP}.evaluation names two files {name}; rename one of them")
    return names


def _read(
    files: Sequence[str],
    field: str,
    form: ProblemFormat,
    ask: Callable[[str], str],
    tokenizer: Tokenizer,
) -> tuple[list[np.ndarray], list[str]]:
    """Ids of the prompts of files, and their answers."""
    prompts: list[np.ndarray] = []
    answers: list[str] = []
    with reading(files, field) as bar:
        rows = (form.problem(*row) for row in read_rows(files, form.columns, bar.update))
        for group in grouped(rows, lambda problem: len(problem[0])):
            answers += [answer for _, answer in group]
            prompts += tokenizer.encode_all([ask(text) for text, _ in group])
    if not prompts:
        raise UserError(f"{field}: no problems in {', '.join(files[:3])}")
    return prompts, answers


def _without(opening: int, prompt: np.ndarray, field: str) -> np.ndarray:
    """A prompt without its last token, with which the response begins."""
    if prompt[-1] != opening:
        raise UserError(
            f"{field}: a prompt ends with the token {prompt[-1]}, and the chat template "
            f"with {opening}; set {GROUP}.think=True"
        )
    return prompt[:-1]
