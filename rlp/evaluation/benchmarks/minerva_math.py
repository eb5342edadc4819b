r"""Minerva's problems of undergraduate science (Lewkowycz et al., arXiv 2206.14858).

The file has solutions; the answer is the content of the last \boxed{…}.
"""

from collections.abc import Iterator
from pathlib import Path

from rlp.answers.strict_equality import strictly_equal
from rlp.evaluation.benchmarks.benchmark import Benchmark, Problem
from rlp.evaluation.benchmarks.competitions import PROMPTS
from rlp.evaluation.benchmarks.extractors import MATHEMATICS, last_box
from rlp.evaluation.benchmarks.files import read_table
from rlp.runtime.errors import UserError


def problems(path: Path) -> Iterator[Problem]:
    """Yield the problems of a file."""
    columns = {"question": ("problem",), "solution": ("solution", "reference_solution")}
    for number, row in enumerate(read_table(path, columns)):
        gold = (last_box(row.text("solution")) or "").strip()
        if not gold:
            raise UserError(f"{row.where}: column 'solution' has no answer in \\boxed{{…}}")
        yield Problem(str(number), row.text("question"), gold)


BENCHMARK = Benchmark(
    name="minerva_math",
    title="Minerva Math",
    group="math",
    size=272,
    file="minerva_math/test",
    source="github.com/QwenLM/Qwen2.5-Math, evaluation/data/minerva_math/test.jsonl",
    licence="MIT OpenCourseWare; CC BY-NC-SA",
    read=problems,
    prompts=PROMPTS,
    extractors=MATHEMATICS,
    equal=strictly_equal,
    max_tokens=4096,
)
