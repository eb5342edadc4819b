"""Where parameters live on the mesh: one table from path to logical axes to mesh axes.

The mesh has three axes. `data` and `fsdp` both split the batch; `fsdp` also splits the parameters'
model width, `tensor` splits heads, feed-forward and vocabulary. Nothing else in the project names
a mesh axis. Placement is by `jit` shardings and propagation (Auto axes).
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")

# Path in the parameter tree -> logical axis of each dimension.
LOGICAL_AXES = {
    "embedding": ("vocab", "width"),
    "blocks/attention/q/kernel": ("layers", "width", "heads"),
    "blocks/attention/k/kernel": ("layers", "width", "kv_heads"),
    "blocks/attention/v/kernel": ("layers", "width", "kv_heads"),
    "blocks/attention/o/kernel": ("layers", "heads", "width"),
    "blocks/attention/q/bias": ("layers", "heads"),
    "blocks/attention/k/bias": ("layers", "kv_heads"),
    "blocks/attention/v/bias": ("layers", "kv_heads"),
    "blocks/attention/q_norm/scale": ("layers", "norm"),
    "blocks/attention/k_norm/scale": ("layers", "norm"),
    "blocks/attention_norm/scale": ("layers", "norm"),
    "blocks/attention_post_norm/scale": ("layers", "norm"),
    "blocks/ffn_norm/scale": ("layers", "norm"),
    "blocks/ffn_post_norm/scale": ("layers", "norm"),
    "blocks/ffn/gate/kernel": ("layers", "width", "ffn"),
    "blocks/ffn/up/kernel": ("layers", "width", "ffn"),
    "blocks/ffn/down/kernel": ("layers", "ffn", "width"),
    "norm/scale": ("norm",),
    "head/kernel": ("width", "vocab"),
}

# Logical axis -> mesh axis; None keeps it whole on every device.
MESH_AXES = {
    "layers": None,
    "width": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "ffn": "tensor",
    "vocab": "tensor",
    "norm": None,
}


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence | None = None
) -> Mesh:
    """A mesh over all devices (or the given ones); one size may be -1 for all that are left.

    Raises:
      ValueError: if the sizes do not multiply to the number of devices.
    """
    grid = np.array(jax.devices() if devices is None else devices)
    sizes = [data, fsdp, tensor]
    named = ", ".join(f"mesh.{name}={size}" for name, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1:
        raise ValueError(f"{named}: at most one size can be -1")
    if -1 in sizes:
        sizes[sizes.index(-1)] = grid.size // -int(np.prod(sizes))
    if int(np.prod(sizes)) != grid.size:
        raise ValueError(f"{named} does not make {grid.size} devices; set one size to -1")
    return Mesh(grid.reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over `data` and `fsdp`; everything behind the first dimension is whole."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts `batch_sharding` splits the rows."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def parameter_shardings(mesh: Mesh, shapes: Any) -> Any:
    """Shardings of a parameter tree, by path.

    Args:
      mesh: from `make_mesh`.
      shapes: the tree of arrays or ShapeDtypeStructs.

    Raises:
      ValueError: for a path that the table does not know, a dimension that its mesh axis does not
        divide, or a mesh axis used twice.
    """

    def sharding(path, leaf):
        name = "/".join(str(entry.key) for entry in path)
        if name not in LOGICAL_AXES:
            raise ValueError(f"parameter {name} is not in models.sharding.LOGICAL_AXES; add it")
        logical = LOGICAL_AXES[name]
        if len(logical) != len(leaf.shape):
            raise ValueError(f"parameter {name} has shape {leaf.shape}, the table says {logical}")
        spec = [MESH_AXES[axis] for axis in logical]
        used = [axis for axis in spec if axis]
        if len(set(used)) < len(used):
            raise ValueError(f"parameter {name} would use a mesh axis twice: {spec}")
        for axis, size, mesh_axis in zip(logical, leaf.shape, spec, strict=True):
            if mesh_axis and size % mesh.shape[mesh_axis]:
                raise ValueError(
                    f"{axis}={size} of parameter {name} is no multiple of "
                    f"mesh.{mesh_axis}={mesh.shape[mesh_axis]}; change one of them"
                )
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(sharding, shapes)
