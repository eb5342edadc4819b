"""The results of the experiment on a real pretrained model, by arm and document, and their table.

A unit is one setting and one seed. Its results.json has everything that the table needs, and no
text: for each arm its metrics, and for each document of the test split the log-likelihood of the
answer without and with thoughts. A table is made from several such files, which may come from
different days and machines.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.processor import this_processor
from rlp.evaluation.measures.estimates import Estimate, mean
from rlp.report.markdown import aligned
from rlp.runtime import run_folder
from rlp.runtime.atomic_files import write_json, write_whole
from rlp.runtime.strict_json import read_object

Unit = Mapping[str, Any]  # the content of results.json

START = "none"  # the arm that has the parameters of the warm start
SCORES = ("without", "thinking", "right", "closed", "names")
DETECTED = 2.8  # standard errors: found in four of five experiments by a two-sided test at 5%
_NUMBER = re.compile(r"-?\d+")


def write(workdir: Path, setting: str, seed: int, scale: str) -> None:
    """Write results.json and results.md of a unit.

    Args:
      workdir: of the unit, with `measures/<arm>` and `chain/<arm>`.
      setting: name of the setting.
      seed: of the unit.
      scale: "full" or "small".
    """
    arms = sorted(path.name for path in (workdir / "measures").iterdir())
    unit = {
        "setting": setting,
        "seed": seed,
        "scale": scale,
        "processor": this_processor().name,
        "arms": {arm: _results(workdir, arm) for arm in arms},
    }
    write_json(workdir / "results.json", unit)
    write_whole(workdir / "results.md", table([unit]))


def _results(workdir: Path, arm: str) -> dict[str, Any]:
    chain = workdir / "chain"
    measures = read_object(workdir / "measures" / arm / "measures.json")
    return {
        "metrics": read_object(chain / arm / run_folder.EVALUATION),
        "metrics_after_rlvr": read_object(chain / f"{arm}_rlvr" / run_folder.EVALUATION),
        "documents": by_document(measures["models"][0]["thoughts"]),
    }


def by_document(thoughts: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return the scores of each document, as means over its thoughts.

    Args:
      thoughts: of measures.json.

    Returns:
      A number per document, in the order of their numbers, for each name in `SCORES`: the
      log-likelihood of the whole answer `without` a thought and after one (`thinking`), nats; the
      shares of thoughts that are `right` (their last number is the answer), that the network
      `closed`, and that have the answer among their numbers (`names`).
    """
    rows: dict[int, list[tuple[float, ...]]] = {}
    for thought in thoughts:
        answer = _NUMBER.findall(thought["target"])[0]
        numbers = _NUMBER.findall(thought["thought"])
        scores = (
            thought["without"],
            thought["without"] + thought["gains"]["real"],
            float(numbers[-1:] == [answer]),
            float(thought["closed"]),
            float(answer in numbers),
        )
        rows.setdefault(thought["document"], []).append(scores)
    means = np.array([np.mean(rows[document], axis=0) for document in sorted(rows)])
    return dict(zip(SCORES, means.T.round(5).tolist(), strict=True))


def table(units: Sequence[Unit]) -> str:
    """Return the table of units of one setting, with a row per arm, as Markdown.

    Standard errors are over the documents of all units; differences are paired by document.
    """
    scores = lambda arm, name: np.array(
        [x for unit in units for x in unit["arms"][arm]["documents"][name]]
    )
    start = scores(START, "thinking")
    rows = [
        [
            "arm",
            "answer after a thought",
            f"minus {START}",
            "detectable",
            "without a thought",
            "gain",
            *(f"{name} %" for name in ("right", "closed", "names answer")),
            *(f"accuracy{when} %" for when in ("", " after RLVR")),
        ]
    ]
    for arm in units[0]["arms"]:
        thinking, without = scores(arm, "thinking"), scores(arm, "without")
        change = _mean(thinking - start)
        rows.append(
            [
                arm,
                _mean(thinking).shown("+.3f"),
                "" if arm == START else change.shown("+.3f"),
                "" if arm == START else f"{DETECTED * change.error:.3f}",
                _mean(without).shown("+.3f"),
                _mean(thinking - without).shown("+.3f"),
                *(_mean(100 * scores(arm, name)).shown(".1f") for name in SCORES[2:]),
                *(_accuracies(units, arm, key) for key in ("metrics", "metrics_after_rlvr")),
            ]
        )
    seeds = ", ".join(str(unit["seed"]) for unit in units)
    machines = ", ".join(sorted({unit["processor"] for unit in units}))
    caption = (
        f"Setting {units[0]['setting']}, scale {units[0]['scale']}, seeds {seeds}, {len(start)} "
        f"test documents; nats per answer ± standard errors over documents; {machines}."
    )
    return f"{caption}\n\n{aligned(rows, words=1)}\n"


def _mean(values: np.ndarray) -> Estimate:
    return mean(values, np.arange(len(values)))


def _accuracies(units: Sequence[Unit], arm: str, key: str) -> str:
    found = [unit["arms"][arm][key].get("accuracy", math.nan) for unit in units]
    return ", ".join(f"{100 * accuracy:.1f}" for accuracy in found)
