"""Run tasks of lm-evaluation-harness, and return their results as plain data for a table."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rlp.runtime.errors import UserError


def _library(module: str) -> ModuleType:
    """Import a module that needs lm-evaluation-harness.

    Raises:
      UserError: If it is not installed.
    """
    try:
        importlib.import_module("lm_eval")
    except ImportError as error:
        raise UserError(
            "tasks of lm-evaluation-harness need the package lm-eval: "
            "pip install -r requirements-harness.txt"
        ) from error
    return importlib.import_module(module)


def harness_model(*arguments: Any, **options: Any) -> Any:
    """Return a model for lm-evaluation-harness; see `HarnessModel` for the arguments.

    Raises:
      UserError: If lm-evaluation-harness is not installed.
    """
    return _library("rlp.evaluation.harness.model").HarnessModel(*arguments, **options)


def run_harness(
    tasks: Sequence[str],
    model: Any,
    *,
    include_path: str = "",
    limit: int | None = None,
    num_fewshot: int | None = None,
    apply_chat_template: bool = False,
    system: str = "",
    gen_kwargs: Mapping[str, Any] | None = None,
    bootstrap_iters: int = 1000,
    seed: int = 1234,
    samples: bool = False,
) -> dict[str, Any]:
    """Run tasks with `lm_eval.simple_evaluate`.

    All processes of a run call this, and run the same requests. The network of the machine is not
    used for tasks whose data are local or cached; HF_HUB_OFFLINE=1 prevents its use for others.

    Args:
      tasks: Names of tasks or groups; may contain * and ?.
      model: From `harness_model`.
      include_path: Folder of further tasks, which come before those of the harness; "" for none.
      limit: Documents per task; None for all.
      num_fewshot: Examples in every prompt; None for those of the task.
      apply_chat_template: Format prompts as chats, with each example as a turn.
      system: System message of the chat, or text before every prompt.
      gen_kwargs: Generation arguments that replace those of the tasks.
      bootstrap_iters: For the standard errors of metrics that are not means; 0 for no standard
        errors at all.
      seed: Of the choice of examples.
      samples: Return what was asked and answered for every document, too.

    Returns:
      A dict with "rows", a list of dicts with "task", "metric", "filter", "value", "stderr" (None
      if there is none), "n" (documents) and "shots"; "group", whether the row is the mean of a
      group of tasks; the "version" of the harness, "truncated", the number of contexts that were
      too long by kind of request; and, if asked for, "samples" by task.

    Raises:
      UserError: If lm-evaluation-harness is not installed, a task is unknown, its data cannot be
        read, or it asks for something that is not supported.
    """
    lm_eval, manager = _library("lm_eval"), _library("lm_eval.tasks")
    names, known = _find(manager.TaskManager, tasks, include_path)
    model.truncated.clear()
    if apply_chat_template:
        model.chat_template(True)  # refuses a model without a template before tasks are loaded
    try:
        results = lm_eval.simple_evaluate(
            model=model,
            tasks=names,
            task_manager=known,
            limit=limit,
            num_fewshot=num_fewshot,
            apply_chat_template=apply_chat_template,
            system_instruction=system or None,
            gen_kwargs=dict(gen_kwargs) if gen_kwargs else None,
            bootstrap_iters=bootstrap_iters,
            fewshot_random_seed=seed,
            log_samples=samples,
        )
    except OSError as error:  # also those of the hub and of the library of data sets
        raise UserError(
            f"the data of the tasks {', '.join(names)} cannot be read: {_line(error)}; download "
            "them first, or give a folder of local tasks"
        ) from error
    except ImportError as error:
        raise UserError(
            f"the tasks {', '.join(names)} need another package: {_line(error)}; install it"
        ) from error
    found = {
        "rows": _rows(results),
        "truncated": dict(model.truncated),
        "version": lm_eval.__version__,
    }
    return found | ({"samples": results["samples"]} if samples else {})


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _find(make: Any, tasks: Sequence[str], include_path: str) -> tuple[list[str], Any]:
    """Return the names of tasks and the index that has them: that of the folder alone if it has
    all, since that of the harness takes seconds to make."""
    if include_path and not Path(include_path).is_dir():
        raise UserError(f"the folder of tasks {include_path!r} does not exist; create or rename it")
    for defaults in (False, True) if include_path else (True,):
        known = make(include_path=include_path or None, include_defaults=defaults)
        unknown = [name for name in tasks if not known.match_tasks([name])]
        if not unknown:
            return known.match_tasks(list(tasks)), known
    raise UserError(
        f"lm-evaluation-harness does not know the task {unknown[0]!r}; `lm-eval ls tasks` lists "
        "those that it has"
    )


def _rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for every task and metric, and for every group with a mean."""
    rows = []
    groups = results.get("groups", {})
    for task, metrics in results["results"].items():
        for key, value in metrics.items():
            metric, comma, name = key.partition(",")
            if not comma or metric.endswith("_stderr") or isinstance(value, str):
                continue
            error = metrics.get(f"{metric}_stderr,{name}")
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "filter": name,
                    "value": float(value),
                    "stderr": float(error) if isinstance(error, int | float) else None,
                    "n": metrics["sample_len"],
                    "shots": results["n-shot"].get(task),
                    "group": task in groups,
                }
            )
    return rows
