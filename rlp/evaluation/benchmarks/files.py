"""Find and read the files of benchmarks in a folder of the user.

A task names its file without the ending ("gsm8k/test"); `.jsonl`, `.parquet` and `.csv` files are
read, compressed JSON lines too. A file with a longer name, such as `mmlu/test_subset.parquet` or
`mmlu/test-00000-of-00001.parquet`, is used if it is the only one and no part of a larger one.
"""

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rlp.data.csv_records import csv_records
from rlp.data.sources import as_text, column_names, read_errors_named, read_rows
from rlp.evaluation.benchmarks.benchmark import LETTERS, Benchmark, Problem
from rlp.runtime import user_code
from rlp.runtime.errors import UserError

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".csv")
_PART = re.compile(r"(.+)-\d+-of-0*(\d+)(?:-\w+)?(\.[a-z.]+)")  # of a table, as on the hub


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a file.

    Attributes:
      where: its file and line or row, for messages.
      values: the value of each column that was asked for.
    """

    where: str
    values: Mapping[str, object]

    def text(self, name: str) -> str:
        """Return a value that must be a text with at least one visible character.

        Raises:
          UserError: If it is not.
        """
        text = as_text(self.where, name, self.values[name])
        if not text.strip():
            raise UserError(f"{self.where}: column {name!r} is empty")
        return text

    def answer(self, name: str) -> str:
        """Return an answer, which may be a number in the file."""
        value = self.values[name]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        return self.text(name).strip()

    def integer(self, name: str) -> int:
        """Return an answer that must be an integer, such as 25, "025" or 25.0.

        Raises:
          UserError: If it is not.
        """
        text = self.answer(name)
        try:
            return int(text.removesuffix(".0"))
        except ValueError as error:
            raise UserError(f"{self.where}: column {name!r} must be an integer") from error

    def choice(self, name: str, options: int) -> int:
        """Return the number of an option, from 0 on; the file has it as such, or as a letter.

        Raises:
          UserError: If it is not the number or the capital letter of one of `options` options.
        """
        text = self.answer(name)
        letters = LETTERS[:options]
        number = letters.find(text) if len(text) == 1 and text.isalpha() else self.integer(name)
        if not 0 <= number < options:
            raise UserError(f"{self.where}: column {name!r} is not one of the options {letters}")
        return number

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a value that must be a list of texts.

        Raises:
          UserError: If it is not, or is empty.
        """
        value = self.values[name]
        if not isinstance(value, list) or not value:
            raise UserError(f"{self.where}: column {name!r} must be a list of texts")
        return tuple(as_text(self.where, name, item) for item in value)


def read_table(path: Path, columns: Mapping[str, Sequence[str]]) -> Iterator[Row]:
    """Yield the rows of a file.

    Args:
      path: a file with an ending of `ENDINGS`.
      columns: names for the values, each with the columns of the file that may contain it; the
        first one that the file has is read.

    Raises:
      UserError: If the file cannot be read or has none of the columns of a name.
    """
    if path.suffix == ".csv":
        yield from _csv_table(path, columns)
        return
    chosen = _chosen(path, columns, column_names(str(path)))
    wanted = [(f"the task's column {name!r}", column) for name, column in chosen.items()]
    for where, values in read_rows([str(path)], wanted):
        yield Row(where, dict(zip(chosen, values, strict=True)))


def _csv_table(path: Path, columns: Mapping[str, Sequence[str]]) -> Iterator[Row]:
    with read_errors_named(str(path)):
        records = csv_records(str(path))
        known = next(records, ("", []))[1]
        chosen = _chosen(path, columns, known)
        index = {name: known.index(column) for name, column in chosen.items()}
        for where, cells in records:
            yield Row(where, {name: cells[number] for name, number in index.items()})


def _chosen(
    path: Path, columns: Mapping[str, Sequence[str]], known: Sequence[str]
) -> dict[str, str]:
    """Return the column of each name of a value.

    A message does not list the columns: those of a file without its header are the texts of a
    problem, which may be private.
    """
    chosen = {}
    for name, names in columns.items():
        found = [column for column in names if column in known]
        if not found:
            listed = " or ".join(map(repr, names))
            raise UserError(
                f"{path}: none of its {len(known)} columns is called {listed}; download it again, "
                "with the names of its columns, or rename the column"
            )
        chosen[name] = found[0]
    return chosen


@dataclasses.dataclass(frozen=True)
class ProblemSet:
    """The problems of a file.

    Attributes:
      benchmark: the task.
      path: the file.
      problems: all problems of the file, or a sample.
    """

    benchmark: Benchmark
    path: Path
    problems: tuple[Problem, ...]

    def sample(self, count: int) -> "ProblemSet":
        """Return at most `count` problems, evenly spread over the file; 0 for all."""
        total = len(self.problems)
        if not 0 < count < total:
            return self
        chosen = tuple(self.problems[index * total // count] for index in range(count))
        return dataclasses.replace(self, problems=chosen)

    @property
    def part(self) -> str:
        """What part of the public file the problems are, with the subjects; "" for all of it."""
        size, count = self.benchmark.size, len(self.problems)
        if count == size:
            return ""
        label = f"{count:,} of {size:,} problems"
        if not self.benchmark.subjects:
            return label
        groups = Counter(problem.group for problem in self.problems)
        each = ", ".join(f"{group} {number:,}" for group, number in sorted(groups.items()))
        return f"{label}; {len(groups)} of {self.benchmark.subjects} subjects: {each}"

    @property
    def digest(self) -> str:
        """A hash of the problems, which changes if any part of them does."""
        return hashlib.sha256(repr(self.problems).encode(errors="replace")).hexdigest()


def load(benchmark: Benchmark, folder: Path) -> ProblemSet:
    """Read the problems of a benchmark.

    Args:
      benchmark: the task.
      folder: the user's folder of data; a task without a file generates its problems.

    Raises:
      UserError: If the file is missing, has no rows, a row cannot be used, or the reader raises an
        error.
    """
    path = folder
    if benchmark.file:
        path = find_file(folder, benchmark.file, benchmark.name, benchmark.source)
    with user_code.running(
        f"the reader of task {benchmark.name}", user_code.file_of(benchmark.read.__module__)
    ):
        problems = tuple(benchmark.read(path))
    if not problems:
        raise UserError(f"{path}: no problems; download it again from {benchmark.source}")
    _check_ids(path, problems)
    return ProblemSet(benchmark, path, problems)


def _check_ids(path: Path, problems: Sequence[Problem]) -> None:
    """Raise UserError, without the id, which may be a private text, if two problems share one."""
    first: dict[str, int] = {}
    for number, problem in enumerate(problems, 1):
        if first.setdefault(problem.id, number) != number:
            raise UserError(
                f"{path}: problems {first[problem.id]} and {number} have the same id; ids must be "
                "unique"
            )


def find_file(folder: Path, stem: str, task: str, source: str) -> Path:
    """Return the file of a task; the folder of this name, if there is one and no file.

    Args:
      folder: the user's folder of data.
      stem: path of the file below the folder, without the ending.
      task: name of the task, for messages.
      source: where the public file is, for messages.

    Raises:
      UserError: If there is no such file, there are several, or it is one of several parts.
    """
    exact = [path for end in ENDINGS if (path := folder / f"{stem}{end}").is_file()]
    parent, name = (folder / stem).parent, Path(stem).name
    similar = [
        path
        for path in sorted(parent.glob(f"{name}[-_]*"))
        if path.is_file() and path.name.endswith(ENDINGS)
    ]
    found = exact or similar
    if not found and (folder / stem).is_dir():
        return folder / stem
    if not found:
        raise UserError(
            f"{task}: no file {folder / stem}.jsonl (or .parquet or .csv); get it from {source}"
        )
    part = _PART.fullmatch(found[0].name)
    if part and part[2] != "1":
        raise UserError(
            f"{task}: {found[0]} is one of {part[2]} parts; join them all, in order, into one file "
            f"{folder / stem}{part[3]}"
        )
    if len(found) > 1:
        names = " and ".join(path.name for path in found[:2])
        raise UserError(f"{task}: {parent} has both {names}; keep one of them")
    return found[0]
