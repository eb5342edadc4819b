"""GPQA Diamond: questions of graduate science (Rein et al., arXiv 2311.12022).

The file is the user's own `gpqa_diamond.csv`. Its authors ask that questions never appear in plain
text, so the benchmark is private. Options are shuffled as in NeMo-Skills: by one generator with the
seed 42, row after row, with the correct answer last before the shuffle.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from rlp.evaluation.benchmarks.benchmark import LETTERS, Benchmark, Problem
from rlp.evaluation.benchmarks.choices import choice_prompts, letter_scoring, science_examples
from rlp.evaluation.benchmarks.extractors import CHOICES
from rlp.evaluation.benchmarks.files import read_table

_OPTIONS = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3", "Correct Answer")
_COLUMNS = {"question": ("Question",), "subject": ("Subdomain", "High-level domain")} | {
    name: (name,) for name in _OPTIONS
}


def problems(path: Path) -> Iterator[Problem]:
    """Yield the problems of a file; `Problem.order` has the permutation of the options."""
    shuffle = random.Random(42).shuffle
    for number, row in enumerate(read_table(path, _COLUMNS)):
        texts = [_tidy(row.text(name)) for name in _OPTIONS]
        order = list(range(len(texts)))
        shuffle(order)
        options = tuple(texts[index] for index in order)
        gold = LETTERS[options.index(texts[-1])]  # the first of equal options, as there
        subject = row.text("subject")
        yield Problem(str(number), row.text("question"), gold, options, subject, tuple(order))


def _tidy(text: str) -> str:
    return text.strip().replace(" [title]", ". ").replace("  ", " ")


BENCHMARK = Benchmark(
    name="gpqa_diamond",
    title="GPQA Diamond",
    group="science",
    size=198,
    file="gpqa_diamond/gpqa_diamond",
    source="github.com/idavidrein/gpqa, dataset.zip, whose password is in its README",
    licence="CC BY 4.0; questions must not appear in plain text",
    read=problems,
    prompts=choice_prompts(4, science_examples, shots=3, boxed=False),
    extractors=CHOICES,
    max_tokens=4096,
    options=(letter_scoring(),),
    private=True,
)
