"""What a run starts from: another run, or a model in the Hugging Face format.

Either brings its network, its parameters and its tokenizer, and a run takes over all three: the
fields of `config.model` that say which network it is, not how it is computed, count for fresh
parameters only, and those of the tokenizer where they are empty.
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
COPIED = (huggingface.CONFIG, GENERATION, *TOKENIZER_FILES)  # what run_folder.HF of a run may hold
TOKENS = ("tokenizer", "bos", "eos", "separator")  # fields of config.data


@dataclasses.dataclass(frozen=True)
class Start:
    """Something to start from.

    Attributes:
      name: as it was given.
      config: of the run; None for a model in the Hugging Face format.
      model: fields of `config.model` that say which network it is, nested.
      tokens: its `TOKENS`.
      files: folder of its files in the Hugging Face format, or None.
      load: abstract parameters, with their places, to (parameters, step or None, what they are).
    """

    name: str
    config: ConfigDict | None
    model: Mapping[str, Any]
    tokens: Mapping[str, str]
    files: Path | None
    load: Callable[[Params], tuple[Params, int | None, str]]


def find(name: str) -> Start:
    """What `init_from` names: the folder of a run, with or without @step, the folder of one of its
    checkpoints, a folder in the Hugging Face format, a GGUF file, or a name on the hub.

    Raises:
      UserError: there is no such thing, or its network is not supported.
    """
    folder = Path(name)
    if folder.is_dir() and folder.parent.name == run_folder.CHECKPOINTS:
        return find(f"{folder.parent.parent}@{folder.name}")
    workdir = Path(run_reference.checkpoint_on_disk(name).run)
    if name and workdir != Path() and workdir.is_dir():
        if not _is_hugging_face(workdir):
            return _run(name, workdir)
        if workdir != folder:
            raise UserError(f"{name}: {workdir} is no run and has no steps; name it without the @")
    return _model(name, huggingface.find(name))


def adopt(
    config: ConfigDict,
    workdir: Path,
    explicit: Collection[str] = (),
    pending: Mapping[str, ConfigDict] = MappingProxyType({}),
) -> ConfigDict:
    """The config with the network and the tokenizer of what it starts from.

    A run that has begun keeps those that it began with, so what it started from may be gone.

    Args:
      config: of a run.
      workdir: folder of the run.
      explicit: dotted paths of fields that were set by hand, which are not overruled.
      pending: folder -> config of runs that are yet to be made.

    Raises:
      UserError: there is nothing of that name, or an explicit field contradicts it.
    """
    if not config.init_from:
        return config
    model: Mapping[str, Any]
    tokens: Mapping[str, str]
    begun = _begun(config, workdir)
    if begun is not None:
        model, tokens = _of_run(begun)
    elif source := _pending(config.init_from, pending):
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
        raise UserError(f"{config.init_from} is of another version: {', '.join(odd)}")
    changed = [path for path in after if after[path] != before[path]]
    for path in changed:
        if path in explicit:
            raise UserError.of(
                path,
                before[path],
                f", but {config.init_from} has {after[path]!r}; leave it out: a run has the "
                "network that it starts from",
            )
    if changed and begun is None:
        told = ", ".join(f"{path}={after[path]!r}" for path in changed)
        LOGGER.info("the network is that of %s: %s", config.init_from, told)
    return adopted


def files_for(
    config: ConfigDict, workdir: Path, pending: Mapping[str, ConfigDict] = MappingProxyType({})
) -> Path | None:
    """The folder of the Hugging Face files of a run: its own, or before it has begun, those of
    what it starts from. None if neither has any."""
    if _begun(config, workdir) is not None:
        return _own_files(workdir)
    if source := _pending(config.init_from, pending):
        return files_for(pending[source], Path(source), pending)
    return find(config.init_from).files if config.init_from else None


def same_tokenizer(config: ConfigDict, files: Path | None) -> bool:
    """Whether some files are of a model with the tokenizer of a run: where its config names none,
    and where they are those of a run whose config names the same.

    Args:
      config: of the run.
      files: as of `files_for`.
    """
    if files is None or not config.data.tokenizer:
        return files is not None
    return _kept_with(config, files, "tokenizer")


def same_template(config: ConfigDict, files: Path | None) -> bool:
    """Whether some files are those of a run with the same `data.chat_template`, which they hold."""
    return files is not None and _kept_with(config, files, "chat_template")


def _kept_with(config: ConfigDict, files: Path, field: str) -> bool:
    """Whether some files are those of a run whose config has the same value of a field of data."""
    saved = files.parent / run_folder.CONFIG
    return (
        files.name == run_folder.HF
        and saved.is_file()
        and load_run(saved).data.get(field) == config.data[field]
    )


def changed_template(config: ConfigDict, workdir: Path) -> bool:
    """Whether the Jinja file of a run that has begun is there and is not what the run has kept."""
    kept, named = workdir / run_folder.HF / TEMPLATE, Path(config.data.chat_template)
    if not (same_template(config, kept.parent) and kept.is_file() and named.is_file()):
        return False
    lines = lambda path: path.read_bytes().replace(b"\r\n", b"\n")
    return lines(kept) != lines(named)


def _begun(config: ConfigDict, workdir: Path) -> ConfigDict | None:
    """The config that the run in a folder began with; None if it begins now. With a checkpoint it
    has begun, whatever it is to start from by now."""
    path = workdir / run_folder.CONFIG
    saved = load_run(path) if path.is_file() else None
    if saved is None or saved.get("init_from") == config.init_from:
        return saved
    return saved if saved_steps(workdir / run_folder.CHECKPOINTS) else None


def _pending(name: str, pending: Mapping[str, ConfigDict]) -> str:
    """The folder among the pending runs that `name` means, or ""."""
    return same_folder(name, pending) or same_folder(run_reference.checkpoint(name).run, pending)


def same_folder(name: str, folders: Iterable[str]) -> str:
    """The one of some folders that `name` means, with links resolved; "" for none."""
    if not name:
        return ""
    place = os.path.realpath(name)
    return next((folder for folder in folders if os.path.realpath(folder) == place), "")


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

    find_step(name)  # there is one
    saved = load_run(workdir / run_folder.CONFIG)
    return Start(name, saved, *_of_run(saved), _own_files(workdir), load)


def _own_files(workdir: Path) -> Path | None:
    """The Hugging Face files of the run in a folder; None if it has none.

    A folder of that name which someone else put there, as an export may be, is not the run's.
    """
    own, made = workdir / run_folder.HF, ownership.made_files(workdir)
    if made and not own.is_dir():
        raise UserError(f"{own} is missing, from which this run has its tokenizer; put it back")
    return own if made is not False and own.is_dir() else None


def _of_run(config: ConfigDict) -> tuple[dict[str, Any], dict[str, str]]:
    """Fields of the network, and of the tokenizer."""
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
                "%s has fields that change nothing and are kept for exports: %s",
                folder / huggingface.CONFIG,
                ", ".join(unread),
            )
        tensors = hf.tensors(family, model)
        count = sum(not tensor.copy_of for tensor in tensors)
        with progress(count, 0, f"reading {folder.name}", "tensor") as bar:

            def watch(some: Collection[hf.Tensor]) -> Iterator[hf.Tensor]:
                for tensor in some:
                    yield tensor
                    bar.update(1)

            places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
            params = huggingface.read_params(folder, tensors, places, watch=watch)
        return params, None, f"{name} ({family.architecture})"

    which = {k: x for k, x in dataclasses.asdict(model).items() if k not in HOW}
    return Start(name, None, which, dict.fromkeys(TOKENS, ""), folder, load)


def network(fields: Mapping[str, Any]) -> ModelConfig:
    """The network that the fields of `config.model` describe.

    Raises:
      ValueError: a field has no meaning, or there is no such field.
    """
    values = dict(fields) | {"rope": Rope(**fields["rope"])}
    return ModelConfig(**values | {"attention": fields["attention"] or None})


def copy_files(files: Path | None, workdir: Path, further: bool = False) -> None:
    """Puts what is not weights of a model into the folder of a run, whole or not at all, and
    records that the folder is that run's. Its copy from an earlier start is replaced.

    Args:
      files: to copy; None for none.
      workdir: folder of the run.
      further: the run has more to keep there.

    Raises:
      UserError: something else has the name of the copy.
    """
    own = workdir / run_folder.HF
    if not _are(own, files):
        replaced = has_former_files(files, workdir, further)
        ownership.claim(workdir, "run", replaced or further or files is not None)
        if files is not None:
            with unfinished(own) as folder:
                for name in COPIED:
                    if (files / name).is_file():
                        shutil.copyfile(files / name, folder / name)
                if replaced:
                    shutil.rmtree(own)
        elif replaced:
            shutil.rmtree(own)
    ownership.claim(workdir, "run", further or files is not None)


def has_former_files(files: Path | None, workdir: Path, further: bool = False) -> bool:
    """Whether a run has a copy of other files than those that it is to have.

    Raises:
      UserError: something that the run did not make has the name of the copy.
    """
    own = workdir / run_folder.HF
    if not os.path.lexists(own) or _are(own, files):
        return False
    made = ownership.made_files(workdir)
    if files is None and not further and not made:
        return False  # whatever it is, it is left alone
    inside = list(own.iterdir()) if own.is_dir() and not own.is_symlink() else [own]
    if made and all(path.is_file() and path.name in COPIED for path in inside):
        return bool(inside)
    if not inside:
        return False
    raise UserError(f"{own} is in the way, since this run did not make it; move it somewhere else")


def _are(own: Path, files: Path | None) -> bool:
    return files is not None and own.is_dir() and own.samefile(files)
