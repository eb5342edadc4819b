"""The grid steps of the TPU kernels; their results are tested in ../attention_test.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.kernels.tpu import TPUKernels
from models.kernels.visits import RangeMask


def range_mask(first, keys):
    """16 queries of one document that see its keys from position `first` to the end."""
    full = lambda value, count: jnp.full((1, count), value, jnp.int32)
    position = jnp.arange(keys)[None]
    return RangeMask(full(1, 16), full(first, 16), full(keys, 16), full(1, keys), position, 1)


@pytest.mark.parametrize(("trunk", "own"), [((600, 700), (0, 16)), ((100, 100), (200, 300))])
def test_every_block_in_memory_exists(trunk, own):
    masks = [range_mask(*trunk), range_mask(*own)]  # the first visited block is not block 0
    kernels = TPUKernels(block_kv=128)
    steps = jax.jit(lambda masks: kernels.worklists(masks, 1).by_queries)(masks)
    for block, keys in zip(steps.scalars[2:], (trunk[1], own[1]), strict=True):
        assert np.all(np.asarray(block) < -(-keys // min(keys, 128)))
