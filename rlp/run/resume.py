"""Whether a folder can be used by a run, how the run begins there, and whether it is finished."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from rlp.interop import init_from as starting
from rlp.run import datasets
from rlp.run.method import TextMethod
from rlp.run.model_files import keep
from rlp.run.objective_options import with_options
from rlp.runtime import run_folder
from rlp.runtime.config_json import check_same, load_config, save_config
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import read_object
from rlp.training.checkpoint.folder import saved_steps

LOGGER = logging.getLogger(__name__)


def check_config(config: ConfigDict, workdir: Path, allow_config_change: bool) -> None:
    """Refuses a folder that holds a run of another config."""
    if not allow_config_change and (changes := config_changes(config, workdir)):
        raise UserError(
            f"{workdir} holds a run of another config ({'; '.join(changes)}); take another "
            "--workdir, or --allow_config_change to go on with the new config"
        )


def config_changes(config: ConfigDict, workdir: Path) -> list[str]:
    """What differs from the run in the folder, as `check_same` says it; nothing without one."""
    saved = workdir / run_folder.CONFIG
    if not saved.exists():
        return []
    changes = check_same(load_config(saved), with_options(config))
    if starting.changed_template(config, workdir):
        changes.append(f"data.chat_template: {config.data.chat_template} has another content")
    return changes


def starting_files(
    config: ConfigDict,
    workdir: Path,
    pending: Mapping[str, ConfigDict] = MappingProxyType({}),
) -> Path | None:
    """The files of what a run starts from, as `rlp.interop.init_from.files_for` finds them.

    Args:
      config: of the run.
      workdir: folder of the run.
      pending: configs of runs that will have been made by then, by their folders.

    Raises:
      UserError: something is in the way of their copy in the folder.
    """
    files = starting.files_for(config, workdir, pending)
    starting.has_former_files(files, workdir, _keeps_further(config))  # refuses what is in the way
    return files


def _keeps_further(config: ConfigDict) -> bool:
    """Whether a run keeps files besides those that it starts from: those that it says of a
    tokenizer that its config names (see `rlp.run.model_files`)."""
    return datasets.find(config.data.kind).names_tokenizer(config)


def begin(config: ConfigDict, method: TextMethod, files: Path | None, workdir: Path) -> None:
    """Puts into the folder of a run what it needs to go on, and its config last.

    Args:
      config: of the run.
      method: of the run.
      files: as of `rlp.interop.init_from.files_for`.
      workdir: its folder.
    """
    known = starting.same_tokenizer(config, files)
    starting.copy_files(files, workdir, _keeps_further(config))
    keep(workdir / run_folder.HF, method, known, config.data)
    (workdir / run_folder.EVALUATION).unlink(missing_ok=True)  # first: it is of that config
    save_config(config, workdir / run_folder.CONFIG)


def finished(workdir: Path) -> dict[str, Any] | None:
    """evaluation.json of a finished run; None for a run that is to be evaluated (again).

    Raises:
      UserError: the file is damaged, and there is no checkpoint to make it again from.
    """
    path = workdir / run_folder.EVALUATION
    if not path.exists():
        return None
    try:
        result = read_object(path)
        if "step" in result:
            return result
        raise UserError(f"{path} has no step; the file is damaged")
    except UserError as error:
        if not saved_steps(workdir / run_folder.CHECKPOINTS):
            raise
        LOGGER.warning("%s: the last checkpoint is evaluated again", error)
        return None
