r"""MMLU-Pro: 14 subjects with up to ten options (Wang et al., arXiv 2406.01574).

Solved problems are the validation file of the data set, or `mmlu_pro/fewshot_cot.jsonl` with rows
as in NeMo-Skills: `problem` ends with the lines of `options`, and `solution` with "The answer is
\boxed{A}."
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rlp.evaluation.benchmarks.benchmark import LETTERS, Benchmark, Example, Problem
from rlp.evaluation.benchmarks.choices import choice_prompts, letter_scoring
from rlp.evaluation.benchmarks.extractors import CHOICES, last_box
from rlp.evaluation.benchmarks.files import find_file, read_table
from rlp.runtime.errors import UserError

SOURCE = "huggingface.co/datasets/TIGER-Lab/MMLU-Pro"
_COLUMNS = {
    "id": ("question_id",),
    "subject": ("category",),
    "question": ("question",),
    "options": ("options",),
    "answer": ("answer",),
}
_REASONS = {"reasons": ("cot_content",)}
_SKILLS = {
    "subject": ("category", "topic"),
    "problem": ("problem",),
    "options": ("options",),
    "solution": ("solution",),
}
_BEGIN = re.compile(r"^A: Let's think step by step\.\s*")
_END = re.compile(r"\s*The answer is (?:\([A-J]\)|\\boxed\{[A-J]\})\.?\s*$")


def problems(path: Path) -> Iterator[Problem]:
    """Yield the problems of a file."""
    return (example.problem for example in _examples(path, _COLUMNS))


def validation_examples(folder: Path) -> Sequence[Example]:
    """Return the solved problems of the user's file, five of each subject."""
    if (path := folder / "mmlu_pro" / "fewshot_cot.jsonl").is_file():
        return list(_skills_examples(path))
    path = find_file(folder, "mmlu_pro/validation", "mmlu_pro", SOURCE)
    return list(_examples(path, _COLUMNS | _REASONS))


def _examples(path: Path, columns: Mapping[str, Sequence[str]]) -> Iterator[Example]:
    for row in read_table(path, columns):
        options = row.texts("options")
        problem = Problem(
            row.answer("id"),
            row.text("question"),
            LETTERS[row.choice("answer", len(options))],
            options,
            row.text("subject").replace(" ", "_"),
        )
        reasons = row.text("reasons") if "reasons" in columns else ""
        yield Example(problem, _END.sub("", _BEGIN.sub("", reasons)))


def _skills_examples(path: Path) -> Iterator[Example]:
    for number, row in enumerate(read_table(path, _SKILLS)):
        options, solution = row.text("options"), row.text("solution")
        gold = last_box(solution)
        if gold is None:
            raise UserError(f"{row.where}: column 'solution' has no answer in \\boxed{{…}}")
        texts = tuple(line[len("A. ") :] for line in options.split("\n"))
        question = row.text("problem").removesuffix(options)
        subject = row.text("subject").replace(" ", "_")
        yield Example(Problem(str(number), question, gold, texts, subject), _END.sub("", solution))


BENCHMARK = Benchmark(
    name="mmlu_pro",
    title="MMLU-Pro",
    group="science",
    size=12_032,
    file="mmlu_pro/test",
    source=SOURCE,
    licence="MIT",
    read=problems,
    prompts=choice_prompts(10, validation_examples, shots=5, boxed=False),
    extractors=CHOICES,
    max_tokens=2048,
    options=(letter_scoring(validation_examples, shots=5), letter_scoring()),
    subjects=14,
)
