"""Start a run from another run or from a Hugging Face model (`init_from`).

The run takes over the architecture, the parameters and the tokenizer of its source. Architecture
fields of `config.model` are used only when training from scratch; `compute_dtype`, `remat` and
`attention` always apply. Tokenizer fields of `config.data` that are set override the source.
"""

import copy
import dataclasses
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
from ml_collections import ConfigDict

from models import hf
from models.config import HOW, ModelConfig
from models.rope import Rope
from models.transformer import Params
from rlp.engine import nonfinite
from rlp.interop import huggingface
from rlp.runtime import ownership, run_folder, run_reference
from rlp.runtime.atomic_files import unfinished
from rlp.runtime.config_json import fields, load_run
from rlp.runtime.errors import UserError
from rlp.runtime.progress import progress
from rlp.tokenizers.files import FILES as TOKENIZER_FILES
from rlp.tokenizers.files import TEMPLATE
from rlp.training.checkpoint import find_step, load_params
from rlp.training.checkpoint.folder import saved_steps

LOGGER = logging.getLogger(__name__)

GENERATION = "generation_config.json"
COPIED = (huggingface.CONFIG, GENERATION, *TOKENIZER_FILES)  # copied to run_folder.HF of a run
TOKENS = ("tokenizer", "bos", "eos", "separator")  # fields of config.data


@dataclasses.dataclass(frozen=True)
class Start:
    """A run or model to start from.

    Attributes:
      name: the value of `init_from`.
      config: config of the run; None for a Hugging Face model.
      model: architecture fields of `config.model`, nested.
      tokens: values of the `TOKENS` fields.
      files: folder with its files in the Hugging Face format, or None.
      load: loads the parameters, given abstract parameters with shardings; returns parameters, step
        (None for a model) and a description.
    """

    name: str
    config: ConfigDict | None
    model: Mapping[str, Any]
    tokens: Mapping[str, str]
    files: Path | None
    load: Callable[[Params], tuple[Params, int | None, str]]


def find(name: str) -> Start:
    """Find the run or model that `init_from` names.

    Args:
      name: a run folder, optionally with @step or @best, a checkpoint folder of a run, a folder in
        the Hugging Face format, a GGUF file, or a name on the hub.

    Raises:
      UserError: If it does not exist, or its architecture is not supported.
    """
    folder = Path(name)
    if folder.is_dir() and folder.parent.name == run_folder.CHECKPOINTS:
        return find(f"{folder.parent.parent}@{folder.name}")
    workdir = Path(run_reference.checkpoint_on_disk(name).run)
    if name and workdir != Path() and workdir.is_dir():
        if not _is_hugging_face(workdir):
            return _run(name, workdir)
        if workdir != folder:
            raise UserError(f"{name}: {workdir} is not a run and has no steps; leave out the @")
    return _model(name, huggingface.find(name))


def adopt(
    config: ConfigDict,
    workdir: Path,
    explicit: Collection[str] = (),
    pending: Mapping[str, ConfigDict] = MappingProxyType({}),
) -> ConfigDict:
    """Return the config with the architecture and tokenizer of its source (`init_from`).

    A run that has already started keeps those that it started with, so its source may be deleted.

    Args:
      config: config of a run.
      workdir: run folder.
      explicit: dotted paths of fields that the user set, which are not overwritten.
      pending: folder -> config of runs that do not exist yet.

    Raises:
      UserError: If the source does not exist, or an explicit field contradicts it.
    """
    if not config.init_from:
        return config
    model: Mapping[str, Any]
    tokens: Mapping[str, str]
    started = _started(config, workdir)
    if started is not None:
        model, tokens = _of_run(started)
    elif source := pending_source(config.init_from, pending):
        model, tokens = _of_run(pending[source])
    else:
        try:
            start = find(config.init_from)
        except UserError as error:
            error.field, error.value = "init_from", config.init_from
            raise
        model, tokens = start.model, start.tokens
    adopted = copy.deepcopy(config)
    if not config.data.tokenizer:
        adopted.data.update({name: config.data[name] or tokens[name] for name in TOKENS})
    adopted.model.update(model)
    before, after = dict(fields(config.model, "model.")), dict(fields(adopted.model, "model."))
    if odd := sorted(after.keys() ^ before.keys()):
        raise UserError(
            f"{config.init_from} was saved by another version: {', '.join(odd)} differ; start "
            "from a run of this version, or from an export to Hugging Face made with that one"
        )
    changed = [path for path in after if after[path] != before[path]]
    for path in changed:
        if path in explicit:
            raise UserError.of(
                path,
                before[path],
                f", but {config.init_from} has {after[path]!r}; leave it out: init_from determines "
                "the architecture of a run",
            )
    if changed and started is None and not pending_source(config.init_from, pending):
        values = ", ".join(f"{path}={after[path]!r}" for path in changed)
        LOGGER.info("using the architecture of %s: %s", config.init_from, values)
    return adopted


def files_for(
    config: ConfigDict, workdir: Path, pending: Mapping[str, ConfigDict] = MappingProxyType({})
) -> Path | None:
    """Return the folder with the Hugging Face files of a run, or of its source if the run has not
    started; None if there are no such files."""
    if _started(config, workdir) is not None:
        return _run_files(workdir)
    if source := pending_source(config.init_from, pending):
        return files_for(pending[source], Path(source), pending)
    return find(config.init_from).files if config.init_from else None


def same_tokenizer(config: ConfigDict, files: Path | None) -> bool:
    """Return whether the Hugging Face files contain the tokenizer of a run: if its config names no
    tokenizer, or the files belong to a run whose config names the same one. They never contain the
    byte tokenizer: beside it, a run keeps the files of its initial model as they are.

    Args:
      config: config of the run.
      files: folder from `files_for`.
    """
    if files is None or config.data.tokenizer == "bytes":
        return False
    if not config.data.tokenizer:
        return True
    return _saved_with(config, files, "tokenizer")


def same_template(config: ConfigDict, files: Path | None) -> bool:
    """Return whether the files belong to a run with the same `data.chat_template`."""
    return files is not None and _saved_with(config, files, "chat_template")


def _saved_with(config: ConfigDict, files: Path, field: str) -> bool:
    """Return whether the files belong to a run whose config has the same value of a data field."""
    saved = files.parent / run_folder.CONFIG
    return (
        files.name == run_folder.HF
        and saved.is_file()
        and load_run(saved).data.get(field) == config.data[field]
    )


def changed_template(config: ConfigDict, workdir: Path) -> bool:
    """Return whether the Jinja file of a run that has started differs from the run's saved copy."""
    saved, named = workdir / run_folder.HF / TEMPLATE, Path(config.data.chat_template)
    if not (same_template(config, saved.parent) and saved.is_file() and named.is_file()):
        return False
    lines = lambda path: path.read_bytes().replace(b"\r\n", b"\n")
    return lines(saved) != lines(named)


def _started(config: ConfigDict, workdir: Path) -> ConfigDict | None:
    """Return the config that the run in a folder started with; None if it has not started. A run
    with a checkpoint has started, even if `init_from` has changed since."""
    path = workdir / run_folder.CONFIG
    saved = load_run(path) if path.is_file() else None
    if saved is None or saved.get("init_from") == config.init_from:
        return saved
    return saved if saved_steps(workdir / run_folder.CHECKPOINTS) else None


def pending_source(name: str, pending: Mapping[str, ConfigDict]) -> str:
    """Return the folder of the pending run that `name` refers to, or ""."""
    return same_folder(name, pending) or same_folder(run_reference.checkpoint(name).run, pending)


def same_folder(name: str, folders: Iterable[str]) -> str:
    """Return the folder that `name` refers to, with links resolved; "" if there is none."""
    if not name:
        return ""
    real = os.path.realpath(name)
    return next((folder for folder in folders if os.path.realpath(folder) == real), "")


def _is_hugging_face(folder: Path) -> bool:
    path = folder / huggingface.CONFIG
    if huggingface.holds_gguf(folder):
        return True
    return path.is_file() and "model_type" in huggingface.read_config(folder)


def _run(name: str, workdir: Path) -> Start:
    def load(abstract: Params) -> tuple[Params, int | None, str]:
        params, step = load_params(name, abstract)
        nonfinite.refuse_parameters(params, f"step {step} of {name}")
        return params, step, f"step {step} of {name}"

    find_step(name)  # raises an error if the checkpoint does not exist
    saved = load_run(workdir / run_folder.CONFIG)
    return Start(name, saved, *_of_run(saved), _run_files(workdir), load)


def _run_files(workdir: Path) -> Path | None:
    """Return the folder with the Hugging Face files of a run; None if it has none.

    A folder of that name that the run did not create, such as an export, is not used.
    """
    saved, made = workdir / run_folder.HF, ownership.made_files(workdir)
    if made and not saved.is_dir():
        raise UserError(f"{saved}, which has the tokenizer of this run, is missing; restore it")
    return saved if made is not False and saved.is_dir() else None


def _of_run(config: ConfigDict) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the architecture fields and the tokenizer fields of a run."""
    model = {name: x for name, x in config.model.to_dict().items() if name not in HOW}
    return model, {name: config.data[name] for name in TOKENS}


def _model(name: str, folder: Path) -> Start:
    config = huggingface.read_config(folder)
    try:
        family, model = hf.family_of(config), hf.read_config(config)
    except hf.Unsupported as error:
        raise UserError(f"{folder / huggingface.CONFIG}: {error}") from error

    def load(abstract: Params) -> tuple[Params, int | None, str]:
        if unread := hf.unread_fields(config):
            LOGGER.info(
                "%s has fields that are ignored here and kept for exports: %s",
                folder / huggingface.CONFIG,
                ", ".join(unread),
            )
        tensors = hf.tensors(family, model)
        count = sum(not tensor.copy_of for tensor in tensors)
        with progress(count, 0, f"reading {folder.name}", "tensor") as bar:

            def watch(to_read: Collection[hf.Tensor]) -> Iterator[hf.Tensor]:
                for tensor in to_read:
                    yield tensor
                    bar.update(1)

            shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
            params = huggingface.read_params(folder, tensors, shardings, watch=watch)
        return params, None, f"{name} ({family.architecture})"

    architecture = {k: x for k, x in dataclasses.asdict(model).items() if k not in HOW}
    return Start(name, None, architecture, dict.fromkeys(TOKENS, ""), folder, load)


def network(fields: Mapping[str, Any]) -> ModelConfig:
    """Return the model config that the fields of `config.model` describe.

    Raises:
      ValueError: If a field is unknown or has an invalid value.
    """
    values = dict(fields) | {"rope": Rope(**fields["rope"])}
    return ModelConfig(**values | {"attention": fields["attention"] or None})


def copy_files(files: Path | None, workdir: Path, further: bool = False) -> None:
    """Copy the files of a model except its weights into a run folder, atomically, and record that
    they belong to the run. A copy from an earlier start is replaced.

    Args:
      files: folder to copy from; None for no files.
      workdir: run folder.
      further: the run will write other files there.

    Raises:
      UserError: If something that the run did not create has the name of the copy.
    """
    saved = workdir / run_folder.HF
    if not _is_same_folder(saved, files):
        replaced = has_former_files(files, workdir, further)
        ownership.claim(workdir, "run", replaced or further or files is not None)
        if files is not None:
            with unfinished(saved) as folder:
                for name in COPIED:
                    if (files / name).is_file():
                        shutil.copyfile(files / name, folder / name)
                if replaced:
                    shutil.rmtree(saved)
        elif replaced:
            shutil.rmtree(saved)
    ownership.claim(workdir, "run", further or files is not None)


def has_former_files(files: Path | None, workdir: Path, further: bool = False) -> bool:
    """Return whether a run folder has a copy of other files than `files`.

    Raises:
      UserError: If something that the run did not create has the name of the copy.
    """
    saved = workdir / run_folder.HF
    if not os.path.lexists(saved) or _is_same_folder(saved, files):
        return False
    made = ownership.made_files(workdir)
    if files is None and not further and not made:
        return False  # it does not belong to the run and stays
    inside = list(saved.iterdir()) if saved.is_dir() and not saved.is_symlink() else [saved]
    if made and all(path.is_file() and path.name in COPIED for path in inside):
        return bool(inside)
    if not inside:
        return False
    raise UserError(
        f"{saved} is in the way, since this run did not create it; move it to another folder"
    )


def _is_same_folder(saved: Path, files: Path | None) -> bool:
    return files is not None and saved.is_dir() and saved.samefile(files)
