"""MMLU: 57 subjects with four options (Hendrycks et al., arXiv 2009.03300)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlp.data.csv_records import csv_records
from rlp.evaluation.benchmarks.benchmark import LETTERS, Benchmark, Example, Problem
from rlp.evaluation.benchmarks.choices import choice_prompts, letter_scoring
from rlp.evaluation.benchmarks.extractors import CHOICES
from rlp.evaluation.benchmarks.files import find_file, read_table
from rlp.runtime.errors import UserError

SOURCE = "people.eecs.berkeley.edu/~hendrycks/data.tar, or huggingface.co/datasets/cais/mmlu"
_COLUMNS = {
    "subject": ("subject", "subtopic"),
    "question": ("question",),
    "choices": ("choices",),
    "answer": ("answer", "expected_answer"),
}


def problems(path: Path) -> Iterator[Problem]:
    """Yield the problems of a file, whose answers are letters or numbers from 0 on, or of a folder
    of the original files, one of each subject."""
    if path.is_dir():
        for file in sorted(path.glob("*.csv")):
            yield from _original(file)
        return
    counts: Counter[str] = Counter()
    for row in read_table(path, _COLUMNS):
        subject, options = row.text("subject"), row.texts("choices")
        gold = LETTERS[row.choice("answer", len(options))]
        counts[subject] += 1
        name = f"{subject}-{counts[subject] - 1}"
        yield Problem(name, row.text("question"), gold, options, subject)


def _original(path: Path) -> Iterator[Problem]:
    """Yield the problems of a file such as abstract_algebra_test.csv, which has no header."""
    subject = path.stem.rpartition("_")[0]
    for number, (where, cells) in enumerate(csv_records(str(path))):
        question, *options, gold = cells
        if len(options) != 4 or gold not in LETTERS[:4]:
            raise UserError(f"{where}: must be a question, four options and a letter from A to D")
        yield Problem(f"{subject}-{number}", question, gold, tuple(options), subject)


def development_examples(folder: Path) -> Sequence[Example]:
    """Return the problems of the user's development file, five of each subject."""
    path = find_file(folder, "mmlu/dev", "mmlu", SOURCE)
    return [Example(problem) for problem in problems(path)]


BENCHMARK = Benchmark(
    name="mmlu",
    title="MMLU",
    group="science",
    size=14_042,
    file="mmlu/test",
    source=SOURCE,
    licence="MIT",
    read=problems,
    prompts=choice_prompts(4, development_examples, shots=5, boxed=True),
    extractors=CHOICES,
    max_tokens=1024,
    options=(letter_scoring(development_examples, shots=5), letter_scoring()),
    subjects=57,
)
