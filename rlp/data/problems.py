"""Streams of problems: prompts whose answers can be checked.

    files → problems → prompts and answers → rows → records

Rows without a problem or an answer, and rows whose answer no response could give so that it is
judged right, are left out and counted, up to a share (`unusable`). A row of a batch holds the
prompt alone, with the fork where the response begins. A prompt is never cut: one that is longer
than a row is left out and counted.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from rlp.answers.gold_answers import Golds
from rlp.answers.verifiers import Gold
from rlp.data.bounds import LIMITS, Limits
from rlp.data.corpus import grouped, hold_out, reading
from rlp.data.file_list import ENDINGS, check_disjoint, find_files
from rlp.data.order import shuffled, spread
from rlp.data.problem_format import GROUP, ProblemFormat
from rlp.data.problem_stream import ProblemStream
from rlp.data.sources import read_rows
from rlp.data.summary import Files, Summary, many
from rlp.data.unusable import Unusable
from rlp.runtime.display import listed
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer


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
    how = _Reader(
        form, ask, golds, tokenizer, head, opening, sequence_length, max_unusable_share, limits,
        seed,
    )  # fmt: skip
    held: dict[str, ProblemStream] = {}
    if evaluation:
        files = find_files(evaluation, f"{GROUP}.evaluation")
        if train:
            check_disjoint(find_files(train, f"{GROUP}.train"), files, GROUP)
        held = how.held_out(files)
    if not train:
        return None, held
    problems = how.read(find_files(train, f"{GROUP}.train"), "train")
    kept: Sequence[int] = range(len(problems.prompts))
    if not evaluation:
        kept, out = (x.tolist() for x in hold_out(len(kept), holdout_every, GROUP, "problems"))
        held[""] = how.stream(problems, out, f"held-out problem of {GROUP}.train", train=False)
    trained = how.stream(problems, kept, f"training problem of {GROUP}", train=True)
    problems.tell({"training": trained} | ({} if evaluation else {"held-out": held[""]}))
    return trained, held


@dataclasses.dataclass(frozen=True)
class _Reader:
    """How files become streams; fields as the arguments of `problem_streams`."""

    form: ProblemFormat
    ask: Callable[[str], str]
    golds: Golds
    tokenizer: Tokenizer
    head: Sequence[int]
    opening: int | None
    sequence_length: int
    max_unusable_share: float
    limits: Limits
    seed: int

    def held_out(self, files: Files) -> dict[str, ProblemStream]:
        """A stream of each file, by its name."""
        held: dict[str, ProblemStream] = {}
        for name, file in zip(_names(files), files, strict=True):
            one = Files([file])
            if not held:  # the line on the first file has what was passed over
                one.passed_over, one.unreadable = files.passed_over, files.unreadable
                one.special = files.special
            problems = self.read(one, "evaluation")
            every = range(len(problems.prompts))
            held[name] = self.stream(problems, every, f"problem of {file}", train=False)
            problems.tell({"held-out": held[name]})
        return held

    def read(self, files: Sequence[str], field: str) -> _Read:
        """The problems of some files; `field` is train or evaluation."""
        field = f"{GROUP}.{field}"
        ids, answers = [], []
        summary = Summary(field, files, self.max_unusable_share, "problems")
        with reading(files, field) as bar:
            for file in files:
                some = self._usable(file, field, summary.unusable, bar.update)
                for text, _ in some:
                    summary.count(file, len(text))
                for group in grouped(some, lambda problem: len(problem[0])):
                    answers += [answer for _, answer in group]
                    ids += self.tokenizer.encode_all([self.ask(text) for text, _ in group])
        summary.finish()
        if not ids:
            raise UserError(f"{field}: no problems in {listed(files)}", field=field)
        prompts = [np.array([*self.head, *prompt]) for prompt in ids]
        if self.opening is not None:
            prompts = [_without(self.opening, prompt, field) for prompt in prompts]
        return _Read(prompts, answers, summary)

    def stream(
        self, problems: _Read, chosen: Sequence[int], what: str, train: bool
    ) -> ProblemStream:
        """The stream of some problems, by number; `what` is what messages call them."""
        fits = [number for number in chosen if len(problems.prompts[number]) < self.sequence_length]
        if not fits:
            shortest = min(len(problems.prompts[number]) for number in chosen)
            raise UserError(
                f"no {what} fits in data.sequence_length={self.sequence_length} (the shortest has "
                f"{shortest} tokens, and one is needed after it): raise it",
                field="data.sequence_length",
                value=self.sequence_length,
            )
        return ProblemStream(
            [problems.prompts[number] for number in fits],
            [problems.answers[number] for number in fits],
            shuffled(len(fits), self.seed) if train else spread(len(fits)),
            sequence_length=self.sequence_length,
            pad=self.tokenizer.pad,
            skipped=len(chosen) - len(fits),
        )

    def _usable(
        self, file: str, field: str, unusable: Unusable, on_read: Callable[[int], object]
    ) -> list[tuple[str, Gold]]:
        """The problems of a file, with their answers; counts the rows that cannot be used.

        Raises:
          UserError: no row of the file can be used.
        """
        rows: list[tuple[str, tuple[str, Gold] | UserError]] = []
        for where, values in read_rows([file], self.form.columns, on_read, self.limits):
            try:
                rows.append((where, self.form.problem(where, values, self.golds.gold)))
            except UserError as error:
                rows.append((where, error))
        read = [row for _, row in rows if not isinstance(row, UserError)]
        wrong = iter(self.golds.reasons([answer for _, answer in read]))
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
                f"{field}: none of the {len(rows)} rows of {file} can be used; correct them, or "
                f"the fields that name their columns and {GROUP}.verifier: {reasons[0]}",
                field=field,
            )
        return usable


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
