"""Shardings and memory kinds of a run's state, and the two layouts of its parameters.

at rest    float32, sharded over fsdp and tensor        training: a layer is gathered while it is
                                                        computed, forward and backward
gathered   in the compute dtype, sharded over tensor    rollout: gathered once per step, since every
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

# `rlp.baseline_memory` -> JAX memory kind of phi and the reference while they are not used.
MEMORIES = {"device": None, "host": "pinned_host"}


def state_shardings(
    mesh: Mesh,
    model: ModelConfig,
    optimizer: Optimizer,
    baseline: bool,
    baseline_memory: str = "device",
    reference: bool = False,
) -> Any:
    """Return the shardings of a state, as a TrainState of shardings.

    Optimizer moments, phi and the reference are sharded like their parameters.

    Args:
      mesh: with axes data, fsdp and tensor.
      model: config of the network.
      optimizer: of the run.
      baseline, reference: whether the state contains phi, and whether it contains pi_ref.
      baseline_memory: a key of `MEMORIES`, for phi and the reference.
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
    """Check that the devices have the kind of memory of `rlp.baseline_memory`.

    Raises:
      ValueError: If they do not; names the field.
    """
    kind = MEMORIES[baseline_memory]
    device = next(iter(mesh.local_devices))
    available = {memory.kind for memory in device.addressable_memories()}
    if kind is not None and kind not in available:
        raise ValueError(
            f"rlp.baseline_memory={baseline_memory!r}, but a {device.device_kind} cannot address "
            f"{kind} memory; set it to 'device'"
        )


def abstract_params(model: ModelConfig, mesh: Mesh) -> Params:
    """Return the shapes of the parameters with their shardings on the mesh."""
    tree = shapes(model)
    return placed(tree, parameter_shardings(mesh, tree))


def gather(model: ModelConfig, params: Params) -> Params:
    """Return the parameters in the gathered layout."""
    return in_use(params, dtype=model.dtype)


def needs_gathering(model: ModelConfig, mesh: Mesh, layout: str) -> bool:
    """Return whether rollouts read a gathered copy of the parameters.

    They do not if `layout` (`rlp.rollout_layout`) is not "gathered", or if the copy would equal the
    parameters.
    """
    same = mesh.shape["fsdp"] == 1 and model.dtype == jnp.float32
    return layout == "gathered" and not same


def gatherer(model: ModelConfig, mesh: Mesh, layout: str) -> Callable[[Params], Params] | None:
    """Return the jitted function that gathers parameters; None if `needs_gathering` is False."""
    if not needs_gathering(model, mesh, layout):
        return None
    shardings = parameter_shardings(mesh, shapes(model), gathered=True)
    return jax.jit(functools.partial(gather, model), out_shardings=shardings)


def gathered_bytes(model: ModelConfig, mesh: Mesh) -> tuple[int, int]:
    """Return the bytes that a device receives for the gathered copy, and the bytes of its copy."""
    tree = jax.eval_shape(functools.partial(gather, model), shapes(model))
    size = device_bytes(placed(tree, parameter_shardings(mesh, tree, gathered=True)))
    return size - device_bytes(placed(tree, parameter_shardings(mesh, tree))), size


def device_bytes(tree: Any, without: set[int] = frozenset()) -> int:  # type: ignore[assignment]
    """Return the bytes of a tree of shapes with shardings on one device, without host memory.

    Args:
      tree: of arrays or shapes; Python numbers in it have size 0.
      without: `id`s of leaves that are not counted.
    """
    total, seen = 0, set(without)
    for leaf in jax.tree.leaves(tree):
        if hasattr(leaf, "shape") and id(leaf) not in seen:
            seen.add(id(leaf))
            total += _leaf_bytes(leaf)
    return total


def _leaf_bytes(leaf: Any) -> int:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return math.prod(leaf.shape) * leaf.dtype.itemsize
    if sharding.memory_kind in ("pinned_host", "unpinned_host"):
        return 0
    return math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def placed(tree: Any, shardings: Any) -> Any:
    """Return the shapes of a tree with these shardings."""
    struct = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return jax.tree.map(struct, tree, shardings)
