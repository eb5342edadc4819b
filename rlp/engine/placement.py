"""Where a run's state lies, and in which of two layouts its parameters are read.

at rest    float32, split over fsdp and tensor          training: a layer is gathered when its
                                                        turn comes, forward and backward
gathered   in the compute dtype, split over tensor      rollout: made once per step, since every
                                                        decoded token reads all parameters
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from models.config import ModelConfig
from models.sharding import in_use, parameter_shardings, replicated
from models.transformer import Params, shapes
from rlp.engine.optimizer import Optimizer
from rlp.engine.step import TrainState

# Where phi, and a reference, lie between their uses.
MEMORIES = {"device": None, "host": "pinned_host"}


def state_shardings(
    mesh: Mesh,
    model: ModelConfig,
    optimizer: Optimizer,
    baseline: bool,
    baseline_memory: str = "device",
    reference: bool = False,
) -> Any:
    """Shardings of a whole state, as a TrainState of them.

    Optimizer moments, phi and a reference lie as their parameter does, the last two in the memory
    of that name.
    """
    params = shapes(model)
    placed = parameter_shardings(mesh, params)
    beside = parameter_shardings(mesh, params, memory=MEMORIES[baseline_memory])
    whole = replicated(mesh)
    fields: dict[str, Any] = {
        "params": placed,
        "optimizer": optimizer.shardings(params, placed, whole),
        "baseline": beside if baseline else None,
        "reference": beside if reference else None,
    }
    counters: dict[str, Any] = dict.fromkeys(("step", "skipped", "skipped_in_row"), whole)
    return TrainState(**fields, **counters)


def check_memory(mesh: Mesh, baseline_memory: str) -> None:
    """Refuses a kind of memory that the devices do not have.

    Raises:
      ValueError: naming the field.
    """
    kind = MEMORIES[baseline_memory]
    device = next(iter(mesh.local_devices))
    there = {memory.kind for memory in device.addressable_memories()}
    if kind is not None and kind not in there:
        raise ValueError(
            f"rlp.baseline_memory={baseline_memory!r}, but a {device.device_kind} cannot reach "
            f"{kind} memory; set it to 'device'"
        )


def abstract_params(model: ModelConfig, mesh: Mesh) -> Params:
    """Shapes of the parameters with their places on the mesh."""
    tree = shapes(model)
    return placed(tree, parameter_shardings(mesh, tree))


def gather(model: ModelConfig, params: Params) -> Params:
    """The parameters in the gathered layout."""
    return in_use(params, dtype=model.dtype)


def needs_gathering(model: ModelConfig, mesh: Mesh, layout: str) -> bool:
    """Whether a rollout reads a copy of the parameters: not in their own layout, nor where the copy
    would be the same."""
    same = mesh.shape["fsdp"] == 1 and model.dtype == jnp.float32
    return layout == "gathered" and not same


def gatherer(model: ModelConfig, mesh: Mesh, layout: str) -> Callable[[Params], Params] | None:
    """Jitted parameters to the copy that a rollout reads; None where it reads the parameters
    themselves: in their own layout, or where the copy would be the same."""
    if not needs_gathering(model, mesh, layout):
        return None
    places = parameter_shardings(mesh, shapes(model), gathered=True)
    return jax.jit(functools.partial(gather, model), out_shardings=places)


def gathered_bytes(model: ModelConfig, mesh: Mesh) -> tuple[int, int]:
    """Of the gathered copy: the bytes that a device receives for it, and those that it holds."""
    tree = jax.eval_shape(functools.partial(gather, model), shapes(model))
    held = device_bytes(placed(tree, parameter_shardings(mesh, tree, gathered=True)))
    return held - device_bytes(placed(tree, parameter_shardings(mesh, tree))), held


def device_bytes(tree: Any, without: set[int] = frozenset()) -> int:  # type: ignore[assignment]
    """Bytes of a tree of shapes with placements on one device; host memory does not count.

    Args:
      tree: numbers in it have no size.
      without: ids of leaves that do not count.
    """
    total, seen = 0, set(without)
    for leaf in jax.tree.leaves(tree):
        if hasattr(leaf, "shape") and id(leaf) not in seen:
            seen.add(id(leaf))
            total += _leaf_bytes(leaf)
    return total


def _leaf_bytes(leaf: Any) -> int:
    place = getattr(leaf, "sharding", None)
    if place is None:
        return math.prod(leaf.shape) * leaf.dtype.itemsize
    if place.memory_kind in ("pinned_host", "unpinned_host"):
        return 0
    return math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def placed(tree: Any, places: Any) -> Any:
    """Shapes with these placements."""
    struct = lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
    return jax.tree.map(struct, tree, places)
