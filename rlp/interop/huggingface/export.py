"""Write parameters to a folder in the Hugging Face format, atomically.

Files are written to a hidden folder next to the target, which is renamed when every byte is on the
disk. One safetensors shard at a time is in memory.
"""

import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from models.hf import Tensor, whole_shapes
from models.paths import by_name
from rlp.interop.huggingface.folder import CONFIG, INDEX, WEIGHTS
from rlp.interop.huggingface.tensors import stacked_layers
from rlp.runtime.atomic_files import refuse_existing, unfinished
from rlp.runtime.errors import UserError

RECORD = "rlp.json"  # records the source of the parameters
DTYPES = ("bfloat16", "float32")


def write_folder(
    out: Path,
    params: Mapping[str, Any],
    tensors: Sequence[Tensor],
    config: Mapping[str, Any],
    *,
    dtype: str,
    files: Mapping[str, bytes | str | Path],
    record: Mapping[str, Any],
    shard_bytes: int = 2 * 1024**3,
    watch: Callable[[Sequence[Tensor]], Iterable[Tensor]] = iter,
) -> None:
    """Write a model that Hugging Face libraries can load.

    Args:
      out: the folder to create.
      params: tree of arrays, on any mesh.
      tensors: the tensors to write, in this order; copies are left out.
      config: content of config.json.
      dtype: "bfloat16" or "float32", the dtype of the weights in the files; values are rounded to
        nearest, ties to even.
      files: additional files, name -> content or path of a file to copy.
      record: content of rlp.json.
      shard_bytes: maximum bytes of tensors per shard; a larger tensor gets a separate shard.
      watch: wraps the tensors to be written, as a progress bar does.

    Raises:
      UserError: If `out` exists or cannot be written, a file to copy does not exist, the disk is
        too full, the dtype is unknown, or parameters are not finite. Nothing is left on the disk.
      ValueError: If `tensors` and `params` belong to different models, or `files` contains a
        reserved name.
    """
    out = Path(out)
    leaves = by_name(params)
    stacked_layers(tensors, leaves)
    written = [tensor for tensor in tensors if not tensor.copy_of]
    texts = {CONFIG: _json(config), RECORD: _json(record)}
    _check_files(files, texts)
    if dtype not in DTYPES:
        raise UserError(f"cannot write weights with dtype {dtype!r}; choose {' or '.join(DTYPES)}")
    width = jnp.dtype(dtype).itemsize
    sizes = {name: math.prod(shape) * width for name, shape in whole_shapes(written).items()}
    _check_target(out, sum(sizes.values()))
    weight_map = _plan(sizes, shard_bytes)
    if len(set(weight_map.values())) > 1:
        total = {"total_size": sum(sizes.values())}
        texts[INDEX] = _json({"metadata": total, "weight_map": weight_map})
    try:
        with unfinished(out) as folder:
            for name, content in (texts | dict(files)).items():
                _write_file(folder / name, content)
            shards = itertools.groupby(watch(written), lambda tensor: weight_map[tensor.name])
            for name, shard in shards:
                _write_shard(folder / name, leaves, shard, dtype)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{out} cannot be written ({error}); free space or choose another folder"
        ) from error


def _check_files(files: Mapping[str, bytes | str | Path], texts: Mapping[str, str]) -> None:
    """Raise an error if an additional file does not exist or has a reserved name."""
    taken = {*texts, INDEX}
    for name, content in files.items():
        if Path(name).name != name or name in taken or name.endswith(".safetensors"):
            raise ValueError(f"{name} is not a valid name for an additional file")
        if isinstance(content, Path) and not content.is_file():
            raise UserError(f"no such file: {content}; restore it, since the export needs a copy")


def _check_target(out: Path, needed: int) -> None:
    """Raise UserError if `out` exists, or its disk does not have `needed` free bytes."""
    refuse_existing(out)
    parent = next(path for path in out.absolute().parents if path.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise UserError(
            f"the weights of {out} take {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB"
            " free; free some space, or choose a folder on another disk"
        )


def _plan(sizes: Mapping[str, int], shard_bytes: int) -> dict[str, str]:
    """Return the file of every tensor, given their sizes in bytes in the order of writing."""
    shard, used = 0, 0
    shards = {}
    for name, size in sizes.items():
        if used and used + size > shard_bytes:
            shard, used = shard + 1, 0
        used += size
        shards[name] = shard
    if shard == 0:
        return dict.fromkeys(sizes, WEIGHTS)
    return {
        name: f"model-{number + 1:05d}-of-{shard + 1:05d}.safetensors"
        for name, number in shards.items()
    }


def _write_file(path: Path, content: bytes | str | Path) -> None:
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_bytes(content)


def _write_shard(
    path: Path, leaves: Mapping[str, jax.Array], tensors: Iterable[Tensor], dtype: str
) -> None:
    """Write one safetensors shard; its arrays are freed when this returns."""
    arrays = {}
    for name, parts in itertools.groupby(tensors, lambda tensor: tensor.name):
        first, *others = (_gather(leaves[part.path], part, dtype) for part in parts)
        arrays[name] = np.concatenate([first, *others]) if others else first
    save_file(arrays, path, metadata={"format": "pt"})  # transformers requires this metadata
    path.chmod((path.parent / CONFIG).stat().st_mode)  # safetensors allows only the owner to read


def _gather(leaf: jax.Array, tensor: Tensor, dtype: str) -> np.ndarray:
    """Return a tensor, or its part, on the host as it is written to the file, in C order.

    Raises:
      UserError: If a value is not finite in `dtype`, whose range may be smaller.
    """
    # Copy on the device first: JAX caches the host copy of an array as long as the array lives.
    new = _copy(leaf) if tensor.layer is None else _layer(leaf, tensor.layer)
    x = tensor.theirs(np.asarray(new)).astype(jnp.dtype(dtype), order="C", copy=False)
    if x.shape != tuple(tensor.shape):
        raise ValueError(f"{tensor.name} becomes {x.shape} instead of {tuple(tensor.shape)}")
    if not np.isfinite(x).all():
        raise UserError(
            f"{tensor.name} has values that are not finite in {dtype}; export another checkpoint"
        )
    return x


@jax.jit
def _copy(leaf: jax.Array) -> jax.Array:
    return jnp.array(leaf, copy=True)


@jax.jit
def _layer(leaf: jax.Array, layer: int) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(leaf, layer, 0, keepdims=False)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
