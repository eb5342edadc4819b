"""Streams of problems: prompts with gold answers that a verifier can check.

    files → problems → prompts and answers → rows → records

Rows without a problem or an answer, and rows whose gold answer the verifier would not accept even
as a response, are skipped and counted, up to a share (`unusable`). A row of a batch contains the
prompt alone, with the fork where the response begins. A prompt is never truncated: one that is
longer than a row is left out and counted.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from rlp.answers.gold_answers import GoldAnswers
from rlp.answers.verifiers import Gold
from rlp.answers.verifiers.gym import PREFIX, Name, check_apart
from rlp.data.bounds import LIMITS, Limits
from rlp.data.corpus import grouped, hold_out, reading
from rlp.data.file_list import ENDINGS, check_disjoint
from rlp.data.generated import entries, sources
from rlp.data.order import shuffled, spread
from rlp.data.overlap import Overlaps
from rlp.data.problem_format import GROUP, ProblemFormat
from rlp.data.problem_stream import ProblemStream
from rlp.data.sources import read_rows
from rlp.data.summary import Files, Summary, plural
from rlp.data.unusable import Unusable
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

_Row = tuple[str, tuple[str, Gold] | UserError]  # location, and problem with its gold answer


@dataclasses.dataclass(frozen=True)
class _Read:
    """The problems of some files.

    Attributes:
      prompts: ids of each prompt.
      answers: gold answer to each prompt.
      summary: counts for the files.
    """

    prompts: list[np.ndarray]
    answers: list[Gold]
    summary: Summary

    def log(self, streams: Mapping[str, ProblemStream]) -> None:
        """Log the line for these files; `streams` are "training" and "held-out" streams of them."""
        rows = []
        for name, stream in streams.items():
            reason = "data.sequence_length tokens or more"
            left_out = f", left out: {stream.skipped:,} ({reason})" if stream.skipped else ""
            rows.append(f"{plural(len(stream), f'{name} problems')}{left_out}")
        self.summary.log(sum(map(len, self.prompts)), "; ".join(rows))


def problem_streams(
    *,
    train: str,
    evaluation: str = "",
    holdout_every: int = 20,
    form: ProblemFormat,
    ask: Callable[[str], str],
    gold_answers: GoldAnswers,
    tokenizer: Tokenizer,
    head: Sequence[int] = (),
    opening: int | None = None,
    sequence_length: int,
    max_unusable_share: float = 0.2,
    limits: Limits = LIMITS,
    seed: int = 0,
    exclude: Overlaps | None = None,
) -> tuple[ProblemStream | None, dict[str, ProblemStream]]:
    """Return the training stream, and the held-out streams by name.

    Args:
      train: files, folders, globs or names of generated datasets, separated by commas; "" for no
        training.
      evaluation: held-out files in the same form, each of which becomes a stream with the name of
        the file or dataset; "" holds out every `holdout_every`-th row of `train`, as a stream named
        "".
      holdout_every: one row of the files in this many is held out.
      form: the columns.
      ask: converts a problem to the text before a response.
      gold_answers: converts and checks the gold answers.
      tokenizer: encodes the texts.
      head: ids before every prompt.
      opening: the last token of every prompt, which is moved to the beginning of the response; None
        if prompts do not end with the opening of the response.
      sequence_length: T; prompts with T or more tokens are left out.
      max_unusable_share: maximum share of rows that may be skipped because they are unusable.
      limits: limits on rows and decompression.
      seed: seed of the training order.
      exclude: leaves out the problems of `train` that overlap with these problems.

    Raises:
      UserError: If a file cannot be read or has no usable row, too many rows are unusable, there
        are too few problems, or none is short enough.
    """
    reader = _Reader(
        form, ask, gold_answers, tokenizer, head, opening, sequence_length, max_unusable_share,
        limits, seed, exclude,
    )  # fmt: skip
    held: dict[str, ProblemStream] = {}
    if evaluation:
        held_files, held_names = sources(evaluation, f"{GROUP}.evaluation")
        if train:
            files, names = sources(train, f"{GROUP}.train")
            check_disjoint(files, held_files, GROUP)
            check_apart(names, held_names, f"{GROUP}.train", f"{GROUP}.evaluation")
        held = reader.held_out(held_files, held_names)
    if not train:
        return None, held
    problems = reader.read(*sources(train, f"{GROUP}.train"), "train")
    numbers: Sequence[int] = range(len(problems.prompts))
    if not evaluation:
        split = hold_out(len(numbers), holdout_every, GROUP, "problems")
        numbers, held_numbers = (part.tolist() for part in split)
        what = f"held-out problem of {GROUP}.train"
        held[""] = reader.stream(problems, held_numbers, what, train=False)
    train_stream = reader.stream(problems, numbers, f"training problem of {GROUP}", train=True)
    problems.log({"training": train_stream} | ({} if evaluation else {"held-out": held[""]}))
    return train_stream, held


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads files and creates streams; the fields are the arguments of `problem_streams`."""

    form: ProblemFormat
    ask: Callable[[str], str]
    gold_answers: GoldAnswers
    tokenizer: Tokenizer
    head: Sequence[int]
    opening: int | None
    sequence_length: int
    max_unusable_share: float
    limits: Limits
    seed: int
    exclude: Overlaps | None

    def held_out(self, files: Files, names: Sequence[Name]) -> dict[str, ProblemStream]:
        """Return a stream for each file and generated dataset, by its name."""
        held: dict[str, ProblemStream] = {}
        for name, file in zip(_names(files), files, strict=True):
            single = Files([file])
            if not held:  # the log line of the first file reports the skipped files
                single.skipped, single.unreadable = files.skipped, files.unreadable
                single.special = files.special
            held[name] = self._held_out(self.read(single, [], "evaluation"), file)
        for dataset in names:
            name = _name_of(dataset, names, held)
            held[name] = self._held_out(self.read([], [dataset], "evaluation"), str(dataset))
        return held

    def _held_out(self, problems: _Read, source: str) -> ProblemStream:
        """Return the stream of all problems of a source, and log it."""
        numbers = range(len(problems.prompts))
        stream = self.stream(problems, numbers, f"problem of {source}", train=False)
        problems.log({"held-out": stream})
        return stream

    def read(self, files: Sequence[str], names: Sequence[Name], field: str) -> _Read:
        """Read the problems of some files and generated datasets; `field` is "train" or
        "evaluation"."""
        exclude = self.exclude if field == "train" else None
        field = f"{GROUP}.{field}"
        ids, answers = [], []
        summary = Summary(field, files, self.max_unusable_share, "problems")
        every: list[str | Name] = [*files, *names]
        with reading(files, field) as bar:
            for source in every:
                rows = list(self._rows(source, field, bar.update))
                problems = self._usable_problems(str(source), rows, field, summary.unusable)
                usable = [p for p in problems if exclude is None or not exclude.find(p[0])]
                summary.overlapping += len(problems) - len(usable)
                for text, _ in usable:
                    summary.count(str(source), len(text))
                for group in grouped(usable, lambda problem: len(problem[0])):
                    answers += [answer for _, answer in group]
                    ids += self.tokenizer.encode_all([self.ask(text) for text, _ in group])
        summary.finish()
        if not ids:
            wanted = "rows that do not overlap with them" if summary.overlapping else "rows"
            out = " outside data.exclude_overlaps" if summary.overlapping else ""
            raise UserError(
                f"{field}: no problems{out} in {summary.named()}; set it to files with {wanted}",
                field=field,
            )
        prompts = [np.array([*self.head, *prompt]) for prompt in ids]
        if self.opening is not None:
            prompts = [_remove_opening(self.opening, prompt, field) for prompt in prompts]
        return _Read(prompts, answers, summary)

    def stream(
        self, problems: _Read, numbers: Sequence[int], what: str, train: bool
    ) -> ProblemStream:
        """Return the stream of the problems with some numbers; messages call a problem `what`."""
        lengths = {number: len(problems.prompts[number]) for number in numbers}
        fits = [number for number in numbers if lengths[number] < self.sequence_length]
        if not fits:
            raise UserError(
                f"no {what} fits in data.sequence_length={self.sequence_length} (the shortest has "
                f"{min(lengths.values())} tokens, and the response needs at least one): raise it",
                field="data.sequence_length",
                value=self.sequence_length,
            )
        return ProblemStream(
            [problems.prompts[number] for number in fits],
            [problems.answers[number] for number in fits],
            shuffled(len(fits), self.seed) if train else spread(len(fits)),
            sequence_length=self.sequence_length,
            pad=self.tokenizer.pad,
            skipped=len(numbers) - len(fits),
        )

    def _rows(
        self, source: str | Name, field: str, on_read: Callable[[int], object]
    ) -> Iterator[_Row]:
        """Yield location and problem of each row of a file or generated dataset, or why it cannot
        be used."""
        gold = self.gold_answers.gold
        if isinstance(source, Name):
            for number, (question, answer) in enumerate(entries(source, field)):
                where = f"{source}, entry {number}"
                try:
                    yield where, self.form.asked(where, question, answer, None, gold)
                except UserError as error:
                    yield where, error
            return
        for where, values in read_rows([source], self.form.columns, on_read, self.limits):
            try:
                yield where, self.form.problem(where, values, gold)
            except UserError as error:
                yield where, error

    def _usable_problems(
        self, source: str, rows: Sequence[_Row], field: str, unusable: Unusable
    ) -> list[tuple[str, Gold]]:
        """Return the problems of a source with their gold answers, and count the unusable rows.

        Raises:
          UserError: If no row of the source can be used.
        """
        problems = [row for _, row in rows if not isinstance(row, UserError)]
        rejections = iter(self.gold_answers.reasons([answer for _, answer in problems]))
        usable, reasons = [], []
        for where, row in rows:
            reason = None if isinstance(row, UserError) else next(rejections)
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
                f"{field}: none of the {len(rows)} rows of {source} can be used; correct the rows, "
                f"the fields that name the columns, or {GROUP}.verifier: {reasons[0]}",
                field=field,
            )
        return usable


def _names(paths: Sequence[str]) -> list[str]:
    """Return the names of files without ending; names that occur twice get their folder's prefix.

    Raises:
      UserError: If two files have the same name and folder name.
    """
    stem = lambda name: next((name.removesuffix(x) for x in ENDINGS if name.endswith(x)), name)
    stems = [stem(PurePosixPath(path).name) for path in paths]
    folders = [PurePosixPath(path).parent.name for path in paths]
    names = [
        name if stems.count(name) == 1 else f"{folder}-{name}"
        for name, folder in zip(stems, folders, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"{GROUP}.evaluation contains two files named {name}; rename one of them"
            )
    return names


def _name_of(name: Name, names: Sequence[Name], files: Collection[str]) -> str:
    """Return how metrics call a generated dataset: with its options if others of `names`, or one of
    the names of files, are called like it."""
    same = [other for other in names if other.dataset == name.dataset]
    alone = len(same) == 1 and name.dataset not in files
    return name.dataset if alone else str(name).removeprefix(PREFIX)


def _remove_opening(opening: int, prompt: np.ndarray, field: str) -> np.ndarray:
    """Remove the last token of a prompt, which becomes the first of the response."""
    if prompt[-1] != opening:
        raise UserError(
            f"{field}: a prompt ends with token {prompt[-1]} instead of {opening}, with which the "
            f"chat template opens a thought; set {GROUP}.think=True",
            field=f"{GROUP}.think",
            value=False,
        )
    return prompt[:-1]
