"""AMC 2023: 40 problems of the AMC 12, with numbers as answers instead of options."""

from rlp.answers.strict_equality import strictly_equal
from rlp.evaluation.benchmarks.benchmark import Benchmark
from rlp.evaluation.benchmarks.competitions import PROMPTS, problems
from rlp.evaluation.benchmarks.extractors import MATHEMATICS

BENCHMARK = Benchmark(
    name="amc23",
    title="AMC 23",
    group="math",
    size=40,
    file="amc23/test",
    source="github.com/QwenLM/Qwen2.5-Math, evaluation/data/amc23/test.jsonl",
    licence="competition problems of the MAA; not to be redistributed",
    read=problems,
    prompts=PROMPTS,
    extractors=MATHEMATICS,
    equal=strictly_equal,
    max_tokens=8192,
    runs=8,
)
