"""Evaluate models on the tasks of a suite, and write their scores.

The folder of an evaluation contains a file of responses for each model and task, which a killed
evaluation goes on with, and at its end results.json, results.md and report.html.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlp.evaluation import benchmarks
from rlp.evaluation.benchmarks import metrics, suites
from rlp.evaluation.benchmarks.suites import Suite, file_name
from rlp.evaluation.runner.answer_file import AnswerFile
from rlp.evaluation.runner.model import EvaluatedModel
from rlp.evaluation.runner.posed import Posed, pose
from rlp.evaluation.runner.result import Result
from rlp.evaluation.runner.settings import Settings
from rlp.evaluation.runner.task import Task
from rlp.report import benchmark_page
from rlp.report import benchmarks as tables
from rlp.report.markdown import aligned
from rlp.run import evaluation_folder
from rlp.runtime import atomic_files, disk_errors, run_folder
from rlp.runtime.errors import UserError
from rlp.runtime.progress import progress

RESULTS, TABLE = "results.json", "results.md"
SHOWN_PROBLEMS = 20  # of a task, on the page


def evaluate(
    suite: Suite,
    settings: Settings,
    data: Path,
    out: Path,
    models: Mapping[str, Callable[[], EvaluatedModel]],
) -> dict[str, Any]:
    """Evaluate models one after another, and write results.json, results.md and report.html.

    Responses that an earlier evaluation into the same folder has finished are kept.

    Args:
      suite: the tasks.
      settings: how they are posed.
      data: the user's folder of benchmarks.
      out: the folder of the evaluation; created if it does not exist.
      models: name → a function that opens the model; the others are compared with the first.

    Returns:
      The content of results.json.

    Raises:
      UserError: If a task cannot be posed, two models have names that differ in punctuation only,
        or `out` has other files, or responses of other settings or models.
    """
    suite = settings.of(suite)
    if suite.reads_files and not data.is_dir():
        raise UserError(f"--data={data} is not a folder; name the folder that has the benchmarks")
    posed = pose(suite, settings, data)
    _check_names(models)
    evaluation_folder.check(out)
    results: list[Result] = []
    for open_model in models.values():
        results += _evaluate_one(open_model, posed, settings, data, out)
    return _write(out, suite, settings, results)


def _evaluate_one(
    open_model: Callable[[], EvaluatedModel],
    posed: Sequence[Posed],
    settings: Settings,
    data: Path,
    out: Path,
) -> list[Result]:
    """Evaluate one model, which is freed at the end."""
    model = open_model()
    tasks = [each.to(model, settings, data) for each in posed]
    for task in tasks:
        task.check()
    return [_run(task, out) for task in tasks]


def _run(task: Task, out: Path) -> Result:
    """Finish the responses to a task, and score them."""
    model = task.model.name
    path = out / evaluation_folder.RESPONSES / file_name(model) / f"{task.entry.key}.jsonl"
    file = AnswerFile(path, task.facts(), task.identities())
    finished = list(file.records)
    with progress(task.total, len(finished), f"{model}, {task.entry.name}", "response") as bar:

        def add(problem: str, run: int, record: dict[str, Any]) -> None:
            file.add(problem, run, record)
            bar.update(1)

        task.run(finished, add)
    return task.result(file.records)


def _check_names(models: Collection[str]) -> None:
    """Refuse models whose responses would be in the same folder."""
    names = [file_name(name) for name in models]
    for name in models:
        if names.count(file_name(name)) > 1:
            raise UserError(
                f"two models would have the folder {file_name(name)!r}; write "
                f"--checkpoint=<name>={name} with another name"
            )


def _write(
    out: Path, suite: Suite, settings: Settings, results: Sequence[Result]
) -> dict[str, Any]:
    """Write the results, and return the content of results.json."""
    content = summarize(suite, settings, results)
    with disk_errors.writing(out, disk_errors.RUN_AGAIN):
        atomic_files.write_json(out / RESULTS, content)
        atomic_files.write_whole(out / TABLE, f"{tables.document(content)}\n")
        benchmark_page.write_page(content, _examples(results), out / run_folder.REPORT)
    return content


def _examples(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Return the first problems of every score with the answers of every model."""
    examples: dict[str, dict[str, Any]] = {}
    for result in results:
        examples.setdefault(result.entry, {})[result.model] = result.examples(SHOWN_PROBLEMS)
    return examples


def summarize(suite: Suite, settings: Settings, results: Sequence[Result]) -> dict[str, Any]:
    """Return the content of results.json: scores, differences from the first model, and means."""
    by_entry: dict[str, list[Result]] = {}
    for result in results:
        by_entry.setdefault(result.entry, []).append(result)
    scores: dict[str, dict[str, float]] = {}
    for result in results:
        scores.setdefault(result.model, {})[result.entry] = result.scores.accuracy
    return {
        "suite": suite.name,
        "source": suite.source,
        "settings": dataclasses.asdict(settings),
        "results": [
            result.summary() | {"over_first": _difference(result, of_entry[0])}
            for of_entry in by_entry.values()
            for result in of_entry
        ],
        "means": {
            model: [dataclasses.asdict(mean) for mean in suites.means(suite, of_model)]
            for model, of_model in scores.items()
        },
    }


def _difference(result: Result, first: Result) -> tuple[float, float | None] | None:
    """Return by how much the accuracy exceeds that of the first model, and its standard error."""
    if result is first:
        return None
    verdicts = lambda x: np.array([[answer.correct for answer in row] for row in x.answers])
    return metrics.difference(verdicts(result), verdicts(first))


def task_table() -> str:
    """Return a Markdown table of the built-in tasks, with their suites."""
    rows = [("task", "problems", "metric", "suites", "source")]
    for task in benchmarks.BENCHMARKS.values():
        of = [
            suite.name
            for suite in suites.SUITES.values()
            if any(entry.task == task.name for entry in suite.entries)
        ]
        rows.append((task.name, f"{task.size:,}", task.metric, ", ".join(of), task.source))
    return aligned(rows, words=len(rows[0]))
