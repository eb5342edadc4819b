"""Our parameters into a folder in the Hugging Face format, whole or not at all.

All is written into a hidden folder beside the one asked for, which takes its name when every byte
is on the disk. One file of weights at a time is in memory.
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

from models.hf import Tensor
from models.paths import by_name
from rlp.interop.huggingface.folder import CONFIG, INDEX, WEIGHTS
from rlp.interop.huggingface.tensors import stacked_layers
from rlp.runtime.atomic_files import refuse_existing, unfinished
from rlp.runtime.errors import UserError

RECORD = "rlp.json"  # where the parameters come from
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
    """Writes a model that Hugging Face libraries can load.

    Args:
      out: the folder to make.
      params: tree of arrays, on any mesh.
      tensors: what to write, in this order; copies are left out.
      config: content of config.json.
      dtype: "bfloat16" or "float32", of the weights in the files; rounded to nearest, ties to even.
      files: name -> content, or a file to copy: what else is to be in the folder.
      record: content of rlp.json.
      shard_bytes: most bytes of tensors in a file; a larger tensor has a file of its own.
      watch: wraps the tensors to be written, as a progress bar does.

    Raises:
      UserError: `out` exists or cannot be written, a file to copy does not exist, too little space,
        an unknown dtype, or parameters that are not finite. Nothing is left on the disk.
      ValueError: `tensors` and `params` are not of one model, or `files` has a name that is taken.
    """
    out = Path(out)
    leaves = by_name(params)
    stacked_layers(tensors, leaves)
    written = [tensor for tensor in tensors if not tensor.copy_of]
    texts = {CONFIG: _json(config), RECORD: _json(record)}
    _check_files(files, texts)
    if dtype not in DTYPES:
        raise UserError(f"weights cannot be written in {dtype!r}; choose {' or '.join(DTYPES)}")
    sizes = {tensor.name: math.prod(tensor.shape) * jnp.dtype(dtype).itemsize for tensor in written}
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
        raise UserError(f"{out} cannot be written ({error}); free it or name another") from error


def _check_files(files: Mapping[str, bytes | str | Path], texts: Mapping[str, str]) -> None:
    """Raises if a further file is not there, or would take the place of another."""
    taken = {*texts, INDEX}
    for name, content in files.items():
        if Path(name).name != name or name in taken or name.endswith(".safetensors"):
            raise ValueError(f"{name} is no name for a further file")
        if isinstance(content, Path) and not content.is_file():
            raise UserError(f"no such file: {content}; the export is to have a copy of it")


def _check_target(out: Path, needed: int) -> None:
    """Raises UserError if `out` exists, or its disk has no room for `needed` bytes."""
    refuse_existing(out)
    above = next(path for path in out.absolute().parents if path.exists())
    free = shutil.disk_usage(above).free
    if needed > free:
        raise UserError(
            f"the weights of {out} take {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB"
            " free; free some, or name a folder on another disk"
        )


def _plan(sizes: Mapping[str, int], shard_bytes: int) -> dict[str, str]:
    """The file of every tensor. Sizes in bytes, in the order of writing."""
    shard, held = 0, 0
    shards = {}
    for name, size in sizes.items():
        if held and held + size > shard_bytes:
            shard, held = shard + 1, 0
        held += size
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
    """Writes one file of weights; its arrays are freed when this returns."""
    arrays = {tensor.name: _gather(leaves[tensor.path], tensor, dtype) for tensor in tensors}
    save_file(arrays, path, metadata={"format": "pt"})  # transformers refuses a file without it
    path.chmod((path.parent / CONFIG).stat().st_mode)  # safetensors lets none but the owner read


def _gather(leaf: jax.Array, tensor: Tensor, dtype: str) -> np.ndarray:
    """A tensor on the host, as the file has it: its layout is that of C.

    Raises:
      UserError: it is not finite, or not so in `dtype`, whose range may be smaller.
    """
    # A new array, because the host's copy of an array lives as long as that array.
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
