"""Items of checkpoints, and helpers that read, compare and damage checkpoint files."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Moments(NamedTuple):
    """A named tuple, like the states of an optax chain."""

    steps: jax.Array
    mean: dict


class Nothing(NamedTuple):
    """A named tuple without fields, like optax.EmptyState."""


META = {"tokens": 2**60 + 1, "flops": 0.1 + 0.2, "skipped": 0}


def make_items(seed):
    """Return state with random bits, including NaNs with payloads, infinities and denormals."""
    rng = np.random.default_rng(seed)

    def bits(shape, dtype="float32"):
        raw = rng.bytes(math.prod(shape) * jnp.dtype(dtype).itemsize)
        return jnp.asarray(np.frombuffer(raw, jnp.dtype(dtype)).reshape(shape))

    params = {"embed": bits((16, 8)), "layers": {"norm": bits((8,), "bfloat16")}}
    moments = {"embed": bits((16, 8)), "layers": {"norm": bits((8,))}}
    key = jax.random.key_data(jax.random.key(seed))
    return {
        "params": params,
        "optimizer": (Nothing(), Moments(jnp.int32(seed), moments), {"key": key}),
        "baseline": jax.tree.map(lambda x: x[::-1], params),
        "data": {"record": 16 * seed},
        "meta": META,
    }


def abstract(items, sharding=None):
    """Return the array items as structs with a sharding (None: the first device)."""
    arrays = {name: tree for name, tree in items.items() if name not in ("data", "meta")}
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arrays)


def restore(checkpoints, abstract_items):
    """Return (step, items) of the newest complete checkpoint, which must exist."""
    restored = checkpoints.restore(abstract_items)
    assert restored is not None
    return restored


def bits_of(items):
    """Return a value that is equal only if every leaf has the same type, shape and bits."""

    def leaf_bits(leaf):
        if isinstance(leaf, (np.ndarray, jax.Array)):
            return (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes())
        return (type(leaf).__name__, leaf)

    return jax.tree.map(leaf_bits, items), jax.tree.structure(items)


def flip(path):
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def array_file(step_folder, item="params"):
    """Return the largest file of an item."""
    files = (path for path in (step_folder / item).rglob("*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)
