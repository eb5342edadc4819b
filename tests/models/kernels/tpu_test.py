"""The steps of a TPU's walk through its blocks; what it computes is tested with all others'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.kernels.tpu import TPUKernels
from models.kernels.visits import Sight


def sight(first, keys):
    """16 queries of one document that see its keys from position `first` on."""
    of = lambda value, count: jnp.full((1, count), value, jnp.int32)
    return Sight(of(1, 16), of(first, 16), of(keys, 16), of(1, keys), jnp.arange(keys)[None], 1)


@pytest.mark.parametrize(("trunk", "own"), [((600, 700), (0, 16)), ((100, 100), (200, 300))])
def test_every_block_at_hand_is_there(trunk, own):
    sights = [sight(*trunk), sight(*own)]  # the first block met is not the first one
    kernels = TPUKernels(key_block=128)
    steps = jax.jit(lambda sights: kernels.worklists(sights, 1).by_queries)(sights)
    for held, keys in zip(steps.scalars[2:], (trunk[1], own[1]), strict=True):
        assert np.all(np.asarray(held) < -(-keys // min(keys, 128)))
