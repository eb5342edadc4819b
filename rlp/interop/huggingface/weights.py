"""Their weights into our parameters, on any mesh.

What does not fit is found from the headers of the files, before anything is made. Then the tensors
come one by one: read, turned into ours in float32 (exact for every dtype that is read), put on the
devices, and written into their parameter in place. So the host holds the parameters it has to hold
and about one tensor more, whatever the depth.
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

from models.hf import Tensor, is_buffer
from models.paths import by_name
from rlp.interop.huggingface.folder import open_weights, weight_files
from rlp.interop.huggingface.tensors import stacked_layers
from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)

DTYPES = ("F32", "BF16", "F16")  # as safetensors calls them
DOUBLE = "F64"  # is read as well where float32 holds its values exactly
COMPARED = 2**20  # elements of a tensor and its copy that are in memory at a time, about
SAVE_AGAIN = "AutoModelForCausalLM.from_pretrained(…, dtype=torch.float32).save_pretrained(…)"

Watch = Callable[[Sequence[Tensor]], Iterable[Tensor]]


def read_params(
    folder: Path,
    tensors: Sequence[Tensor],
    shardings: Any,
    dtype: Any = jnp.float32,
    watch: Watch = iter,
) -> dict[str, Any]:
    """Reads the weights of a folder in the Hugging Face format.

    Args:
      folder: from `folder.find`.
      tensors: what its files hold, and where each belongs; copies may be absent.
      shardings: tree of NamedSharding, as `models.sharding.parameter_shardings` makes it.
      dtype: of the parameters.
      watch: wraps the tensors to be read, as a progress bar does.

    Returns:
      The parameters, a tree like `shardings`.

    Raises:
      UserError: missing, unexpected or misshapen tensors or ones of another dtype, each named; a
        copy that differs from what it should repeat; values that are not finite, or not exact in
        float32; what `folder.weight_files` raises.
      ValueError: `tensors` and `shardings` are not of one model.
    """
    stacked_layers(tensors, by_name(shardings))
    files = weight_files(folder)
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
    """Parameters from any source of tensors, one at a time; the rest is as in `read_params`.

    Args:
      read: the name of a tensor -> its values in float32, in the shape that `tensors` gives. It is
        called once for each tensor, copies excepted, in the order of `tensors`.

    Raises:
      UserError: values that are not finite, with the name of their tensor; what `read` raises.
      ValueError: `tensors` and `shardings` are not of one model.
    """
    places = by_name(shardings)
    layers = stacked_layers(tensors, places)
    params: dict[str, jax.Array] = {}
    for tensor in watch([tensor for tensor in tensors if not tensor.copy_of]):
        path, sharding = tensor.path, places[tensor.path]
        stacked = tensor.layer is not None
        axes = PartitionSpec(*sharding.spec[1:]) if stacked else sharding.spec
        place = NamedSharding(sharding.mesh, axes)
        x = _placed(tensor.ours(_finite(tensor.name, read(tensor.name))), place)
        # At every step: else the host reads ahead, and holds what the devices have not taken yet.
        jax.block_until_ready(x)
        if stacked and path not in params:
            shape = (layers[path], *x.shape)
            params[path] = jnp.zeros(shape, dtype, device=sharding)
        if stacked:
            params[path] = _writer(sharding)(params[path], x, tensor.layer)
        else:
            params[path] = _copier(sharding, dtype)(x)
        jax.block_until_ready(params[path])
        del x  # before the next is read
    return jax.tree.unflatten(jax.tree.structure(shardings), [params[path] for path in places])


def _placed(x: np.ndarray, place: NamedSharding) -> jax.Array:
    """An array that each process has whole: it puts on its own devices what belongs there."""
    own = place.addressable_devices_indices_map(x.shape).items()
    pieces = [jax.device_put(x[part], device) for device, part in own]
    return jax.make_array_from_single_device_arrays(x.shape, place, pieces)


def _read(path: Path, name: str) -> np.ndarray:
    """A tensor in float32.

    Raises:
      UserError: float32 does not hold its values.
    """
    with open_weights(path) as file:
        given = file.get_tensor(name)
    if given.dtype != np.float64:
        return given.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):
        x = given.astype(np.float32)
    if not np.array_equal(x, given, equal_nan=True):
        count = int((x != given).sum())
        raise UserError(
            f"{name} in {path} is float64, and float32 does not hold {count} of its values exactly;"
            f" save the model in float32 with transformers: {SAVE_AGAIN}"
        )
    return x


def _finite(name: str, x: np.ndarray) -> np.ndarray:
    """The values as they are.

    Raises:
      UserError: some are infinite or NaN.
    """
    with np.errstate(invalid="ignore"):  # inf - inf
        total = x.sum(dtype=np.float64)  # one pass without a copy; it cannot overflow
    if np.isfinite(total):
        return x
    places = np.argwhere(~np.isfinite(x))
    first = [int(i) for i in places[0]]
    raise UserError(
        f"{name} has {len(places)} of {x.size} values that are not finite, the first at {first}"
        f" ({x[tuple(first)]}); download the model again, or take another checkpoint of it"
    )


@functools.cache
def _writer(sharding: NamedSharding) -> Callable[..., jax.Array]:
    """(parameter, one layer of it, its index) -> the parameter with it, in the same memory."""

    def write(param: jax.Array, x: jax.Array, layer: int) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(param, x.astype(param.dtype), layer, 0)

    return jax.jit(write, donate_argnums=0, out_shardings=sharding)


@functools.cache
def _copier(sharding: NamedSharding, dtype: Any) -> Callable[[jax.Array], jax.Array]:
    """An array that `device_put` made -> the same in `dtype`, in memory of its own.

    On a CPU, `device_put` keeps to the memory of numpy where that is aligned, even if told not to;
    a step that such a parameter is donated to would not write in place.
    """
    return jax.jit(lambda x: jnp.array(x, dtype, copy=True), out_shardings=sharding)


def _check_headers(folder: Path, files: Mapping[str, Path], tensors: Sequence[Tensor]) -> None:
    """Logs which tensors are passed over.

    Raises:
      UserError: something does not fit; all that does not is named.
    """
    expected = {tensor.name: tuple(tensor.shape) for tensor in tensors}
    headers = _headers(files)
    shapes = {name: shape for name, (shape, _) in headers.items()}
    others = {name: dtype for name, (_, dtype) in headers.items() if dtype not in DTYPES}
    known = sorted(headers.keys() & expected.keys())
    extra = sorted(headers.keys() - expected.keys())
    buffers = [name for name in extra if is_buffer(name, shapes[name])]
    unread = [f"{name} is {others[name]}" for name in known if name in others]
    doubles_alone = all(others[name] == DOUBLE for name in known if name in others)
    found = {
        "missing": [t.name for t in tensors if t.name not in files and not t.copy_of],
        "unexpected": [name for name in extra if name not in buffers],
        "misshapen": [
            f"{name} is {list(shapes[name])} instead of {list(expected[name])}"
            for name in known
            if shapes[name] != expected[name]
        ],
        f"not one of {', '.join(DTYPES)}": [] if doubles_alone else unread,
    }
    faults = [f"{fault}: {', '.join(names)}" for fault, names in found.items() if names]
    if faults:
        quantised = "take the model before quantisation"
        advice = "take weights and config alike" if doubles_alone else quantised
        raise UserError(
            f"the weights in {folder} are not those of its config: {'; '.join(faults)}; {advice}"
        )
    if buffers:
        LOGGER.info(
            "%s holds tensors that are not weights, and are passed over: %s",
            *(folder, _named(buffers)),
        )


def _headers(files: Mapping[str, Path]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every tensor, by name."""
    headers = {}
    for path in sorted(set(files.values())):
        with open_weights(path) as file:
            for name in (name for name in files if files[name] == path):
                header = file.get_slice(name)
                headers[name] = tuple(header.get_shape()), header.get_dtype()
    return headers


def _named(names: Sequence[str], most: int = 4) -> str:
    """The first of the names, and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _check_copies(files: Mapping[str, Path], tensors: Sequence[Tensor]) -> None:
    """Raises UserError if a copy that is there differs from what it should repeat."""
    for tensor in tensors:
        if tensor.copy_of and tensor.name in files:
            _check_copy(files[tensor.name], files[tensor.copy_of], tensor)


def _check_copy(path: Path, original: Path, tensor: Tensor) -> None:
    """Compares values, whatever the two dtypes are; some rows at a time are in memory.

    Raises:
      UserError: they differ.
    """
    total, *rest = tensor.shape
    rows = max(1, COMPARED // math.prod(rest))
    with open_weights(path) as file, open_weights(original) as other:
        slices = file.get_slice(tensor.name), other.get_slice(tensor.copy_of)
        kinds = [part.get_dtype() for part in slices]
        same, rounded = True, kinds[0] != kinds[1]
        for start in range(0, total, rows):
            x, y = (part[start : min(start + rows, total)] for part in slices)
            same = same and _equal(x, y)
            with np.errstate(over="ignore"):
                rounded = rounded and _equal(x, y.astype(x.dtype))
            if not same and not rounded:
                break
    if same:
        return
    said = f"{tensor.name} in {path} differs from {tensor.copy_of}, which the config ties it to"
    if rounded:
        raise UserError(
            f"{said}: it is {kinds[0]}, rounded from {kinds[1]}; remove it from the file, or set"
            " tie_word_embeddings to false in its config.json to keep both"
        )
    raise UserError(f"{said}; set tie_word_embeddings to false in its config.json")


def _equal(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the values are the same, NaN included; the wider of the two dtypes holds both."""
    wide = np.float64 if np.float64 in (x.dtype, y.dtype) else np.float32
    return np.array_equal(x.astype(wide, copy=False), y.astype(wide, copy=False), equal_nan=True)
