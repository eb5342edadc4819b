"""Check whether a run can use a folder, prepare the folder, and detect a finished run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from rlp.interop import init_from as starting
from rlp.run import datasets
from rlp.run.method import TextMethod
from rlp.run.model_files import save_small_files
from rlp.run.objective_options import with_options
from rlp.runtime import run_folder
from rlp.runtime.config_json import check_same, load_config, save_config
from rlp.runtime.errors import UserError
from rlp.runtime.fingerprints import Fingerprint, changes
from rlp.runtime.strict_json import read_object
from rlp.training.checkpoint.folder import saved_steps

LOGGER = logging.getLogger(__name__)


def check_config(config: ConfigDict, workdir: Path, allow_config_change: bool) -> None:
    """Refuse a folder that contains a run with a different config.

    Raises:
      UserError: If the configs differ and `allow_config_change` is False; lists the differences.
    """
    if not allow_config_change and (changes := config_changes(config, workdir)):
        raise UserError(
            f"{workdir} contains a run with a different config ({'; '.join(changes)}); choose "
            "another --workdir, or pass --allow_config_change to continue with the new config"
        )


def config_changes(config: ConfigDict, workdir: Path) -> list[str]:
    """Return how the config differs from that of the run in the folder; [] without a run."""
    saved = workdir / run_folder.CONFIG
    if not saved.exists():
        return []
    changes = check_same(load_config(saved), with_options(config))
    if starting.changed_template(config, workdir):
        changes.append(f"data.chat_template: the content of {config.data.chat_template} changed")
    return changes


def check_data(
    saved: Mapping[str, Fingerprint],
    now: Mapping[str, Fingerprint],
    workdir: Path,
    allow_data_change: bool,
) -> None:
    """Refuse data that differ from those of the checkpoint, unless that is allowed.

    Args:
      saved: Their fingerprint in the checkpoint, by config field.
      now: Their fingerprint now.
      workdir: The run folder.
      allow_data_change: Log a warning instead.

    Raises:
      UserError: If they differ and that is not allowed.
    """
    if not (changed := changes(saved, now)):
        return
    differences = "; ".join(changed)
    if not allow_data_change:
        raise UserError(
            f"{workdir} contains a run on different data ({differences}); restore the data, choose "
            "another --workdir, or pass --allow_config_change to continue with the new data"
        )
    LOGGER.warning("continuing with different data: %s", differences)


def starting_files(
    config: ConfigDict,
    workdir: Path,
    pending: Mapping[str, ConfigDict] = MappingProxyType({}),
) -> Path | None:
    """Return the Hugging Face files of the initial model; see `rlp.interop.init_from.files_for`.

    Args:
      config: The config of the run.
      workdir: The run folder.
      pending: The configs of runs that will exist before this run starts, by their folders.

    Raises:
      UserError: If other files prevent copying them to the run folder.
    """
    files = starting.files_for(config, workdir, pending)
    starting.has_former_files(
        files, workdir, _writes_files(config)
    )  # raises if files are in the way
    return files


def _writes_files(config: ConfigDict) -> bool:
    """Return whether the run writes small files for a tokenizer that its config names.

    It writes them in addition to the files of its initial model; see `rlp.run.model_files`.
    """
    return datasets.find(config.data.kind).names_tokenizer(config)


def begin(config: ConfigDict, method: TextMethod, files: Path | None, workdir: Path) -> None:
    """Write to the run folder what the run needs to resume; the config is written last.

    Args:
      config: The config of the run.
      method: The method of the run.
      files: The files of the initial model, from `rlp.interop.init_from.files_for`.
      workdir: The run folder.
    """
    known = starting.same_tokenizer(config, files)
    starting.copy_files(files, workdir, _writes_files(config))
    save_small_files(workdir / run_folder.HF, method, known, config.data)
    (workdir / run_folder.EVALUATION).unlink(missing_ok=True)  # belongs to the previous config
    save_config(config, workdir / run_folder.CONFIG)


def finished(workdir: Path) -> dict[str, Any] | None:
    """Return the content of evaluation.json; None if the run still has to be evaluated.

    Raises:
      UserError: If the file is damaged and there is no checkpoint to evaluate again.
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
        LOGGER.warning("%s; evaluating the last checkpoint again", error)
        return None
