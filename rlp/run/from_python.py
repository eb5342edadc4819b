"""Training from Python: a notebook or a script in the place of the command line.

    run = train(config("configs/text.py:rlp", steps=20, objective=my_objective),
                data="my_texts/", workdir="runs/mine", on_step=print)

Nothing that belongs to the process is taken over: no logging is set up, freed memory stays with
the allocator's own rules, and of the signals only Ctrl-C is caught, while steps are run. It saves
and comes back as KeyboardInterrupt; `train` with the same arguments resumes.
"""

import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from rlp.run import config_files, experiment, loop
from rlp.run.named_objects import name_of
from rlp.run.results import Experiment, Run
from rlp.runtime.errors import UserError
from rlp.runtime.lookup import names_code
from rlp.runtime.preemption import Preempted, only_ctrl_c

BRIEF = ("reward_mean", "information_gain", "accuracy", "closed_fraction")


class StepMetrics(dict[str, float]):
    """The metrics of a step, "step" among them; printed, they are one short line."""

    def __str__(self) -> str:
        names = BRIEF if "reward_mean" in self else ("loss",)  # a surrogate's value says nothing
        shown = [f"{name} {self[name]:.4g}" for name in names if name in self]
        return f"step {self['step']:.0f}: {', '.join(shown)}"


def config(source: "str | os.PathLike[str] | ConfigDict", **fields: Any) -> ConfigDict:
    """A config, with other values of some fields.

        config("configs/text.py:rlp", steps=20, objective=my_objective, **{"rlp.group_size": 4})

    Args:
      source: "file.py" or "file.py:argument", where a file that is not there is looked for among
        those of this project; or a config.
      fields: dotted path of each field to its value. Fields that name code (`objective`,
        `data.problems.verifier`, `data.kind`, and those of arms) take the object itself, too.

    Raises:
      UserError: as `config_files` does, or an object that another process could not import.
    """
    made = source if isinstance(source, ConfigDict) else config_files.load(os.fspath(source))
    named = {path: _named(path, value) for path, value in fields.items()}
    return config_files.override(made, named)


def train(
    config: ConfigDict,
    *,
    workdir: "str | os.PathLike[str] | None" = None,
    data: Any = None,
    on_step: Callable[[Mapping[str, float]], object] | None = None,
    allow_config_change: bool = False,
) -> Run | Experiment:
    """Trains a run, or the arms of an experiment, in a folder; resumes what stopped there.

    Args:
      config: of a run, or of an experiment (with `arms`).
      workdir: the folder that keeps the run.
      data: documents to train on: the path of files as `data.train` takes them, or an object as
        `data.kind` names one (docs/extending.md); None for those of the config.
      on_step: is called after every step with its metrics; printed, they are one line.
      allow_config_change: resume although the config or the data differ from the saved ones.

    Returns:
      The run, or the experiment, in its folder.

    Raises:
      UserError: for input that cannot be used.
      KeyboardInterrupt: Ctrl-C, or the notebook's stop button; the state is saved.
    """
    if workdir is None:
        raise UserError(
            "workdir is missing; name the folder that keeps the run, as in workdir='runs/mine'"
        )
    config = _with_data(config, data)
    folder = Path(workdir)
    told = None if on_step is None else lambda metrics: on_step(StepMetrics(metrics))
    runs = experiment.run if "arms" in config else loop.train
    options: dict[str, Any] = {
        "allow_config_change": allow_config_change,
        "report": False,
        "on_step": told,
    }
    try:
        with only_ctrl_c():
            runs(config, folder, **options)
    except Preempted:
        raise KeyboardInterrupt(
            f"stopped; the state is saved in {folder}, and the same call resumes from it"
        ) from None
    return Experiment(folder) if "arms" in config else Run(folder)


def _with_data(config: ConfigDict, data: Any) -> ConfigDict:
    """The config with documents from Python in the place of its own."""
    if data is None:
        return copy.deepcopy(config)
    if isinstance(data, str | os.PathLike):
        return config_files.override(config, {"data.train": os.fspath(data)})
    return config_files.override(config, {"data.kind": name_of("data", data)})


def _named(path: str, value: Any) -> Any:
    """The value of a field, where it is an object that the config only names."""
    is_object = names_code(path) and not isinstance(value, str | bool | int | float)
    return name_of(path, value) if is_object else value
