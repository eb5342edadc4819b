"""The end of a run: held-out metrics of its last state, thoughts and responses to look at."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs.default import Config
from models.transformer import Params
from rlp.data.batch import HeldOut
from rlp.engine.step import TrainState
from rlp.run.assembly import Run
from rlp.runtime import run_folder
from rlp.runtime.atomic_files import write_json
from rlp.training.cost import Totals

Watch = Callable[[list], Iterable]  # of batches: for a progress bar, or to stop early


def browse_thoughts(
    config: Config, run: Run, params: Params, held_out: HeldOut, key: jax.Array
) -> list[dict]:
    """Thoughts along a few held-out documents, where there are any; plain data."""
    if held_out.documents is None:
        return []
    count, positions = config.evaluation.browse_documents, config.evaluation.browse_positions
    documents = jax.tree.map(lambda x: np.asarray(x)[:count], held_out.documents)
    shown = (run.method.tokenizer.pieces, run.method.separator)
    return run.evaluator.browse(params, documents, key, *shown, positions)


def browse_responses(
    config: Config, run: Run, params: Params, held_out: HeldOut, key: jax.Array
) -> list[dict]:
    """Responses to a few held-out problems, where there are any; plain data."""
    answers = run.evaluator.answers
    if answers is None:
        return []
    return answers.browse(params, held_out.problems, key, config.evaluation.browse_documents)


def result_of(
    state: TrainState, steps: int | None, figures: dict[str, float], totals: Totals
) -> dict[str, Any]:
    """The content of evaluation.json.

    Args:
      state: at the end.
      steps: that the run was to take; None where a budget ended it.
      figures: held-out metrics.
      totals: what the run used.
    """
    step = int(state.step)
    return {
        "step": step,
        "steps": steps or step,
        **figures,
        **totals.metrics(),
        "skipped_updates": int(state.skipped),
        "wall_s": {"train": totals.seconds_train, "evaluate": totals.seconds_evaluate},
    }


def write(
    workdir: Path, documents: list[dict], responses: list[dict], result: dict[str, Any]
) -> dict[str, Any]:
    """Writes thoughts, responses and metrics; a run with evaluation.json is finished."""
    thoughts = {"step": result["step"], "documents": documents}
    write_json(workdir / run_folder.THOUGHTS, thoughts)
    if responses:
        answers = {"step": result["step"], "problems": responses}
        write_json(workdir / run_folder.RESPONSES, answers)
    write_json(workdir / run_folder.EVALUATION, result)
    return result
