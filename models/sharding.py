"""Shardings: one table from parameter paths to logical axes, and one from those to mesh axes.

The mesh has three axes. `data` and `fsdp` both split the batch; `fsdp` also splits the parameters
along the model width, and `tensor` splits heads, feed-forward and vocabulary. No other module names
a mesh axis.

Parameters are sharded *at rest* as the tables say. For use in a product they are *gathered* over
`fsdp`: one layer at a time in training (`in_use`), all at once in the copy with which a rollout
decodes. Activations are split by rows and heads, by sharding constraints (`constrain`) under
`jax.set_mesh`; the compiler propagates the rest (Auto axes). Without a mesh, or on one device,
these functions do nothing.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from models.paths import by_name, name_of

AXES = ("data", "fsdp", "tensor")

# Path in the parameter tree -> logical axis of each dimension. `models.layers.registry` adds the
# parameters of layers, "blocks/…".
LOGICAL_AXES: dict[str, tuple[str | None, ...]] = {
    "embedding": ("vocab", "width"),
    "norm/scale": ("norm",),
    "head/kernel": ("width", "vocab"),
}

# Logical axis -> mesh axis; None replicates it on every device.
MESH_AXES: dict[str | None, str | tuple[str, ...] | None] = {
    "rows": ("data", "fsdp"),
    "draws": ("data", "fsdp", "tensor"),
    "layers": None,
    "width": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mamba_heads": "tensor",
    "mamba_groups": "tensor",
    "delta_heads": "tensor",
    "delta_key_heads": "tensor",
    "ffn": "tensor",
    "vocab": "tensor",
    "norm": None,
    None: None,
}

# Last names of the parameters that stay float32 in use: factors, and terms of sums in float32.
IN_FLOAT32 = ("scale", "offset")


def largest_axis(shapes: Any) -> str | None:
    """Return the logical axis of the largest dimension of the largest parameter.

    Args:
      shapes: a parameter tree of arrays or ShapeDtypeStructs.
    """
    name, leaf = max(by_name(shapes).items(), key=lambda entry: math.prod(entry[1].shape))
    dimensions = zip(leaf.shape, _logical_axes(name), strict=True)
    return max(dimensions, key=lambda dimension: dimension[0])[1]


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence | None = None
) -> Mesh:
    """Create a mesh over all devices, or over `devices`.

    Args:
      data: size of the axis, as are `fsdp` and `tensor`; one may be -1 for the remaining devices.
      fsdp: size of the axis.
      tensor: size of the axis.
      devices: default: `jax.devices()`.

    Raises:
      ValueError: If the product of the sizes is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [data, fsdp, tensor]
    named = ", ".join(f"mesh.{name}={size}" for name, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1:
        raise ValueError(f"{named}: at most one size can be -1")
    if -1 in sizes:
        sizes[sizes.index(-1)] = len(devices) // -math.prod(sizes)
    if math.prod(sizes) != len(devices):
        raise ValueError(f"{named} does not make {len(devices)} devices; set one size to -1")
    # Orders the devices by their physical topology; a physical axis may be split.
    grid = create_device_mesh(tuple(sizes), devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: the first dimension is split over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(MESH_AXES["rows"]))


def batch_shards(mesh: Mesh) -> int:
    """Return the number of parts into which `batch_sharding` splits the rows."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array that is replicated on every device."""
    return NamedSharding(mesh, PartitionSpec())


def parameter_shardings(
    mesh: Mesh, shapes: Any, *, gathered: bool = False, memory: str | None = None
) -> Any:
    """Return the shardings of a parameter tree, by path.

    Args:
      mesh: from `make_mesh`.
      shapes: a tree of arrays or ShapeDtypeStructs.
      gathered: replicated over `fsdp`, not at rest.
      memory: memory kind, such as "pinned_host"; None is the default memory of the device.

    Raises:
      ValueError: If a path is not in the table, the mesh axis of a dimension does not divide it, or
        a mesh axis would be used twice.
    """

    def sharding(path, leaf):
        name = name_of(path)
        logical = _logical_axes(name)
        if len(logical) != len(leaf.shape):
            raise ValueError(
                f"parameter {name} has shape {leaf.shape}, but LOGICAL_AXES has {logical} for it"
            )
        spec = [MESH_AXES[axis] for axis in logical]
        used = [axis for axis in spec if axis]
        if len(set(used)) < len(used):
            raise ValueError(f"parameter {name} would use a mesh axis twice: {spec}")
        for axis, size, mesh_axis in zip(logical, leaf.shape, spec, strict=True):
            if mesh_axis and size % mesh.shape[mesh_axis]:
                raise ValueError(
                    f"{axis}={size} of parameter {name} is not a multiple of "
                    f"mesh.{mesh_axis}={mesh.shape[mesh_axis]}; change one of them"
                )
        return NamedSharding(mesh, _spec(logical, gathered), memory_kind=memory)

    return jax.tree_util.tree_map_with_path(sharding, shapes)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrain the sharding of an activation.

    Args:
      x: the activation.
      *axes: logical axis of each dimension; None, and every dimension after these, is replicated.
    """
    if not on_a_mesh():
        return x
    return jax.lax.with_sharding_constraint(x, _spec(axes))


def in_use(params: Any, root: str = "", dtype: Any = None) -> Any:
    """Return parameters for use: gathered over `fsdp`, and all but those in float32 in `dtype`.

    Their gradient is sharded at rest again, so that it is reduce-scattered over `fsdp`.

    Args:
      params: a tree of parameters of one layer or of the network, or one array.
      root: path of the tree in that of the network, "blocks" for a layer.
      dtype: dtype of matrices and biases; None keeps theirs, as do `IN_FLOAT32` in any case.
    """

    def use(path: Any, leaf: jax.Array) -> jax.Array:
        name = "/".join(filter(None, (root, name_of(path))))
        logical = _logical_axes(name)
        if dtype is not None and not name.endswith(IN_FLOAT32):
            leaf = leaf.astype(dtype)
        return _gathered(leaf, logical[-leaf.ndim :]) if on_a_mesh() else leaf

    return jax.tree_util.tree_map_with_path(use, params)


def _gathered(x: jax.Array, logical: tuple[str | None, ...]) -> jax.Array:
    # The gradient, whole after the sum over rows, is constrained to be at rest: the compiler turns
    # both into a reduce-scatter.
    return jax.lax.with_sharding_constraint(_resting(x, logical), _spec(logical, gathered=True))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _resting(x: jax.Array, logical: tuple[str | None, ...]) -> jax.Array:
    """Return x; its gradient is sharded as parameters at rest."""
    return x


_resting.defvjp(
    lambda x, logical: (x, None),
    lambda logical, _, dx: (jax.lax.with_sharding_constraint(dx, _spec(logical)),),
)


def on_each_device(run: Callable, axes: Sequence[Any], out: tuple[str | None, ...]) -> Callable:
    """Wrap `run` so that every device applies it to its shard of the arguments alone.

    Args:
      run: maps arrays to an array.
      axes: for each argument the logical axes as for `constrain`, or a tree of those.
      out: logical axes of the result.
    """
    if not on_a_mesh():
        return run
    specs = jax.tree.map(_spec, tuple(axes), is_leaf=_is_axes)
    return jax.shard_map(run, in_specs=specs, out_specs=_spec(out), check_vma=False)


def _is_axes(x: Any) -> bool:
    return isinstance(x, tuple) and all(axis is None or isinstance(axis, str) for axis in x)


def shards(axis: str) -> int:
    """Return the number of shards of a logical axis in the program that is being traced."""
    sizes, over = dict(jax.sharding.get_abstract_mesh().shape), MESH_AXES[axis]
    names = (over,) if isinstance(over, str) else over or ()
    return math.prod(sizes.get(name, 1) for name in names)


def on_a_mesh() -> bool:
    """Return whether the program that is being traced runs on several devices."""
    return jax.sharding.get_abstract_mesh().size > 1


def parameters_are_split() -> bool:
    """Return whether the program that is being traced gathers a layer before it is used."""
    return shards("width") > 1


def at_rest(primitive: Any, *arguments: Any, **_: Any) -> bool:
    """Policy for `jax.checkpoint` of a layer: save everything but parameters as they are used,
    gathered and cast. (Its matrices are parameters; activations have axes of rows and tokens.)"""
    if primitive.name == "convert_element_type":
        return arguments[0].ndim > 2
    return primitive.name != "sharding_constraint"


def _logical_axes(name: str) -> tuple[str | None, ...]:
    if name not in LOGICAL_AXES:
        raise ValueError(
            f"parameter {name} is not in models.sharding.LOGICAL_AXES; add it to the `axes` of its "
            "kind of layer"
        )
    return LOGICAL_AXES[name]


def _spec(logical: Sequence[str | None], gathered: bool = False) -> PartitionSpec:
    """Return the partition spec of dimensions with these logical axes."""
    axes = [MESH_AXES[axis] for axis in logical]
    return PartitionSpec(*(None if gathered and axis == "fsdp" else axis for axis in axes))
