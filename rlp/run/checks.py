"""Values that no run can use, refused before anything is built or read.

Each field is checked as `configs/default.py` declares it; the functions here check fields against
each other. What is known only when something is built, such as shapes that do not divide or missing
files, is refused there.
"""

from collections.abc import Mapping

from configs import default, fields
from rlp.data.problems import PROBLEM
from rlp.metrics import catalogue
from rlp.run import datasets, tasks
from rlp.run.datasets.dataset import given_forks
from rlp.runtime.config_json import Value
from rlp.runtime.errors import UserError
from rlp.training import budget

FIELDS = {field.path: field for field in fields.walk(default.Config)}


def check(config: Mapping[str, Value]) -> None:
    """Refuses values that no run can use.

    Args:
      config: dotted path of every field to its value.

    Raises:
      UserError: names the field, its value and what it can be.
    """
    for path, declared in FIELDS.items():
        if problem := declared.problem(config[path]):
            raise UserError.of(path, config[path], problem)
    if config["steps"] == 0 and not config["init_from"] and not config["match"]:
        raise UserError.of(
            "steps",
            0,
            "evaluates what a run starts from; say with init_from what that is, or set steps to "
            "1 or more",
        )
    task, dataset = tasks.find(config), datasets.find(str(config["data.kind"]))
    _check_match(config, task)
    for rule, field in given_forks(config):
        if config[field] != 1:
            raise UserError.of(
                field, config[field], f"; {rule}='given' has one fork per document, so set it to 1"
            )
    dataset.check(config, task)
    task.check(dataset)
    _check_problem_fields(config, task.asks_problems)
    _check_best_metric(config, task, dataset)


def _check_match(config: Mapping[str, Value], task: tasks.Task) -> None:
    """`match` has its form, and the schedule an end where the steps are known before."""
    if not config["match"]:
        return
    _, unit = budget.split(str(config["match"]))
    schedule = config["optimizer.schedule"]
    if not task.steps_known(unit) and schedule != "constant":
        raise UserError.of(
            "match",
            config["match"],
            ": how many steps that takes is not known before, and "
            f"optimizer.schedule={schedule!r} needs to know; set it to 'constant'",
        )


def _check_problem_fields(config: Mapping[str, Value], asked: bool) -> None:
    """Problems have a place in their instruction and, where there are some, columns."""
    for field in ("data.problems.prompt_column", "data.problems.answer_column"):
        if asked and not config[field]:
            raise UserError.of(field, "", "; give the name of that column")
    instruction = config["data.problems.instruction"]
    if PROBLEM not in str(instruction):
        raise UserError.of(
            "data.problems.instruction", instruction, f"has no {PROBLEM} for the problem"
        )


def _check_best_metric(
    config: Mapping[str, Value], task: tasks.Task, dataset: datasets.Dataset
) -> None:
    """What picks the best checkpoint is measured."""
    best, share = str(config["evaluation.best_metric"]), config["data.sft.share"]
    measured = {
        "responses": bool(share),
        "problems": task.asks_problems,
        "documents": dataset.generated or task.reads_documents,
    }
    if best and best not in catalogue.PICKING:
        known = ", ".join(["''", *catalogue.PICKING])
        raise UserError.of("evaluation.best_metric", best, f"is unknown; use one of {known}")
    if best and not measured[catalogue.PICKING[best].measured]:
        raise UserError.of(
            "evaluation.best_metric",
            best,
            f"is not measured with objective={config['objective']!r} and data.sft.share={share}; "
            "leave it ''",
        )
