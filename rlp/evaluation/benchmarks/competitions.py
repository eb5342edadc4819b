"""Competition problems whose files have one problem and one answer in a row."""

from collections.abc import Iterator
from pathlib import Path

from rlp.answers.strict_equality import strictly_equal
from rlp.evaluation.benchmarks.benchmark import Benchmark, Problem
from rlp.evaluation.benchmarks.extractors import MATHEMATICS
from rlp.evaluation.benchmarks.files import read_table
from rlp.evaluation.benchmarks.mathematics import COMPETITION_PROBLEMS, mathematics_prompts

PROMPTS = mathematics_prompts(COMPETITION_PROBLEMS)
_QUESTION, _ANSWER = ("problem", "question"), ("expected_answer", "answer")


def problems(path: Path) -> Iterator[Problem]:
    """Yield the problems of a file with an answer in each row, which may be a number."""
    for number, row in enumerate(read_table(path, {"question": _QUESTION, "answer": _ANSWER})):
        yield Problem(str(number), row.text("question"), row.answer("answer"))


def integer_problems(path: Path) -> Iterator[Problem]:
    """Yield problems whose answers are integers, written in files as 25, "025" or 25.0."""
    for number, row in enumerate(read_table(path, {"question": _QUESTION, "answer": _ANSWER})):
        yield Problem(str(number), row.text("question"), str(row.integer("answer")))


def aime(year: int, source: str) -> Benchmark:
    """Return the benchmark of the two AIME contests of a year."""
    return Benchmark(
        name=f"aime{year % 100}",
        title=f"AIME {year}",
        group="math",
        size=30,
        file=f"aime{year % 100}/test",
        source=source,
        licence="competition problems of the MAA; not to be redistributed",
        read=integer_problems,
        prompts=PROMPTS,
        extractors=MATHEMATICS,
        equal=strictly_equal,
        max_tokens=16_384,
        runs=8,
    )
