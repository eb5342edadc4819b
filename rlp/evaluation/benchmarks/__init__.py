"""Benchmarks: tasks with problems, prompts, strict extractors, grading and metrics.

benchmark      records: Problem, Prompt, Extractor, OptionScoring, Benchmark
files          find and read the files of a folder of the user
extractors     the answer of a response, by name and date
mathematics    prompts and few-shot examples of mathematical tasks
choices        prompts of multiple choice, scoring of options
gsm8k, …       one module for each task
generated      tasks whose problems reasoning-gym generates
grading        responses to verdicts, in processes with limits on time and memory
metrics        pass@k, majority@k, standard errors and rates
suites         tasks that are run together, and the means of their scores

Nothing here imports JAX: the processes that grade responses import it.
"""

from pathlib import Path

from rlp.answers.verifiers import gym
from rlp.evaluation.benchmarks import (
    aime24,
    aime25,
    amc23,
    generated,
    gpqa_diamond,
    gsm8k,
    math500,
    minerva_math,
    mmlu,
    mmlu_pro,
    option_files,
)
from rlp.evaluation.benchmarks.benchmark import FIELD, Benchmark
from rlp.runtime import user_code
from rlp.runtime.errors import UserError
from rlp.runtime.lookup import find_in_file, find_named

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        gsm8k.BENCHMARK,
        math500.BENCHMARK,
        minerva_math.BENCHMARK,
        amc23.BENCHMARK,
        aime24.BENCHMARK,
        aime25.BENCHMARK,
        mmlu.BENCHMARK,
        mmlu_pro.BENCHMARK,
        gpqa_diamond.BENCHMARK,
        option_files.ARC_EASY,
        option_files.ARC_CHALLENGE,
        option_files.HELLASWAG,
    )
}


def find(name: str) -> Benchmark:
    """Return a task.

    Args:
      name: name of a built-in task; that of a dataset of reasoning-gym,
        "reasoning_gym:chain_sum?size=200" (see `generated`); a Python file with a `Benchmark`,
        "tasks/capitals.py" (or "tasks/capitals.py:CAPITALS" if it has several); or
        "<module>:<name>".

    Raises:
      UserError: If there is no such task, or its file cannot be imported.
    """
    if name.startswith(gym.PREFIX):
        return generated.benchmark(name)
    if is_file(name):
        return find_in_file(FIELD, name, Benchmark)
    if name not in BENCHMARKS and ":" not in name:
        known = ", ".join(BENCHMARKS)
        raise UserError.of(
            FIELD, name, f"is unknown; use one of {known}, or the Python file of your own task"
        )
    package = "rlp.evaluation.benchmarks.benchmark"
    benchmark = find_named(FIELD, name, BENCHMARKS, Benchmark, package)
    assert isinstance(benchmark, Benchmark)
    return benchmark


def is_built_in(name: str) -> bool:
    """Return whether the code of a task belongs to this project."""
    return name in BENCHMARKS or name.startswith(gym.PREFIX)


def is_file(name: str) -> bool:
    """Return whether the name of a task is that of a Python file."""
    return not is_built_in(name) and name.partition(":")[0].endswith(".py")


def code_of(name: str) -> str | None:
    """Return the file of a task of the user; None if it has no file."""
    if is_built_in(name):
        return None
    module = name.partition(":")[0]
    return str(Path(module).resolve()) if is_file(name) else user_code.file_of(module)
