"""The fields `evaluation.suite*`: which benchmarks a run evaluates, and how they are posed."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from configs.default import Config, Evaluation
from rlp.answers.verifiers import gym
from rlp.evaluation.benchmarks import suites
from rlp.evaluation.benchmarks.suites import Entry, Suite
from rlp.evaluation.runner.settings import Cures, Settings
from rlp.runtime import hosts
from rlp.runtime.errors import UserError

FIELD = "evaluation.suite"
PREFIX = "benchmark/"  # of the names of metrics
MEAN = f"{PREFIX}accuracy"  # the mean of all accuracies


def check(config: Config) -> None:
    """Check the fields, without looking for the files of problems.

    Raises:
      UserError: If a task does not exist or cannot be posed in this way, a field has no effect, a
        generated problem may be one that the run trains on, or the run has several processes.
    """
    evaluation = config.evaluation
    if not evaluation.suite:
        _refuse_settings(evaluation)
        return
    if hosts.count() > 1:
        raise UserError.of(
            FIELD,
            evaluation.suite,
            "is evaluated by runs of one process only; set it to '', and evaluate checkpoints of "
            "the run with launch.evaluate",
        )
    suite = suite_of(config)
    if evaluation.suite_max_tokens and all(entry.by_likelihood for entry in suite.entries):
        raise UserError.of(
            "evaluation.suite_max_tokens",
            evaluation.suite_max_tokens,
            f"has no effect, since no answers to {suite.name} are generated; set it to 0",
        )
    if suite.reads_files and not evaluation.suite_data:
        raise UserError.of(
            FIELD, evaluation.suite, "needs evaluation.suite_data, the folder with its files"
        )
    _check_apart(config, suite)


def _refuse_settings(evaluation: Evaluation) -> None:
    """Raise UserError if a field that only a suite reads is set."""
    for field in dataclasses.fields(evaluation):
        value = getattr(evaluation, field.name)
        if field.name.startswith("suite_") and value != field.default:
            raise UserError.of(
                f"evaluation.{field.name}",
                value,
                f"has no effect without {FIELD}; set it to {field.default!r}, or name a suite",
            )


def _check_apart(config: Config, suite: Suite) -> None:
    """Raise UserError if a generated problem of a suite may be one that the run trains on."""
    specs = [entry.spec for entry in suite.entries if entry.spec.startswith(gym.PREFIX)]
    evaluated = [gym.Name.parse(spec, FIELD) for spec in specs]
    data = config.data
    for field, spec in (("data.train", data.train), ("data.problems.train", data.problems.train)):
        trained = [gym.Name.parse(name, field) for name in gym.split(spec)[0]]
        gym.check_apart(trained, evaluated, field, FIELD)


def folder_of(config: Config) -> Path:
    """Return the folder with the files of problems; it need not exist if all are generated.

    Raises:
      UserError: If it is needed, but is not a folder.
    """
    folder = Path(config.evaluation.suite_data)
    if suite_of(config).reads_files and not folder.is_dir():
        raise UserError.of(
            "evaluation.suite_data",
            config.evaluation.suite_data,
            "is not a folder; name the folder that has the files of the benchmarks",
        )
    return folder


def suite_of(config: Config) -> Suite:
    """Return the tasks of `evaluation.suite`, with their sampling.

    Raises:
      UserError: If a task does not exist or cannot be posed in this way.
    """
    with errors_named(config):
        return settings_of(config).of(suites.find(config.evaluation.suite))


def settings_of(config: Config) -> Settings:
    """Return how the tasks are posed."""
    evaluation = config.evaluation
    prompts = map(str.strip, evaluation.suite_prompt.split(","))
    return Settings(
        likelihood=evaluation.suite_likelihood,
        think=evaluation.suite_think,
        prompts=tuple(filter(None, prompts)),
        max_tokens=evaluation.suite_max_tokens,
        limit=evaluation.suite_limit,
        thoughts=evaluation.thoughts,
        thought_length=config.rlp.thought_length,
        seed=config.seed,
        cures=Cures(
            fewer_tokens="lower evaluation.suite_max_tokens",
            shorter_thoughts="lower rlp.thought_length",
            no_think="set evaluation.suite_think to False",
        ),
    )


def metrics_of(entry: Entry, thinks: bool) -> dict[str, str]:
    """Return the names of the metrics of a task, by what they are in `Scores`.

    Args:
      entry: The task.
      thinks: Whether there are thoughts before options.
    """
    measured = {"accuracy": "accuracy", "no_answer": "no_answer"}
    if not entry.by_likelihood:
        measured |= {"complies": "format", "failed": "failed"}
    if thinks or not entry.by_likelihood:
        measured["truncated"] = "truncated"
    return {score: f"{PREFIX}{entry.key}/{name}" for score, name in measured.items()}


def metric_names(config: Config) -> list[str]:
    """Return the names of all metrics of the suite; [] without one.

    Raises:
      UserError: As in `suite_of`.
    """
    if not config.evaluation.suite:
        return []
    tasks = (metrics_of(x, config.evaluation.suite_think) for x in suite_of(config).entries)
    return [MEAN, *(name for names in tasks for name in names.values())]


@contextlib.contextmanager
def errors_named(config: Config) -> Iterator[None]:
    """Let an error name the field `evaluation.suite`."""
    try:
        yield
    except UserError as error:
        named = error.within(f"{FIELD}={config.evaluation.suite!r}")
        named.field, named.value = FIELD, config.evaluation.suite
        raise named from error
