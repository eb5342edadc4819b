"""Evaluate models on tasks of lm-evaluation-harness, side by side, and write their scores."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlp.evaluation.harness import harness_model, run_harness
from rlp.evaluation.runner.model import EvaluatedModel
from rlp.report.markdown import aligned
from rlp.run import evaluation_folder
from rlp.runtime import atomic_files, disk_errors
from rlp.runtime.display import markdown_cell

RESULTS, TABLE = evaluation_folder.HARNESS, "harness.md"
# Tokens that a model without a limit reads at a time, as in the harness.
MAX_LENGTH = 2048


@dataclasses.dataclass(frozen=True)
class HarnessSettings:
    """How the harness poses its tasks; see `rlp.evaluation.harness.run_harness`.

    Attributes:
      tasks: names of tasks or groups.
      include_path: folder of further tasks; "" for none.
      shots: examples in every prompt; None for those of the task.
      chat: prompts are formatted as chats.
      limit: documents per task; 0 for all.
      seed: of the sampling.
    """

    tasks: tuple[str, ...]
    include_path: str = ""
    shots: int | None = None
    chat: bool = False
    limit: int = 0
    seed: int = 0


def evaluate(
    settings: HarnessSettings, out: Path, models: Mapping[str, Callable[[], EvaluatedModel]]
) -> str:
    """Run tasks of the harness on models, and return the table of their scores.

    It is also written to harness.md, with harness.json, after each model.

    Args:
      settings: the tasks.
      out: the folder of the evaluation; created if it does not exist.
      models: name → a function that opens the model.

    Raises:
      UserError: If the harness is not installed, a task is unknown or not supported, or `out` has
        other files.
    """
    evaluation_folder.check(out)
    results: dict[str, Any] = {}
    text = ""
    for name, open_model in models.items():
        results[name] = _run(settings, open_model())
        text = table({name: result["rows"] for name, result in results.items()})
        content = {"settings": dataclasses.asdict(settings), "models": results}
        with disk_errors.writing(out, disk_errors.RUN_AGAIN):
            out.mkdir(parents=True, exist_ok=True)
            atomic_files.write_json(out / RESULTS, content)
            atomic_files.write_whole(out / TABLE, f"{text}\n")
    return text


def _run(settings: HarnessSettings, model: EvaluatedModel) -> dict[str, Any]:
    """Return the result of one model, which is freed at the end."""
    adapter = harness_model(
        model.scorer,
        model.generator,
        model.tokenizer,
        name=model.name,
        max_length=model.longest or MAX_LENGTH,
        ends=model.chat_ends if settings.chat else model.ends,
        template=model.template,
        seed=settings.seed,
    )
    return run_harness(
        settings.tasks,
        adapter,
        include_path=settings.include_path,
        limit=settings.limit or None,
        num_fewshot=settings.shots,
        apply_chat_template=settings.chat,
    )


def table(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return a Markdown table with a row for each task, filter and metric, a column for each model.

    Args:
      rows: model → its rows, see `run_harness`.
    """
    key = lambda row: (row["task"], row["filter"], row["metric"])
    keys = dict.fromkeys(key(row) for of_model in rows.values() for row in of_model)
    found = {name: {key(row): row for row in of_model} for name, of_model in rows.items()}
    lines = [["task", "filter", "metric", "documents", *map(markdown_cell, rows)]]
    for one in keys:
        known = [of_model[one] for of_model in found.values() if one in of_model]
        cells = [_value(of_model.get(one)) for of_model in found.values()]
        count = known[0]["n"]
        lines.append([*map(markdown_cell, one), "–" if count is None else f"{count:,}", *cells])
    return aligned(lines, words=3)


def _value(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.4f}"
    return f"{row['value']:.4f}{error}"
