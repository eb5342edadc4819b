"""Evaluate models on benchmarks: `python -m launch.evaluate --checkpoint=runs/a,runs/b --suite=…`.

    --list                         print all tasks and suites
    --checkpoint=base=runs/b,rlp=runs/r   models by name; a run, <run>@<step>, a Hugging Face model
    --suite=paper                  a suite, or tasks with commas, or the Python file of a task, or
                                   generated problems: 'reasoning_gym:chain_sum?size=200'
    --data=my_benchmarks           the folder that has the files of the tasks
    --out=runs/evaluation          responses, results.json, results.md and report.html

A killed evaluation goes on where it was when the same command is run again.

    --harness=gsm8k,arc_easy       run tasks of lm-evaluation-harness instead; writes harness.md
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from launch import program
from rlp.runtime import run_folder
from rlp.runtime.errors import UserError

if TYPE_CHECKING:
    from rlp.evaluation.runner.settings import Settings
    from rlp.run.evaluate_harness import HarnessSettings

_LIST = flags.DEFINE_bool("list", False, "print all tasks and suites, and end")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "",
    "models, with commas: a run, <run>@<step>, a Hugging Face folder or name, or a GGUF file; a "
    "name for the table may precede it, as in base=runs/base",
)
_SUITE = flags.DEFINE_string("suite", "quick", "suite, or tasks with commas; see --list")
_DATA = flags.DEFINE_string("data", "", "folder that has the files of the tasks")
_OUT = program.define_output("out", "folder of the evaluation", unless="list")
_HARNESS = flags.DEFINE_list(
    "harness", [], "tasks of lm-evaluation-harness, with commas, instead of a suite"
)
_INCLUDE_PATH = flags.DEFINE_string(
    "include_path", "", "folder with YAML files of further tasks, with --harness"
)
_SHOTS = flags.DEFINE_integer(
    "shots",
    None,
    "examples in every prompt, with --harness; not set: as in the task",
    lower_bound=0,
)
_CHAT = flags.DEFINE_bool("chat", False, "format prompts as chats, with --harness")
_LIKELIHOOD = flags.DEFINE_bool(
    "likelihood", False, "choose options by their log-likelihood instead of generating answers"
)
_THINK = flags.DEFINE_bool(
    "think", False, "begin responses with the thinking tag, and score options after thoughts"
)
_PROMPT = flags.DEFINE_list("prompt", [], "names of prompts; a task uses the first that it has")
_EXTRACTOR = flags.DEFINE_list("extractor", [], "names of extractors, likewise")
_LIMIT = flags.DEFINE_integer(
    "limit", 0, "most problems of a task, evenly spread over its file; 0 = all", lower_bound=0
)
_RUNS = flags.DEFINE_integer(
    "runs", 0, "responses to each problem; 0 = as in the suite", lower_bound=0
)
_TEMPERATURE = flags.DEFINE_float(
    "temperature", None, "of the samples, 0 = greedy; not set: as in the suite", lower_bound=0
)
_TOP_P = flags.DEFINE_float("top_p", None, "of the samples; not set: 0.95")
_TOP_K = flags.DEFINE_integer("top_k", 0, "of the samples; 0 = no limit", lower_bound=0)
_MAX_TOKENS = flags.DEFINE_integer(
    "max_tokens", 0, "most tokens of a response; 0 = as in the task", lower_bound=0
)
_THOUGHTS = flags.DEFINE_integer(
    "thoughts", 4, "thoughts before the options of a problem, with --think", lower_bound=1
)
_THOUGHT_LENGTH = flags.DEFINE_integer(
    "thought_length", 256, "most tokens of such a thought", lower_bound=1
)
_FSDP = flags.DEFINE_integer(
    "fsdp", 1, "number of devices over which parameters are split by width", lower_bound=1
)
_TENSOR = flags.DEFINE_integer(
    "tensor", 1, "number of devices over which heads are split", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the samples", lower_bound=0)


def main(_: Sequence[str]) -> None:
    """Evaluate the models, and print their scores."""
    from rlp.evaluation.benchmarks import suites
    from rlp.report import benchmarks as tables
    from rlp.run import evaluate, evaluate_harness, evaluated_models
    from rlp.run.named_models import check_models, named_models

    if _LIST.value:
        print(evaluate.task_table())
        return
    _check_flags()
    out, settings = Path(_OUT.value), _settings()
    suite = None if _HARNESS.value else suites.find(_SUITE.value)
    if not _CHECKPOINT.value:
        raise UserError("--checkpoint is missing; name one or more models, with commas")
    if suite and suite.reads_files and not _DATA.value:
        raise UserError("--data is missing; name the folder that has the files of the tasks")
    sources = named_models(_CHECKPOINT.value)
    check_models(sources)
    models = evaluated_models.openers(sources, _FSDP.value, _TENSOR.value)
    if suite is None:
        print(evaluate_harness.evaluate(_harness_settings(), out, models))
        print(f"\nresults: {out / evaluate_harness.RESULTS}, {out / evaluate_harness.TABLE}")
        return
    content = evaluate.evaluate(suite, settings, Path(_DATA.value), out, models)
    print(tables.document(content))
    print(f"\nresults: {out / evaluate.RESULTS}, {out / run_folder.REPORT}")


_ONLY_HARNESS = ("include_path", "shots", "chat")
_ONLY_GENERATION = ("extractor", "runs", "temperature", "top_p", "top_k", "max_tokens")
_ONLY_THOUGHTS = ("thoughts", "thought_length")
_ONLY_SUITE = ("suite", "data", "likelihood", "think", "prompt", *_ONLY_GENERATION, *_ONLY_THOUGHTS)


def _check_flags() -> None:
    """Refuse flags that would be ignored."""
    if _HARNESS.value:
        _refuse(_ONLY_SUITE, "has no effect with --harness")
        return
    _refuse(_ONLY_HARNESS, "has no effect without --harness")
    if _LIKELIHOOD.value:
        _refuse(_ONLY_GENERATION, "has no effect with --likelihood")
    if not (_LIKELIHOOD.value and _THINK.value):
        _refuse(_ONLY_THOUGHTS, "has no effect without --likelihood and --think")


def _refuse(names: Sequence[str], reason: str) -> None:
    for name in names:
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} {reason}; leave it out")


def _harness_settings() -> "HarnessSettings":
    from rlp.run.evaluate_harness import HarnessSettings

    return HarnessSettings(
        tasks=tuple(_HARNESS.value),
        include_path=_INCLUDE_PATH.value,
        shots=_SHOTS.value,
        chat=_CHAT.value,
        limit=_LIMIT.value,
        seed=_SEED.value,
    )


def _settings() -> "Settings":
    from rlp.evaluation.runner.settings import Settings

    if _TEMPERATURE.value is not None and not math.isfinite(_TEMPERATURE.value):
        raise UserError(f"--temperature={_TEMPERATURE.value}; it must be a finite number")
    if _TOP_P.value is not None and not 0 < _TOP_P.value <= 1:
        raise UserError(f"--top_p={_TOP_P.value}; it must be above 0 and at most 1")
    return Settings(
        likelihood=_LIKELIHOOD.value,
        think=_THINK.value,
        prompts=tuple(_PROMPT.value),
        extractors=tuple(_EXTRACTOR.value),
        runs=_RUNS.value,
        temperature=_TEMPERATURE.value,
        top_p=_TOP_P.value,
        top_k=_TOP_K.value,
        max_tokens=_MAX_TOKENS.value,
        limit=_LIMIT.value,
        thoughts=_THOUGHTS.value,
        thought_length=_THOUGHT_LENGTH.value,
        seed=_SEED.value,
    )


if __name__ == "__main__":
    program.run(main)
