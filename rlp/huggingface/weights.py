"""Their weight files into our parameters, on any mesh.

What does not fit is found from the headers of the files, before anything is made. Then the tensors
come one by one: read, turned into ours in float32 (exact for every dtype that is read), put on the
devices, and written into their parameter in place. So the host holds the parameters it has to hold
and about one tensor more, whatever the depth.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from models.hf import Tensor
from rlp.errors import UserError
from rlp.huggingface.folder import open_weights, weight_files
from rlp.huggingface.tensors import by_path, stacked_layers

DTYPES = ("F32", "BF16", "F16")  # as safetensors calls them
COMPARED = 2**22  # elements of a tensor and its copy that are in memory at a time, about


def read_params(
    folder: Path,
    tensors: Sequence[Tensor],
    shardings: Any,
    dtype: Any = jnp.float32,
    watch: Callable[[Sequence[Tensor]], Iterable[Tensor]] = iter,
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
        copy that differs from what it should repeat; what `folder.weight_files` raises.
      ValueError: `tensors` and `shardings` are not of one model.
    """
    places = by_path(shardings)
    layers = stacked_layers(tensors, places)
    files = weight_files(folder)
    _check_headers(folder, files, tensors)
    _check_copies(files, tensors)
    params: dict[str, jax.Array] = {}
    for tensor in watch([tensor for tensor in tensors if not tensor.copy_of]):
        path, sharding = tensor.path, places[tensor.path]
        stacked = tensor.layer is not None
        axes = PartitionSpec(*sharding.spec[1:]) if stacked else sharding.spec
        place = NamedSharding(sharding.mesh, axes)
        x = _placed(tensor.ours(_read(files[tensor.name], tensor.name)), place)
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
    """A tensor in float32."""
    with open_weights(path) as file:
        return file.get_tensor(name).astype(np.float32, copy=False)


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
    """Raises UserError that names all that does not fit."""
    expected = {tensor.name: tensor for tensor in tensors}
    missing = [t.name for t in tensors if t.name not in files and not t.copy_of]
    unexpected = sorted(files.keys() - expected.keys())
    misshapen, unread = [], []
    for path in sorted(set(files.values())):
        with open_weights(path) as file:
            for name in sorted(name for name in expected if files.get(name) == path):
                header = file.get_slice(name)
                shape, wanted = tuple(header.get_shape()), tuple(expected[name].shape)
                if shape != wanted:
                    misshapen.append(f"{name} is {list(shape)} instead of {list(wanted)}")
                if header.get_dtype() not in DTYPES:
                    unread.append(f"{name} is {header.get_dtype()}")
    found = {
        "missing": missing,
        "unexpected": unexpected,
        "misshapen": misshapen,
        f"not one of {', '.join(DTYPES)}": unread,
    }
    faults = [f"{fault}: {', '.join(names)}" for fault, names in found.items() if names]
    if faults:
        advice = "take the model before quantisation" if unread else "take weights and config alike"
        raise UserError(
            f"the weights in {folder} are not those of its config: {'; '.join(faults)}; {advice}"
        )


def _check_copies(files: Mapping[str, Path], tensors: Sequence[Tensor]) -> None:
    """Raises UserError if a copy that is there differs in any bit from what it should repeat."""
    for tensor in tensors:
        if tensor.copy_of and tensor.name in files and not _equal(files, tensor):
            raise UserError(
                f"{tensor.name} in {files[tensor.name]} differs from {tensor.copy_of}, which the"
                " config ties it to; set tie_word_embeddings to false in its config.json"
            )


def _equal(files: Mapping[str, Path], tensor: Tensor) -> bool:
    """Whether a copy equals its original in dtype and bits; some rows at a time are in memory."""
    total, *rest = tensor.shape
    rows = max(1, COMPARED // math.prod(rest))
    parts = [slice(start, min(start + rows, total)) for start in range(0, total, rows)]
    with open_weights(files[tensor.name]) as file, open_weights(files[tensor.copy_of]) as other:
        copy, original = file.get_slice(tensor.name), other.get_slice(tensor.copy_of)
        return copy.get_dtype() == original.get_dtype() and all(
            copy[part].tobytes() == original[part].tobytes() for part in parts
        )
