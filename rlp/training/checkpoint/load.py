"""Reads items of one checkpoint onto a mesh, and the parameters of another run by its name."""

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

JSON_ITEMS = ("data", "meta")  # items of plain Python numbers; every other item is a tree of arrays
SHOWN = 3  # differences between two trees that an error message names


def load_params(spec: str, abstract_params: Any) -> tuple[Any, int]:
    """Loads the parameters of another run, reading nothing else of its checkpoint.

    Args:
      spec: "<workdir>" (its newest checkpoint), "<workdir>@<step>" or "<workdir>@best".
      abstract_params: tree of `jax.ShapeDtypeStruct`. An array lands on the sharding of its
        struct, whatever mesh wrote it; without a sharding, on the first device.

    Returns:
      (params, step of the checkpoint).

    Raises:
      UserError: as `find_step` does; a damaged checkpoint; another tree or shape.
    """
    folder, step = hosts.agree(lambda: _whole_step(spec))
    # The manifest has the checksums of the rest.
    hosts.check_same(file_facts(Path(folder), run_folder.MANIFEST))
    return load_items(Path(folder), {"params": abstract_params})["params"], step


def _whole_step(spec: str) -> tuple[str, int]:
    """The folder of the step that a spec names, with its parameters checked, and its number."""
    workdir, step = find_step(spec)
    directory = workdir.absolute() / run_folder.CHECKPOINTS
    fault = folders.find_fault(directory / str(step), items=("params",), contents=True)
    if fault:
        raise UserError(
            f"checkpoint {step} of {workdir} is damaged ({fault}); "
            f"{_there(folders.saved_steps(directory))}: name another step"
        )
    return str(directory / str(step)), step


def find_step(spec: str) -> tuple[Path, int]:
    """The workdir and the step that a spec of `load_params` names.

    Raises:
      UserError: no such run, checkpoint or step.
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
    return workdir, _choose(workdir, which, steps, _there(steps))


def _there(steps: list[int]) -> str:
    return f"it has {', '.join(map(str, steps))}"


def _parse(spec: str) -> tuple[Path, str]:
    """Splits a spec into the workdir and "", "best" or the digits of a step."""
    named = run_reference.checkpoint_on_disk(spec)
    if not Path(named.run).is_dir():
        raise UserError(f"no such folder: {named.run}")
    which = named.detail
    if named.sign and which != BEST and not (which.isascii() and which.isdecimal()):
        raise UserError(f"{spec}: after the @ comes a step or `{BEST}`, not {which!r}")
    return Path(named.run), which


def _choose(workdir: Path, which: str, steps: list[int], there: str) -> int:
    """The step that a spec means; `there` says which steps there are, for messages."""
    if which == "":
        return steps[-1]
    if which == BEST:
        best = folders.best_step(workdir.absolute() / run_folder.CHECKPOINTS)
        if best is None:
            raise UserError(
                f"{workdir} has no best checkpoint, for none has a held-out figure; {there}: "
                f"name a step, as in {workdir}@{steps[-1]}"
            )
        return best
    if int(which) not in steps:
        raise UserError(f"{workdir} has no checkpoint of step {which}; {there}")
    return int(which)


def orbax_context() -> orbax.Context:
    """Orbax's options: the small items are JSON files that a person can read."""
    registry = orbax.handlers.local_registry()
    for name in ("step", *JSON_ITEMS):
        registry.add(orbax.handlers.JsonHandler, checkpointable_name=name)
    context = orbax.Context()
    context.checkpointables.registry = registry
    return context


def load_items(
    folder: Path, abstract_items: Mapping[str, Any], json_items: Collection[str] = ()
) -> dict[str, Any]:
    """Loads items of a step that was found whole.

    Args:
      folder: the step's folder.
      abstract_items: name → tree of `jax.ShapeDtypeStruct`; all of them are there, or UserError.
      json_items: names of JSON items, loaded if they are there.

    Raises:
      UserError: an item is not there, or its paths, shapes or dtypes are not those asked for.
    """
    manifest = folders.read_manifest(folder)
    saved = {name.partition("/")[0] for name in manifest["files"] if "/" in name}
    if missing := sorted(set(abstract_items) - saved):
        raise UserError(
            f"checkpoint {folder} has no item `{missing[0]}`; it has {', '.join(sorted(saved))}"
        )
    with orbax_context():
        for name, tree in abstract_items.items():
            _check_fit(folder, name, tree)
        wanted: dict[str, Any] = {name: None for name in json_items if name in saved}
        wanted |= {name: jax.tree.map(_placed, tree) for name, tree in abstract_items.items()}
        return orbax.load_checkpointables(folder, wanted)


def _placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The same struct with a sharding; Orbax would otherwise look for the mesh that wrote it."""
    if leaf.sharding is not None:
        return leaf
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _check_fit(folder: Path, item: str, tree: Any) -> None:
    """Raises UserError that names where a saved item and the tree asked for differ.

    Orbax would cast another dtype without a word, and fail on another shape with pages of text.
    """
    there = _describe(orbax.metadata(folder, item).metadata)
    here = _describe(tree)
    differences = [
        f"{path} is {there.get(path, 'absent')} there and {here.get(path, 'absent')} here"
        for path in sorted(there.keys() | here.keys())
        if there.get(path) != here.get(path)
    ]
    if differences:
        more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise UserError(
            f"`{item}` of checkpoint {folder} does not fit this run's config: "
            f"{'; '.join(differences[:SHOWN])}{more}"
        )


def _describe(tree: Any) -> dict[str, str]:
    """Path of every leaf → its dtype and shape, as in `float32[4,8]`."""
    return {
        name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
        for name, leaf in by_name(tree).items()
    }
