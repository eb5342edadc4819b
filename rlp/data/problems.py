"""Streams of problems: prompts whose answers can be checked.

    files → problems → prompts and answers → rows → records

Rows without a problem or an answer, and rows whose answer no response could give so that it is
judged right, are left out and counted, up to a share (`unusable`). A row of a batch holds the
prompt alone, with the fork where the response begins. A prompt is never cut: one that is longer
than a row is left out and counted.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from rlp.answers.gold_answers import Golds
from rlp.answers.verifiers import Gold
from rlp.data.batch import Batch, Problems
from rlp.data.bounds import LIMITS, Limits
from rlp.data.corpus import grouped, hold_out, reading
from rlp.data.fingerprint import digest, first_records
from rlp.data.sources import ENDINGS, Column, as_text, find_files, read_rows
from rlp.data.summary import Files, Summary, many
from rlp.data.text import check_disjoint
from rlp.data.text_stream import shuffled, spread
from rlp.data.unusable import Unusable
from rlp.runtime.display import listed
from rlp.runtime.errors import UserError
from rlp.runtime.fingerprints import Fingerprint
from rlp.tokenizers.tokenizer import Tokenizer

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

    def problem(
        self,
        where: str,
        values: Sequence[object],
        gold: Callable[[str | int | float, Sequence[str] | None], Gold],
    ) -> tuple[str, Gold]:
        """The prompt and the answer of a row.

        Args:
          where: the row stands, for messages of errors.
          values: of `columns`.
          gold: makes the answer of its value and the texts of the options, see `Golds.gold`.

        Raises:
          UserError: a value of another kind, an answer without the marker, an empty one, one that
            cannot be right.
        """
        text = as_text(where, self.prompt, values[0])
        answer = self._answer(where, values[1])
        if not text.strip():
            raise UserError(f"{where}: column {self.prompt!r} holds no problem")
        options = self._options(where, values[2]) if self.options else None
        try:
            right = gold(answer, options)
        except UserError as error:
            raise UserError(f"{where}: its answer {error}") from error
        lines = [f"{chr(ord('A') + n)}. {option}" for n, option in enumerate(options or ())]
        return self.instruction.replace(PROBLEM, "\n".join([text, *lines])), right

    def _answer(self, where: str, value: object) -> str | int | float:
        """The value of an answer, without what stands before the marker."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value):  # a missing number, as pandas writes it
                raise UserError(f"{where}: column {self.answer!r} holds no answer but {value}")
            if not self.marker:
                return value
            value = str(value)
        text = as_text(where, self.answer, value)
        if self.marker:
            _, found, text = text.rpartition(self.marker)
            if not found:
                raise UserError(
                    f"{where}: column {self.answer!r} has no {self.marker!r}, after which "
                    f"{GROUP}.answer_marker says that the answer stands"
                )
        if not text.strip():
            raise UserError(f"{where}: column {self.answer!r} holds no answer")
        return text.strip()

    def _options(self, where: str, values: object) -> list[str]:
        if not isinstance(values, list):
            as_text(where, self.options, values)  # says what there is, where it is not even a text
        if not isinstance(values, list) or not 0 < len(values) <= 26:
            raise UserError(f"{where}: column {self.options!r} is not a list of up to 26 options")
        return [as_text(where, self.options, value) for value in values]


class ProblemStream:
    """Prompts by record number; endless and shuffled, or one pass."""

    def __init__(
        self,
        prompts: Sequence[np.ndarray],
        answers: Sequence[Gold],
        order: Sequence[int],
        *,
        sequence_length: int,
        pad: int,
        skipped: int = 0,
    ) -> None:
        """A stream over problems.

        Args:
          prompts: ids of each, fewer than T.
          answers: of each.
          order: number of the problem of each record.
          sequence_length: T, tokens of a row.
          pad: id that fills a row.
          skipped: number of problems that were left out because they are too long.
        """
        self._prompts, self._answers, self._order = prompts, answers, order
        self._sequence_length, self._pad = sequence_length, pad
        self.records_per_epoch: int | None = len(prompts)
        self.skipped = skipped

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

    def answer(self, record: int) -> Gold:
        """The right answer to the problem of a record."""
        return self._answers[self._order[record]]

    def fingerprint(self, field: str = f"{GROUP}.train") -> dict[str, Fingerprint]:
        """See `batch.Stream`: of prompts, answers and order, under the name of a field."""
        lengths = np.array([len(prompt) for prompt in self._prompts])
        tokens = np.concatenate([np.asarray(prompt, np.int32) for prompt in self._prompts])
        options = [answer.options for answer in self._answers]
        shape = np.array([self._sequence_length, self._pad, *options])
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


@dataclasses.dataclass(frozen=True)
class _Read:
    """The problems of some files.

    Attributes:
      prompts: ids of each.
      answers: to each.
      summary: of the files.
    """

    prompts: list[np.ndarray]
    answers: list[Gold]
    summary: Summary

    def tell(self, streams: Mapping[str, ProblemStream]) -> None:
        """Logs the line on these files; `streams` are those made of them, by what they are for."""
        rows = []
        for name, stream in streams.items():
            reason = "data.sequence_length tokens or more"
            left_out = f", {stream.skipped:,} left out ({reason})" if stream.skipped else ""
            rows.append(f"{many(len(stream), f'{name} problems')}{left_out}")
        self.summary.tell(sum(map(len, self.prompts)), "; ".join(rows))


def problem_streams(
    *,
    train: str,
    evaluation: str = "",
    holdout_every: int = 20,
    form: ProblemFormat,
    ask: Callable[[str], str],
    golds: Golds,
    tokenizer: Tokenizer,
    head: Sequence[int] = (),
    opening: int | None = None,
    sequence_length: int,
    max_unusable_share: float = 0.2,
    limits: Limits = LIMITS,
    seed: int = 0,
) -> tuple[ProblemStream | None, dict[str, ProblemStream]]:
    """The training stream, and the held-out ones by name.

    Args:
      train: files, folders or globs, separated by commas; "" for no training.
      evaluation: held-out files in the same forms, each a stream with the file's name; "" holds
        out every `holdout_every`-th row of `train`, called "".
      holdout_every: rows of files.
      form: the columns.
      ask: the text before a response, of a prompt.
      golds: makes and checks the right answers.
      tokenizer: gives ids.
      head: ids before every prompt.
      opening: the last token of every prompt, which the response begins with instead; None if the
        response has an opening of its own.
      sequence_length: T; prompts with T tokens or more are left out.
      max_unusable_share: largest share of rows that may be left out because they cannot be used.
      limits: of what is read of files.
      seed: of the training order.

    Raises:
      UserError: files that cannot be read, a file without a row that can be used, too many rows
        that cannot be used, too few problems, none that is short enough.
    """

    def read(files: Sequence[str], field: str) -> _Read:
        field = f"{GROUP}.{field}"
        ids, answers = [], []
        summary = Summary(field, files, max_unusable_share, "problems")
        with reading(files, field) as bar:
            for file in files:
                some = _usable(file, field, form, golds, summary.unusable, bar.update, limits)
                for text, _ in some:
                    summary.count(file, len(text))
                for group in grouped(some, lambda problem: len(problem[0])):
                    answers += [answer for _, answer in group]
                    ids += tokenizer.encode_all([ask(text) for text, _ in group])
        summary.finish()
        if not ids:
            raise UserError(f"{field}: no problems in {listed(files)}", field=field)
        prompts = [np.array([*head, *prompt]) for prompt in ids]
        if opening is not None:
            prompts = [_without(opening, prompt, field) for prompt in prompts]
        return _Read(prompts, answers, summary)

    def stream(problems: _Read, chosen: Sequence[int], what: str, train: bool) -> ProblemStream:
        fits = [number for number in chosen if len(problems.prompts[number]) < sequence_length]
        if not fits:
            shortest = min(len(problems.prompts[number]) for number in chosen)
            raise UserError(
                f"no {what} fits in data.sequence_length={sequence_length} (the shortest has "
                f"{shortest} tokens, and one is needed after it): raise it",
                field="data.sequence_length",
                value=sequence_length,
            )
        return ProblemStream(
            [problems.prompts[number] for number in fits],
            [problems.answers[number] for number in fits],
            shuffled(len(fits), seed) if train else spread(len(fits)),
            sequence_length=sequence_length,
            pad=tokenizer.pad,
            skipped=len(chosen) - len(fits),
        )

    held: dict[str, ProblemStream] = {}
    if evaluation:
        files = find_files(evaluation, f"{GROUP}.evaluation")
        if train:
            check_disjoint(find_files(train, f"{GROUP}.train"), files, GROUP)
        for name, file in zip(_names(files), files, strict=True):
            one = Files([file])
            if not held:  # the line on the first file has what was passed over
                one.passed_over, one.unreadable = files.passed_over, files.unreadable
                one.special = files.special
            problems = read(one, "evaluation")
            every = range(len(problems.prompts))
            held[name] = stream(problems, every, f"problem of {file}", train=False)
            problems.tell({"held-out": held[name]})
    if not train:
        return None, held
    problems = read(find_files(train, f"{GROUP}.train"), "train")
    kept: Sequence[int] = range(len(problems.prompts))
    if not evaluation:
        kept, out = (x.tolist() for x in hold_out(len(kept), holdout_every, GROUP, "problems"))
        held[""] = stream(problems, out, f"held-out problem of {GROUP}.train", train=False)
    trained = stream(problems, kept, f"training problem of {GROUP}", train=True)
    problems.tell({"training": trained} | ({} if evaluation else {"held-out": held[""]}))
    return trained, held


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


def _usable(
    file: str,
    field: str,
    form: ProblemFormat,
    golds: Golds,
    unusable: Unusable,
    on_read: Callable[[int], object],
    limits: Limits,
) -> list[tuple[str, Gold]]:
    """The problems of a file, with their answers; counts the rows that cannot be used.

    Raises:
      UserError: no row of the file can be used.
    """
    rows: list[tuple[str, tuple[str, Gold] | UserError]] = []
    for where, values in read_rows([file], form.columns, on_read, limits):
        try:
            rows.append((where, form.problem(where, values, golds.gold)))
        except UserError as error:
            rows.append((where, error))
    read = [row for _, row in rows if not isinstance(row, UserError)]
    wrong = iter(golds.reasons([answer for _, answer in read]))
    usable, reasons = [], []
    for where, row in rows:
        reason = None if isinstance(row, UserError) else next(wrong)
        if isinstance(row, UserError):
            reasons.append(str(row))
        elif reason is not None:
            reasons.append(f"{where}: {reason}")
        else:
            usable.append(row)
            unusable.count()
            continue
        unusable.count(reasons[-1])
    if reasons and not usable:
        raise UserError(
            f"{field}: none of the {len(rows)} rows of {file} can be used; correct them, or the "
            f"fields that name their columns and {GROUP}.verifier: {reasons[0]}",
            field=field,
        )
    return usable


def _without(opening: int, prompt: np.ndarray, field: str) -> np.ndarray:
    """A prompt without its last token, with which the response begins."""
    if prompt[-1] != opening:
        raise UserError(
            f"{field}: a prompt ends with the token {prompt[-1]}, and the chat template "
            f"with {opening}; set {GROUP}.think=True",
            field=f"{GROUP}.think",
            value=False,
        )
    return prompt[:-1]
