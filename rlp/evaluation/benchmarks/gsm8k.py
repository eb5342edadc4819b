"""GSM8K: word problems of primary school (Cobbe et al., arXiv 2110.14168)."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlp.answers.strict_equality import strictly_equal
from rlp.evaluation.benchmarks.benchmark import Benchmark, Example, Problem, Prompt
from rlp.evaluation.benchmarks.extractors import HASHES, MATHEMATICS, after_hashes
from rlp.evaluation.benchmarks.files import find_file, read_table
from rlp.evaluation.benchmarks.mathematics import WORD_PROBLEMS, mathematics_prompts
from rlp.runtime.errors import UserError

SOURCE = "github.com/openai/grade-school-math, grade_school_math/data"
_CALCULATION = re.compile(r"<<.*?>>")
# Answers that NeMo-Skills corrects, by the first digits of SHA-256 of the question; all of them are
# in the training file.
CORRECTED = {
    "4062372e21d99043": "10750",
    "445d153492ea0420": "10",
    "e9a757e9375878be": "2740",
    "b7632ee41494461c": "15",
    "549d4ecc6508ca01": "19200",
    "8c3672013cff1d10": "64",
    "ac6cadd41416c941": "108",
    "18d0c8784a9a73c9": "531000",
    "d7f6e3a7def173ea": "6",
    "c7ca4f35d37d1139": "13",
    "6e7a1645b42e32b9": "07:30",
}


def solved(path: Path) -> Iterator[Example]:
    """Yield the problems of a file with their solutions, without the annotated calculations."""
    columns = {"question": ("question",), "answer": ("answer",)}
    for number, row in enumerate(read_table(path, columns)):
        question = row.text("question")
        solution, found, answer = row.text("answer").rpartition("####")
        try:
            value = float(answer.replace(",", "") if found else "")
        except ValueError as error:
            raise UserError(f"{row.where}: column 'answer' has no number after '####'") from error
        key = hashlib.sha256(question.encode()).hexdigest()[:16]
        gold = CORRECTED.get(key, str(int(value) if value.is_integer() else value))
        problem = Problem(f"{path.name.partition('.')[0]}-{number}", question, gold)
        yield Example(problem, _CALCULATION.sub("", solution).strip())


def problems(path: Path) -> Iterator[Problem]:
    """Yield the problems of a file."""
    return (example.problem for example in solved(path))


def training_examples(folder: Path) -> Sequence[Example]:
    """Return the problems of the user's training file."""
    return list(solved(find_file(folder, "gsm8k/train", "gsm8k", SOURCE)))


HARNESS = Prompt(
    name="harness-gsm8k",
    date="2026-08",
    source="EleutherAI/lm-evaluation-harness 0.4.13, gsm8k, with the first training problems",
    text="{examples}Question: {problem}\nAnswer:",
    chat=False,
    extractor=HASHES.name,
    complies=lambda response: after_hashes(response) is not None,
    examples=training_examples,
    shots=5,
    example="Question: {problem}\nAnswer: {solution}\n#### {answer}\n\n",
    stop=("Question:",),
)

BENCHMARK = Benchmark(
    name="gsm8k",
    title="GSM8K",
    group="math",
    size=1319,
    file="gsm8k/test",
    source=SOURCE,
    licence="MIT",
    read=problems,
    prompts=(*mathematics_prompts(WORD_PROBLEMS), HARNESS),
    extractors=(*MATHEMATICS, HASHES),
    equal=strictly_equal,
    max_tokens=1024,
)
