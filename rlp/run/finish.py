"""The end of a run: held-out metrics of the last state, and thoughts and responses to browse."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs.default import Config
from models.transformer import Params
from rlp.data.batch import HeldOut
from rlp.engine.step import TrainState
from rlp.run.assembly import RunParts
from rlp.runtime import run_folder
from rlp.runtime.atomic_files import write_json
from rlp.training.cost import Totals


def browse_thoughts(
    config: Config, run: RunParts, params: Params, held_out: HeldOut, key: jax.Array
) -> list[dict]:
    """Sample thoughts along a few held-out documents, as JSON data; [] without documents."""
    if held_out.documents is None:
        return []
    count, positions = config.evaluation.browse_documents, config.evaluation.browse_positions
    documents = jax.tree.map(lambda x: np.asarray(x)[:count], held_out.documents)
    shown = (run.method.tokenizer.pieces, run.method.separator)
    return run.evaluator.browse(params, documents, key, *shown, positions)


def browse_responses(
    config: Config, run: RunParts, params: Params, held_out: HeldOut, key: jax.Array
) -> list[dict]:
    """Sample responses to a few held-out problems, as JSON data; [] without problems."""
    answers = run.evaluator.answers
    if answers is None:
        return []
    return answers.browse(params, held_out.problems, key, config.evaluation.browse_documents)


def result_of(
    state: TrainState, steps: int | None, metrics: dict[str, float], totals: Totals
) -> dict[str, Any]:
    """Return the content of evaluation.json.

    Args:
      state: The last state.
      steps: The planned number of steps; None if a budget ended the run.
      metrics: The held-out metrics.
      totals: What the run used.
    """
    step = int(state.step)
    return {
        "step": step,
        "steps": steps or step,
        **metrics,
        **totals.metrics(),
        "skipped_updates": int(state.skipped),
        "wall_s": {"train": totals.seconds_train, "evaluate": totals.seconds_evaluate},
    }


def write(
    workdir: Path, documents: list[dict], responses: list[dict], result: dict[str, Any]
) -> dict[str, Any]:
    """Write thoughts, responses and, last, evaluation.json, which marks the run as finished."""
    thoughts = {"step": result["step"], "documents": documents}
    write_json(workdir / run_folder.THOUGHTS, thoughts)
    if responses:
        answers = {"step": result["step"], "problems": responses}
        write_json(workdir / run_folder.RESPONSES, answers)
    write_json(workdir / run_folder.EVALUATION, result)
    return result
