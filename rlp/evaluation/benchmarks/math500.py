"""MATH-500: 500 test problems of MATH (Lightman et al., arXiv 2305.20050)."""

from rlp.answers.strict_equality import strictly_equal
from rlp.evaluation.benchmarks.benchmark import Benchmark
from rlp.evaluation.benchmarks.competitions import PROMPTS, problems
from rlp.evaluation.benchmarks.extractors import MATHEMATICS

BENCHMARK = Benchmark(
    name="math500",
    title="MATH-500",
    group="math",
    size=500,
    file="math500/test",
    source="github.com/openai/prm800k, prm800k/math_splits/test.jsonl",
    licence="problems of competitions; check before you redistribute them",
    read=problems,
    prompts=PROMPTS,
    extractors=MATHEMATICS,
    equal=strictly_equal,
    max_tokens=4096,
)
