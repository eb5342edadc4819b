"""Load items of a checkpoint onto a mesh, and the parameters of another run by its name."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as orbax

from models.paths import by_name
from rlp.runtime import hosts, run_folder, run_reference
from rlp.runtime.consistency import file_facts
from rlp.runtime.errors import UserError
from rlp.runtime.run_reference import BEST
from rlp.training.checkpoint import folder as folders

JSON_ITEMS = ("data", "meta")  # items of plain JSON values; every other item is a tree of arrays
SHOWN = 3  # at most this number of differences between two trees is in an error message


def load_params(spec: str, abstract_params: Any) -> tuple[Any, int]:
    """Load the parameters of another run, and no other item of its checkpoint.

    Args:
      spec: "<workdir>" for its newest checkpoint, "<workdir>@<step>" or "<workdir>@best".
      abstract_params: tree of `jax.ShapeDtypeStruct`. Arrays are loaded with the shardings of
        their structs, whatever mesh they were saved from; without a sharding, onto the first
        device.

    Returns:
      The parameters, and the step of the checkpoint.

    Raises:
      UserError: If there is no such checkpoint (see `find_step`), if it is damaged, or if its tree
        or a shape differs.
    """
    folder, step = hosts.agree(lambda: _verified_step(spec))
    # The manifest contains the checksums of all other files.
    hosts.check_same(file_facts(Path(folder), run_folder.MANIFEST))
    return load_items(Path(folder), {"params": abstract_params})["params"], step


def _verified_step(spec: str) -> tuple[str, int]:
    """Verify the parameters of the step that a spec names; return its folder and number."""
    workdir, step = find_step(spec)
    directory = workdir.absolute() / run_folder.CHECKPOINTS
    fault = folders.find_fault(directory / str(step), items=("params",), contents=True)
    if fault:
        raise UserError(
            f"checkpoint {step} of {workdir} is damaged ({fault}); name another step: "
            f"{_listed(folders.saved_steps(directory))}"
        )
    return str(directory / str(step)), step


def find_step(spec: str) -> tuple[Path, int]:
    """Return the workdir and the step that a spec of `load_params` names.

    Raises:
      UserError: If the run, its checkpoints or the step do not exist.
    """
    workdir, which = _parse(spec)
    steps = folders.saved_steps(workdir.absolute() / run_folder.CHECKPOINTS)
    if not steps:
        arms = sorted(path.parent.name for path in workdir.glob(f"*/{run_folder.CHECKPOINTS}"))
        if arms:
            raise UserError(
                f"{workdir} is an experiment; name one of its runs: "
                f"{', '.join(str(workdir / arm) for arm in arms)}"
            )
        raise UserError(f"{workdir} has no checkpoint; train that run first")
    return workdir, _choose(workdir, which, steps)


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps))


def _parse(spec: str) -> tuple[Path, str]:
    """Split a spec into the workdir and "", "best" or the digits of a step."""
    named = run_reference.checkpoint_on_disk(spec)
    if not Path(named.run).is_dir():
        raise UserError(f"no such folder: {named.run}")
    which = named.detail
    if named.sign and which != BEST and not (which.isascii() and which.isdecimal()):
        raise UserError(f"{spec}: use a step or `{BEST}` after the @, not {which!r}")
    return Path(named.run), which


def _choose(workdir: Path, which: str, steps: list[int]) -> int:
    """Return the step that a spec names, one of `steps`."""
    if which == "":
        return steps[-1]
    if which == BEST:
        best = folders.best_step(workdir.absolute() / run_folder.CHECKPOINTS)
        if best is None:
            raise UserError(
                f"{workdir} has no best checkpoint, since none has a held-out metric; name a step "
                f"({_listed(steps)}), as in {workdir}@{steps[-1]}"
            )
        return best
    if int(which) not in steps:
        raise UserError(
            f"{workdir} has no checkpoint of step {which}; name one of {_listed(steps)}"
        )
    return int(which)


def orbax_context() -> orbax.Context:
    """Return Orbax's options, with which small items are readable JSON files."""
    registry = orbax.handlers.local_registry()
    for name in ("step", *JSON_ITEMS):
        registry.add(orbax.handlers.JsonHandler, checkpointable_name=name)
    context = orbax.Context()
    context.checkpointables.registry = registry
    # Trained float32 values shrink by 8%, and saving and loading would take two to four times as
    # long.
    context.array.saving.use_compression = False
    return context


def load_items(
    folder: Path, abstract_items: Mapping[str, Any], json_items: Collection[str] = ()
) -> dict[str, Any]:
    """Load items of a step that was verified.

    Args:
      folder: of the step.
      abstract_items: from name to a tree of `jax.ShapeDtypeStruct`, for required items.
      json_items: names of optional JSON items.

    Raises:
      UserError: If a required item is missing, or its paths, shapes or dtypes differ.
    """
    manifest = folders.read_manifest(folder)
    saved = {name.partition("/")[0] for name in manifest["files"] if "/" in name}
    if missing := sorted(set(abstract_items) - saved):
        raise UserError(
            f"checkpoint {folder} has no item `{missing[0]}`; its items are "
            f"{', '.join(sorted(saved))}"
        )
    with orbax_context():
        for name, tree in abstract_items.items():
            _check_match(folder, name, tree)
        wanted: dict[str, Any] = {name: None for name in json_items if name in saved}
        wanted |= {name: jax.tree.map(_placed, tree) for name, tree in abstract_items.items()}
        return orbax.load_checkpointables(folder, wanted)


def _placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Add a sharding if there is none, since Orbax would look for the mesh of the saved array."""
    if leaf.sharding is not None:
        return leaf
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _check_match(folder: Path, item: str, tree: Any) -> None:
    """Raise UserError if a saved item and the expected tree differ; names the differences.

    Orbax would cast another dtype silently, and fail with a very long message on another shape.
    """
    saved = _describe(orbax.metadata(folder, item).metadata)
    expected = _describe(tree)
    differences = [
        f"{path} is {saved.get(path, 'absent')} there and {expected.get(path, 'absent')} here"
        for path in sorted(saved.keys() | expected.keys())
        if saved.get(path) != expected.get(path)
    ]
    if differences:
        more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise UserError(
            f"`{item}` of checkpoint {folder} does not match this run's config: "
            f"{'; '.join(differences[:SHOWN])}{more}"
        )


def _describe(tree: Any) -> dict[str, str]:
    """Return dtype and shape of every leaf by its path, as in `float32[4,8]`."""
    return {
        name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
        for name, leaf in by_name(tree).items()
    }
