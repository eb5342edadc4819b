"""Load Hugging Face weights into parameters on any mesh.

The headers of the files are checked before any array is created. Then the tensors are processed one
by one: read, converted to our layout in float32 (exact for every supported dtype), put on the
devices, and written into their parameter in place. So the host needs memory for its parameters and
about one tensor, whatever the number of layers.
"""

import functools
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from models.hf import Tensor, as_in, is_buffer, is_unused, whole_shapes
from models.paths import by_name
from rlp.interop.huggingface.folder import open_weights, weight_files
from rlp.interop.huggingface.tensors import stacked_layers
from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)

DTYPES = ("F32", "BF16", "F16")  # names of safetensors
DOUBLE = "F64"  # also supported if float32 represents its values exactly
COMPARED = 2**20  # approximate number of elements that are compared at a time
SAVE_AGAIN = "AutoModelForCausalLM.from_pretrained(…, dtype=torch.float32).save_pretrained(…)"

Watch = Callable[[Sequence[Tensor]], Iterable[Tensor]]


def read_params(
    folder: Path,
    tensors: Sequence[Tensor],
    shardings: Any,
    dtype: Any = jnp.float32,
    watch: Watch = iter,
) -> dict[str, Any]:
    """Read the weights of a folder in the Hugging Face format.

    Args:
      folder: folder from `folder.find`.
      tensors: the tensors that its files must contain; copies may be absent.
      shardings: tree of NamedSharding, as from `models.sharding.parameter_shardings`.
      dtype: dtype of the parameters.
      watch: wraps the tensors to be read, as a progress bar does.

    Returns:
      The parameters, a tree like `shardings`.

    Raises:
      UserError: If tensors are missing, unexpected, misshapen or of an unsupported dtype (all are
        named), a copy differs from its original, values are not finite or not exact in float32, or
        `folder.weight_files` raises it.
      ValueError: If `tensors` and `shardings` belong to different models.
    """
    stacked_layers(tensors, by_name(shardings))
    files = weight_files(folder)
    tensors = as_in(files, tensors)
    _check_headers(folder, files, tensors)
    _check_copies(files, tensors)
    read = lambda name: _read(files[name], name)
    return params_from(read, tensors, shardings, dtype, watch)


def params_from(
    read: Callable[[str], np.ndarray],
    tensors: Sequence[Tensor],
    shardings: Any,
    dtype: Any = jnp.float32,
    watch: Watch = iter,
) -> dict[str, Any]:
    """Load parameters from any source of tensors, one at a time; see `read_params`.

    Args:
      read: returns the values of a tensor by name, in float32 and with the shape in `tensors`. It
        is called once for each tensor except copies, in the order of `tensors`, in which parts of
        the same tensor are next to each other.
      tensors, shardings, dtype, watch: as for `read_params`.

    Raises:
      UserError: If a tensor has values that are not finite, or `read` raises it.
      ValueError: If `tensors` and `shardings` belong to different models.
    """
    leaf_shardings = by_name(shardings)
    layers = stacked_layers(tensors, leaf_shardings)
    params: dict[str, jax.Array] = {}
    part = _reader(read)
    for tensor in watch([tensor for tensor in tensors if not tensor.copy_of]):
        path, sharding = tensor.path, leaf_shardings[tensor.path]
        stacked = tensor.layer is not None
        axes = PartitionSpec(*sharding.spec[1:]) if stacked else sharding.spec
        layer_sharding = NamedSharding(sharding.mesh, axes)
        x = _placed(tensor.ours(_finite(tensor.name, part(tensor))), layer_sharding)
        # Wait at every step: otherwise the host reads ahead and keeps tensors in memory.
        jax.block_until_ready(x)
        if stacked and path not in params:
            shape = (layers[path], *x.shape)
            params[path] = jnp.zeros(shape, dtype, device=sharding)
        if stacked:
            params[path] = _writer(sharding)(params[path], x, tensor.layer)
        else:
            params[path] = _copier(sharding, dtype)(x)
        jax.block_until_ready(params[path])
        del x  # before the next tensor is read
    leaves = [params[path] for path in leaf_shardings]
    return jax.tree.unflatten(jax.tree.structure(shardings), leaves)


def _reader(read: Callable[[str], np.ndarray]) -> Callable[[Tensor], np.ndarray]:
    """Return a function that reads a tensor, or a part of one that is kept until its next part."""
    kept = functools.lru_cache(maxsize=1)(read)

    def part(tensor: Tensor) -> np.ndarray:
        if tensor.rows is not None:
            return tensor.part(kept(tensor.name))
        kept.cache_clear()
        return read(tensor.name)

    return part


def _placed(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Create a global array from an array that every process has in full."""
    local = sharding.addressable_devices_indices_map(x.shape).items()
    pieces = [jax.device_put(x[index], device) for device, index in local]
    return jax.make_array_from_single_device_arrays(x.shape, sharding, pieces)


def _read(path: Path, name: str) -> np.ndarray:
    """Read a tensor as float32.

    Raises:
      UserError: If float32 does not represent its values exactly.
    """
    with open_weights(path) as file:
        stored = file.get_tensor(name)
    if stored.dtype != np.float64:
        return stored.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):
        x = stored.astype(np.float32)
    if not np.array_equal(x, stored, equal_nan=True):
        count = int((x != stored).sum())
        raise UserError(
            f"{name} in {path} is float64, and float32 cannot represent {count} of its values "
            f"exactly; save the model in float32 with transformers: {SAVE_AGAIN}"
        )
    return x


def _finite(name: str, x: np.ndarray) -> np.ndarray:
    """Return the values unchanged.

    Raises:
      UserError: If some values are infinite or NaN.
    """
    with np.errstate(invalid="ignore"):  # inf - inf
        total = x.sum(dtype=np.float64)  # one pass without a copy; it cannot overflow
    if np.isfinite(total):
        return x
    indices = np.argwhere(~np.isfinite(x))
    first = [int(i) for i in indices[0]]
    raise UserError(
        f"{name} has {len(indices)} of {x.size} values that are not finite, the first at {first}"
        f" ({x[tuple(first)]}); download the model again, or use another checkpoint of it"
    )


@functools.cache
def _writer(sharding: NamedSharding) -> Callable[..., jax.Array]:
    """Return a function (parameter, layer, index) that writes a layer into a parameter in place."""

    def write(param: jax.Array, x: jax.Array, layer: int) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(param, x.astype(param.dtype), layer, 0)

    return jax.jit(write, donate_argnums=0, out_shardings=sharding)


@functools.cache
def _copier(sharding: NamedSharding, dtype: Any) -> Callable[[jax.Array], jax.Array]:
    """Return a function that copies an array from `device_put` to new memory, with dtype `dtype`.

    On a CPU, `device_put` shares aligned memory with numpy, even with `may_alias=False`; a jitted
    step could not write such a donated parameter in place.
    """
    return jax.jit(lambda x: jnp.array(x, dtype, copy=True), out_shardings=sharding)


def _check_headers(folder: Path, files: Mapping[str, Path], tensors: Sequence[Tensor]) -> None:
    """Check names, shapes and dtypes of all tensors; log those that are ignored.

    Raises:
      UserError: If tensors do not fit; all of them are named.
    """
    expected = whole_shapes(tensors)
    headers = _headers(files)
    shapes = {name: shape for name, (shape, _) in headers.items()}
    others = {name: dtype for name, (_, dtype) in headers.items() if dtype not in DTYPES}
    known = sorted(headers.keys() & expected.keys())
    extra = sorted(headers.keys() - expected.keys())
    ignored = [name for name in extra if is_buffer(name, shapes[name]) or is_unused(name)]
    unsupported = [f"{name} is {others[name]}" for name in known if name in others]
    only_doubles = all(others[name] == DOUBLE for name in known if name in others)
    names_by_fault = {
        "missing": [t.name for t in tensors if t.name not in files and not t.copy_of],
        "unexpected": [name for name in extra if name not in ignored],
        "misshapen": [
            f"{name} is {list(shapes[name])} instead of {list(expected[name])}"
            for name in known
            if shapes[name] != expected[name]
        ],
        f"dtype is not one of {', '.join(DTYPES)}": [] if only_doubles else unsupported,
    }
    faults = [f"{fault}: {', '.join(names)}" for fault, names in names_by_fault.items() if names]
    if faults:
        advice = "use weights and config.json of the same model"
        if not only_doubles:
            advice = "use the model before quantization"
        raise UserError(
            f"the weights in {folder} do not match its config.json: {'; '.join(faults)}; {advice}"
        )
    if ignored:
        LOGGER.info("%s contains tensors that are ignored: %s", folder, _first_names(ignored))


def _headers(files: Mapping[str, Path]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and dtype of every tensor, by name."""
    headers = {}
    for path in sorted(set(files.values())):
        with open_weights(path) as file:
            for name in (name for name in files if files[name] == path):
                header = file.get_slice(name)
                headers[name] = tuple(header.get_shape()), header.get_dtype()
    return headers


def _first_names(names: Sequence[str], limit: int = 4) -> str:
    """Return the first names as a text, with the number of the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _check_copies(files: Mapping[str, Path], tensors: Sequence[Tensor]) -> None:
    """Raise UserError if a copy is present and differs from its original (tied weights)."""
    for tensor in tensors:
        if tensor.copy_of and tensor.name in files:
            _check_copy(files[tensor.name], files[tensor.copy_of], tensor)


def _check_copy(path: Path, original: Path, tensor: Tensor) -> None:
    """Compare the values of a copy and its original, some rows at a time. Dtypes may differ.

    Raises:
      UserError: If the values differ.
    """
    total, *rest = tensor.shape
    rows = max(1, COMPARED // math.prod(rest))
    with open_weights(path) as file, open_weights(original) as other:
        slices = file.get_slice(tensor.name), other.get_slice(tensor.copy_of)
        dtypes = [part.get_dtype() for part in slices]
        same, rounded = True, dtypes[0] != dtypes[1]
        for start in range(0, total, rows):
            x, y = (part[start : min(start + rows, total)] for part in slices)
            same = same and _equal(x, y)
            with np.errstate(over="ignore"):
                rounded = rounded and _equal(x, y.astype(x.dtype))
            if not same and not rounded:
                break
    if same:
        return
    problem = f"{tensor.name} in {path} differs from {tensor.copy_of}, which config.json ties it to"
    if rounded:
        raise UserError(
            f"{problem}: it is {dtypes[0]}, rounded from {dtypes[1]}; remove it from the file, or"
            " set tie_word_embeddings to false in its config.json to keep both"
        )
    raise UserError(f"{problem}; set tie_word_embeddings to false in its config.json")


def _equal(x: np.ndarray, y: np.ndarray) -> bool:
    """Return whether the values are equal, NaN included, in the wider of the two dtypes."""
    wide = np.float64 if np.float64 in (x.dtype, y.dtype) else np.float32
    return np.array_equal(x.astype(wide, copy=False), y.astype(wide, copy=False), equal_nan=True)
