"""Validate a config before anything is built or read.

Each field is checked against its declaration in `configs/default.py`; the functions here check
combinations of fields. Problems that show only when something is built, such as shapes that do not
divide or missing files, are reported there.
"""

import re
from collections.abc import Mapping

from configs.default import Config
from configs.fields import nested, value_of, walk
from rlp.data.problem_format import PROBLEM
from rlp.metrics import catalogue
from rlp.run import datasets, suite_fields, tasks, thought_lengths
from rlp.run.datasets.dataset import given_forks
from rlp.runtime.config_json import Value
from rlp.runtime.errors import UserError
from rlp.training import budget

FIELDS = {field.path: field for field in walk(Config)}


def check(values: Mapping[str, Value]) -> None:
    """Check that a run can use these values.

    Args:
      values: Dotted path of every field -> its value.

    Raises:
      UserError: If a value is invalid; names the field, its value and the valid values.
    """
    for path, declared in FIELDS.items():
        if problem := declared.problem(values[path]):
            raise UserError.of(path, values[path], problem)
    config = Config.of(nested(values))
    if config.steps == 0 and not config.init_from and not config.match:
        raise UserError.of(
            "steps",
            0,
            "only evaluates the model in init_from; set init_from, or set steps to 1 or more",
        )
    task, dataset = tasks.of(config), datasets.find(config.data.kind)
    _check_match(config, task)
    for rule, field in given_forks(config):
        if (count := value_of(config, field)) != 1:
            raise UserError.of(
                field, count, f"; {rule}='given' has one fork per document, so set it to 1"
            )
    dataset.check(config, task)
    task.check(dataset)
    _check_problem_fields(config, task.answers_problems)
    suite_fields.check(config)
    _check_best_metric(config, task, dataset)
    thought_lengths.check(config)
    _check_band(config)
    profiled_steps(config)


def profiled_steps(config: Config) -> range:
    """Return the steps that `profile.steps` selects; an empty range if it is "".

    Raises:
      UserError: If it is not of the form "FIRST:END".
    """
    text = config.profile.steps
    if not text:
        return range(0)
    match = re.fullmatch(r"([1-9]\d{0,8}):([1-9]\d{0,8})", text, re.ASCII)
    if not match or int(match[2]) <= int(match[1]):
        problem = "is not FIRST:END with 1 <= FIRST < END; '10:13' traces steps 10, 11 and 12"
        raise UserError.of("profile.steps", text, problem)
    return range(int(match[1]), int(match[2]))


def _check_match(config: Config, task: tasks.Task) -> None:
    """Check the form of `match`, and that the schedule does not need an unknown number of steps."""
    if not config.match:
        return
    _, unit = budget.split(config.match)
    schedule = config.optimizer.schedule
    if not task.steps_known(unit) and schedule != "constant":
        raise UserError.of(
            "match",
            config.match,
            ": the number of steps is not known in advance, but "
            f"optimizer.schedule={schedule!r} needs it; set optimizer.schedule to 'constant'",
        )


def _check_band(config: Config) -> None:
    """Check that a loss can be in the band of positions."""
    low, high = config.rlp.band_low, config.rlp.band_high
    if config.rlp.positions == "band" and low >= high:
        raise UserError.of(
            "rlp.band_low", low, f"is not below rlp.band_high={high}; lower it, or raise band_high"
        )


def _check_problem_fields(config: Config, asked: bool) -> None:
    """Check that the columns of problems are named, and that the instruction has a placeholder."""
    for field in ("data.problems.prompt_column", "data.problems.answer_column"):
        if asked and not value_of(config, field):
            raise UserError.of(field, "", "; set it to the name of the column")
    instruction = config.data.problems.instruction
    if PROBLEM not in str(instruction):
        raise UserError.of(
            "data.problems.instruction",
            instruction,
            f"does not contain {PROBLEM}, the placeholder of the problem; add it",
        )


def _check_best_metric(config: Config, task: tasks.Task, dataset: datasets.Dataset) -> None:
    """Check that the run measures the metric that picks the best checkpoint."""
    best, share = config.evaluation.best_metric, config.data.sft.share
    of_suite = suite_fields.metric_names(config)
    if not best or best in of_suite:
        return
    measured = {
        "responses": bool(share),
        "problems": task.answers_problems,
        "documents": dataset.generated or task.reads_documents,
    }
    if best.startswith(suite_fields.PREFIX):
        names = f"use one of {', '.join(of_suite)}" if of_suite else "set evaluation.suite"
        problem = f"is not measured with evaluation.suite={config.evaluation.suite!r}; {names}"
        raise UserError.of("evaluation.best_metric", best, problem)
    if best not in catalogue.PICKING:
        known = ", ".join(["''", *catalogue.PICKING])
        raise UserError.of("evaluation.best_metric", best, f"is unknown; use one of {known}")
    if not measured[catalogue.PICKING[best].measured]:
        raise UserError.of(
            "evaluation.best_metric",
            best,
            f"is not measured with objective={config.objective!r} and data.sft.share={share}; "
            "set it to ''",
        )
