"""What lives where on the mesh: one table from parameter path to logical axes to mesh axes.

The mesh has three axes. `data` and `fsdp` both split the batch; `fsdp` also splits the parameters'
model width, `tensor` splits heads, feed-forward and vocabulary. Nothing else in the project names
a mesh axis.

Parameters lie *at rest* as the table says. To be multiplied by, they are *gathered* over `fsdp`:
one layer at a time while training (`in_use`), all at once in the copy that a rollout decodes with.
Activations are split by rows and heads. That is said with constraints (`place`) under
`jax.set_mesh`, and the rest is propagated (Auto axes). Without a mesh, or on one device, there is
nothing to say.
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

# Path in the parameter tree -> logical axis of each dimension. Those of layers, "blocks/…", are
# added by `models.layers.registry`.
LOGICAL_AXES: dict[str, tuple[str | None, ...]] = {
    "embedding": ("vocab", "width"),
    "norm/scale": ("norm",),
    "head/kernel": ("width", "vocab"),
}

# Logical axis -> mesh axis; None keeps it whole on every device.
MESH_AXES: dict[str | None, str | tuple[str, ...] | None] = {
    "rows": ("data", "fsdp"),
    "draws": ("data", "fsdp", "tensor"),
    "layers": None,
    "width": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "ffn": "tensor",
    "vocab": "tensor",
    "norm": None,
    None: None,
}


def largest_axis(shapes: Any) -> str | None:
    """The logical axis of the largest dimension of the parameter that takes the most memory.

    Args:
      shapes: a parameter tree of arrays or ShapeDtypeStructs.
    """
    name, leaf = max(by_name(shapes).items(), key=lambda entry: math.prod(entry[1].shape))
    dimensions = zip(leaf.shape, _logical_axes(name), strict=True)
    return max(dimensions, key=lambda dimension: dimension[0])[1]


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence | None = None
) -> Mesh:
    """A mesh over all devices (or the given ones); one size may be -1 for all that are left.

    Raises:
      ValueError: if the sizes do not multiply to the number of devices.
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
    # In the order that suits the wiring between them, a side of which may be split.
    grid = create_device_mesh(tuple(sizes), devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over `data` and `fsdp`; everything behind the first dimension is whole."""
    return NamedSharding(mesh, PartitionSpec(MESH_AXES["rows"]))


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts `batch_sharding` splits the rows."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def parameter_shardings(
    mesh: Mesh, shapes: Any, *, gathered: bool = False, memory: str | None = None
) -> Any:
    """Shardings of a parameter tree, by path.

    Args:
      mesh: from `make_mesh`.
      shapes: the tree of arrays or ShapeDtypeStructs.
      gathered: whole over `fsdp`, instead of at rest.
      memory: kind of memory, such as "pinned_host"; None is the device's own.

    Raises:
      ValueError: for a path that the table does not know, a dimension that its mesh axis does not
        divide, or a mesh axis used twice.
    """

    def sharding(path, leaf):
        name = name_of(path)
        logical = _logical_axes(name)
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
        return NamedSharding(mesh, _spec(logical, gathered), memory_kind=memory)

    return jax.tree_util.tree_map_with_path(sharding, shapes)


def place(x: jax.Array, *axes: str | None) -> jax.Array:
    """An activation with its dimensions split by logical axes; None is whole on every device.

    Dimensions behind those that are named are whole, too.
    """
    if not _on_a_mesh():
        return x
    return jax.lax.with_sharding_constraint(x, _spec(axes))


def in_use(params: Any, root: str = "", dtype: Any = None) -> Any:
    """Parameters as they are multiplied by: whole over `fsdp`, and matrices in `dtype`.

    Their gradient is at rest again, so that it is summed over `fsdp` in parts.

    Args:
      params: a tree of parameters of one layer, or of the network; or one array.
      root: path of the tree in the network's, "blocks" for a layer.
      dtype: of matrices and biases; None leaves it.
    """

    def use(path: Any, leaf: jax.Array) -> jax.Array:
        name = "/".join(filter(None, (root, name_of(path))))
        logical = _logical_axes(name)
        if dtype is not None and not name.endswith("scale"):
            leaf = leaf.astype(dtype)
        return _gathered(leaf, logical[-leaf.ndim :]) if _on_a_mesh() else leaf

    return jax.tree_util.tree_map_with_path(use, params)


def _gathered(x: jax.Array, logical: tuple[str | None, ...]) -> jax.Array:
    # The gradient is summed over rows whole, then rests: the compiler sums each part where it goes.
    return jax.lax.with_sharding_constraint(_resting(x, logical), _spec(logical, gathered=True))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _resting(x: jax.Array, logical: tuple[str | None, ...]) -> jax.Array:
    """x, whose gradient lies as parameters do at rest."""
    return x


_resting.defvjp(
    lambda x, logical: (x, None),
    lambda logical, _, slope: (jax.lax.with_sharding_constraint(slope, _spec(logical)),),
)


def on_each_device(run: Callable, axes: Sequence[Any], out: tuple[str | None, ...]) -> Callable:
    """`run`, on every device with its part of the arguments alone, and no exchange between them.

    Args:
      run: arrays to an array.
      axes: of each argument the logical axes of its dimensions as for `place`, or a tree of those.
      out: logical axes of the result.
    """
    if not _on_a_mesh():
        return run
    specs = jax.tree.map(_spec, tuple(axes), is_leaf=_is_axes)
    return jax.shard_map(run, in_specs=specs, out_specs=_spec(out), check_vma=False)


def _is_axes(x: Any) -> bool:
    return isinstance(x, tuple) and all(axis is None or isinstance(axis, str) for axis in x)


def shards(axis: str) -> int:
    """Devices that share a logical axis, in the program that is being traced."""
    sizes, over = dict(jax.sharding.get_abstract_mesh().shape), MESH_AXES[axis]
    names = (over,) if isinstance(over, str) else over or ()
    return math.prod(sizes.get(name, 1) for name in names)


def parameters_are_split() -> bool:
    """Whether the program that is being traced gathers a layer before it is used."""
    return shards("width") > 1


def at_rest(primitive: Any, *_: Any, **__: Any) -> bool:
    """Policy for `jax.checkpoint`: everything may be kept but what was only brought elsewhere."""
    return primitive.name != "sharding_constraint"


def _on_a_mesh() -> bool:
    return jax.sharding.get_abstract_mesh().size > 1


def _logical_axes(name: str) -> tuple[str | None, ...]:
    if name not in LOGICAL_AXES:
        raise ValueError(
            f"parameter {name} is not in models.sharding.LOGICAL_AXES; add it to the `axes` of its "
            "kind of layer"
        )
    return LOGICAL_AXES[name]


def _spec(logical: Sequence[str | None], gathered: bool = False) -> PartitionSpec:
    """Where dimensions with these logical axes lie."""
    axes = [MESH_AXES[axis] for axis in logical]
    return PartitionSpec(*(None if gathered and axis == "fsdp" else axis for axis in axes))
