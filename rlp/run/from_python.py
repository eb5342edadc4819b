"""Train from Python: `rlp.config` and `rlp.train`, for notebooks and scripts.

    run = train(config("configs/text.py:rlp", steps=20, objective=my_objective),
                data="my_texts/", workdir="runs/mine", on_step=print)

`train` does not change process-wide state: it does not configure logging or the memory allocator,
and handles only one signal, Ctrl-C, while it runs steps. After Ctrl-C it saves the state and raises
KeyboardInterrupt; calling `train` again with the same arguments resumes the run.
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
    """The metrics of a step, including "step"; `print` shows one short line."""

    def __str__(self) -> str:
        names = BRIEF if "reward_mean" in self else ("loss",)  # a surrogate loss is not meaningful
        shown = [f"{name} {self[name]:.4g}" for name in names if name in self]
        return f"step {self['step']:.0f}: {', '.join(shown)}"


def config(source: "str | os.PathLike[str] | ConfigDict", **fields: Any) -> ConfigDict:
    """Load a config and override some of its fields.

    Args:
      source: A config file, "file.py" or "file.py:argument", or a config to copy. A file that does
        not exist in the current folder is looked up in this project, as in "configs/text.py".
      **fields: The fields to set, by their dotted paths. Fields that name code (`objective`,
        `data.problems.verifier`, `data.kind`, also those of arms) accept the object itself.

    Returns:
      The config of a run or an experiment, for `train`.

    Raises:
      UserError: If the file cannot be loaded, if a field does not exist or does not accept its
        value, or if another process could not import an object.

    Example::

        config = rlp.config("configs/text.py:rlp", steps=20, **{"rlp.group_size": 4})
    """
    loaded = source if isinstance(source, ConfigDict) else config_files.load(os.fspath(source))
    values = {path: _named(path, value) for path, value in fields.items()}
    return config_files.override(loaded, values)


def train(
    config: ConfigDict,
    *,
    workdir: "str | os.PathLike[str] | None" = None,
    data: Any = None,
    on_step: Callable[[Mapping[str, float]], object] | None = None,
    allow_config_change: bool = False,
) -> Run | Experiment:
    """Train a run, or all arms of an experiment, and resume it if it was interrupted.

    Args:
      config: The config of a run, or of an experiment (with `arms`); see `config`.
      workdir: The run folder; created if it does not exist.
      data: Documents to train on: a path, as in the field `data.train`, or an object, as in the
        field `data.kind` (docs/extending.md); None for the documents of the config.
      on_step: Called after every step with its metrics; `print` shows them as one line.
      allow_config_change: Resume even if the config or the data differ from the saved ones.

    Returns:
      A `Run`, or an `Experiment` if the config has `arms`.

    Raises:
      UserError: If the config or the data cannot be used.
      KeyboardInterrupt: After Ctrl-C or the notebook's stop button; the state is saved, and the
        same call resumes from it.

    Example::

        config = rlp.config("configs/text.py:rlp", steps=20)
        run = rlp.train(config, data="my_texts/", workdir="runs/mine")
        run.evaluation
    """
    if workdir is None:
        raise UserError("workdir is missing; name the run folder, as in workdir='runs/mine'")
    config = _with_data(config, data)
    folder = Path(workdir)
    callback = None if on_step is None else lambda metrics: on_step(StepMetrics(metrics))
    train_or_run = experiment.run if "arms" in config else loop.train
    options: dict[str, Any] = {
        "allow_config_change": allow_config_change,
        "report": False,
        "on_step": callback,
    }
    try:
        with only_ctrl_c():
            train_or_run(config, folder, **options)
    except Preempted:
        raise KeyboardInterrupt(
            f"stopped; the state is saved in {folder}, and the same call resumes from it"
        ) from None
    return Experiment(folder) if "arms" in config else Run(folder)


def _with_data(config: ConfigDict, data: Any) -> ConfigDict:
    """Return a copy of the config with `data` as its documents."""
    if data is None:
        return copy.deepcopy(config)
    if isinstance(data, str | os.PathLike):
        return config_files.override(config, {"data.train": os.fspath(data)})
    return config_files.override(config, {"data.kind": name_of("data", data)})


def _named(path: str, value: Any) -> Any:
    """Return the value of a field; if it is an object, the name by which it is imported."""
    is_object = names_code(path) and not isinstance(value, str | bool | int | float)
    return name_of(path, value) if is_object else value
