"""The benchmarks that a run evaluates while it trains: `evaluation.suite`.

Everything that can be wrong about them is found when they are built, before training. Responses are
kept in memory until they are graded: an evaluation that is interrupted begins again.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs.default import Config
from models.transformer import Params
from rlp.data.fingerprint import digest
from rlp.engine.placement import abstract_params
from rlp.evaluation import benchmarks
from rlp.evaluation.runner.answer_file import Key
from rlp.evaluation.runner.posed import pose
from rlp.evaluation.runner.result import Result
from rlp.evaluation.runner.task import Task
from rlp.run import out_of_memory, suite_fields
from rlp.run.assembly import RunParts
from rlp.run.evaluated_models import evaluated_model
from rlp.run.opened_model import Opened
from rlp.runtime.fingerprints import Fingerprint
from rlp.runtime.progress import progress
from rlp.runtime.strict_json import finite


@dataclasses.dataclass(frozen=True)
class TrainingSuite:
    """The tasks of a suite as they are posed to the model that trains.

    Attributes:
      label: Of progress bars.
      tasks: The tasks, whose model has shapes in the place of parameters.
      config: The config of the run.
    """

    label: str
    tasks: Sequence[Task]
    config: Config

    @property
    def fingerprint(self) -> dict[str, Fingerprint]:
        """The fingerprint of the problems, their prompts, and the files of the user's tasks."""
        parts = [part for task in self.tasks for part in _parts(task)]
        count = sum(len(task.problems.problems) for task in self.tasks)
        return {suite_fields.FIELD: {"digest": digest(parts), "problems": count}}

    def evaluate(self, params: Params, check: Callable[[], object]) -> dict[str, float]:
        """Return the metrics of the suite.

        Args:
          params: The parameters, sharded over the mesh of the run.
          check: Is called at every response, and may raise to end the evaluation.

        Raises:
          UserError: If a task cannot be evaluated, or memory does not suffice.
        """
        metrics: dict[str, float] = {}
        accuracies = []
        for task in self.tasks:
            with out_of_memory.in_suite(self.config, task.entry.by_likelihood):
                scores = self._result(_with(task, params), check).scores
            names = suite_fields.metrics_of(task.entry, self.config.evaluation.suite_think)
            metrics |= {name: getattr(scores, score) for score, name in names.items()}
            accuracies.append(scores.accuracy)
        return {suite_fields.MEAN: float(np.mean(accuracies)), **metrics}

    def _result(self, task: Task, check: Callable[[], object]) -> Result:
        """Compute all responses to a task, and score them."""
        records: dict[Key, Mapping[str, Any]] = {}
        label = f"{self.label} {task.entry.name}"
        with progress(task.total, 0, label, "response") as bar:

            def add(problem: str, run: int, record: dict[str, Any]) -> None:
                check()
                records[problem, run] = finite(record)
                bar.update(1)

            task.run([], add)
        return task.result(records)


def _parts(task: Task) -> Iterator[str]:
    """Yield what the scores of a task depend on besides the model and the config."""
    yield from (task.entry.name, task.problems.digest, repr(task.examples), repr(task.wording()))
    if code := benchmarks.code_of(task.entry.spec):
        yield hashlib.sha256(Path(code).read_bytes()).hexdigest()


def _with(task: Task, params: Params) -> Task:
    """Return a task for a model with these parameters. Generator and scorer are its own, so that
    the copies of parameters that they gather are freed with it."""
    model = task.model
    model = dataclasses.replace(
        model,
        generator=dataclasses.replace(model.generator, params=params),
        scorer=dataclasses.replace(model.scorer, params=params),
    )
    return dataclasses.replace(task, model=model)


def added(run: RunParts, config: ConfigDict, name: str, files: Path | None) -> RunParts:
    """Return a run with the benchmarks of `evaluation.suite`, posed to its model.

    Args:
      run: The run.
      config: Its config, with its architecture and tokenizer.
      name: Its name.
      files: Its Hugging Face files, or those of its initial model; None for none.

    Raises:
      UserError: If a file is missing or cannot be used, a task has no prompt for the model, or a
        prompt cannot be encoded or does not fit in the context.
    """
    typed = Config.of(config)
    if not typed.evaluation.suite:
        return run
    suite, settings = suite_fields.suite_of(typed), suite_fields.settings_of(typed)
    data = suite_fields.folder_of(typed)
    with suite_fields.errors_named(typed):
        params = abstract_params(run.method.model, run.mesh)
        # With a step, since positions beyond the longest training text are ones it never reads.
        opened = Opened(name, config, run.method, params, run.mesh, step=0, files=files)
        model = evaluated_model(name, opened, identity={})
        tasks = [posed.to(model, settings, data) for posed in pose(suite, settings, data)]
        for task in tasks:
            # A copy, since a task keeps the ids of its prompts, and these would never be used.
            dataclasses.replace(task).check()
    suite_of_run = TrainingSuite(f"{name} evaluation", tasks, typed)
    return dataclasses.replace(run, suite=suite_of_run)
