"""The kinds of runs that the soak test disturbs, with their inputs and command lines."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import runs
from tests.support.paths import ROOT

WORKDIR = "run"  # the --workdir of every command; all paths are relative to the folder of the case
BASE = "base"  # a finished run that others start from

Fields = dict[str, Any]
# Enough steps and checkpoints that most of the time is not spent on start-up.
MANY: Fields = {"steps": 18, "evaluation.every": 7, "checkpoint.every": 2}
TEXT: Fields = {"data.train": "text.jsonl"}
TEXT_RUN = runs.TEXT | TEXT | MANY
SFT: Fields = TEXT | {
    "data.sft.train": "pairs.jsonl",
    "data.sft.prompt_column": "prompt",
    "data.sft.response_column": "response",
    "data.sft.share": 0.5,
    "data.sequence_length": 48,
}
# The config file of an experiment with two arms; the second starts from the first.
EXPERIMENT = """
from ml_collections import ConfigDict
from configs import default

def get_config():
    config = default.get_config()
    config.update_from_flattened_dict({fields!r})
    config.arms = ConfigDict({{
        "base": {{}},
        "rlp": {{"objective": "rlp", "init_from": "base"}},
    }})
    return config
"""


def train(fields: Fields, workdir: str = WORKDIR) -> list[str]:
    """Return the command line of one run."""
    config = f"--config={ROOT}/configs/default.py"
    flags = [f"--config.{name}={value}" for name, value in runs.flat_config(fields).items()]
    return [sys.executable, "-m", "launch.train", config, f"--workdir={workdir}", *flags]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of run.

    Attributes:
      command: The command line, which is the same in every case.
      write: Writes the input files of the run into a folder.
      before: Command lines that create further inputs in that folder.
      runs: Folders of runs in the workdir.
    """

    command: list[str]
    write: Callable[[Path], object] = runs.text_file
    before: list[list[str]] = dataclasses.field(default_factory=list)
    runs: tuple[str, ...] = (".",)


def _write_pairs(folder: Path) -> None:
    runs.text_file(folder)
    with (folder / "pairs.jsonl").open("w") as file:
        for n in range(12):
            row = {"prompt": f"{n} and {n}", "response": f"make {2 * n}"}
            file.write(json.dumps(row) + "\n")


def _write_experiment(folder: Path) -> None:
    fields = runs.flat_config(runs.COMPASS, MANY, {"steps": 10})
    (folder / "tiny.py").write_text(EXPERIMENT.format(fields=fields))


KINDS = {
    "text": Kind(train(TEXT_RUN)),
    "rlp": Kind(train(runs.TEXT_RLP | TEXT | MANY)),
    "rlvr": Kind(train(runs.COMPASS_RLVR | MANY), write=lambda folder: None),
    "sft": Kind(train(TEXT_RUN | SFT), write=_write_pairs),
    "init_from": Kind(
        train(runs.TEXT_RLP | TEXT | MANY | {"init_from": BASE}),
        before=[train(TEXT_RUN | {"steps": 2}, BASE)],
    ),
    "experiment": Kind(
        [sys.executable, "-m", "launch.train", "--config=tiny.py", f"--workdir={WORKDIR}"],
        write=_write_experiment,
        runs=("base", "rlp"),
    ),
}
