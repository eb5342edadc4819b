"""bfloat16 arrays kept as bits keep their values, and scans write no others."""

import dataclasses

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from models import backend
from models.bits import as_bits, from_bits, saving_bits
from models.transformer import bind, init
from models.tree import Trunk, forward
from tests.support import tiny


@pytest.fixture(params=[True, False])
def as_integers(request, monkeypatch):
    """Whether the backend keeps bfloat16 arrays as bits, and scans layers."""
    chosen = dataclasses.replace(backend.CPU, bfloat16_as_bits=request.param, unrolled_layers=0)
    monkeypatch.setattr(backend, "CPU", chosen)
    return request.param


def test_only_bfloat16_arrays_are_kept_as_bits(as_integers):
    numbers = jnp.array([0.0, -0.0, 1.5, -3e38, jnp.inf, jnp.nan])
    for dtype in (jnp.float32, jnp.bfloat16):
        x = numbers.astype(dtype)
        kept = as_bits(x)
        assert kept.dtype == (jnp.uint16 if as_integers and dtype == jnp.bfloat16 else x.dtype)
        assert from_bits(kept).dtype == x.dtype
        assert np.asarray(from_bits(kept)).tobytes() == np.asarray(x).tobytes()


@pytest.mark.usefixtures("as_integers")
def test_saving_bits_changes_no_gradient():
    x, y = (jnp.arange(1, 5, dtype=jnp.bfloat16) * factor for factor in (0.5, 2.0))
    index = jnp.array([2, 0])
    function = lambda x, y, index: (jnp.sin(x) * y * y, x[index])
    out, backward = jax.vjp(function, x, y, index)
    kept, backward_of_kept = jax.vjp(saving_bits(function), x, y, index)
    jax.tree.map(np.testing.assert_array_equal, kept, out)
    slope = (x, y[:2])
    for a, b in zip(backward_of_kept(slope)[:2], backward(slope)[:2], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("remat", ["none", "dots", "block"])
def test_the_backward_pass_of_a_scan_reads_bits(as_integers, remat):
    config = tiny.model_config(compute_dtype="bfloat16", num_layers=3, remat=remat)
    params = init(config, jax.random.key(0))
    tokens = jnp.arange(16, dtype=jnp.int32).reshape(2, 8)
    trunk = Trunk(tokens, jnp.ones_like(tokens), jnp.broadcast_to(jnp.arange(8), (2, 8)))
    loss = lambda params: forward(bind(config, params), trunk).astype(jnp.float32).sum()
    written, shapes = set(), set()

    def search(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "scan":
                stacks = equation.outvars[equation.params["num_carry"] :]
                written.update(var.aval.dtype for var in stacks)
                shapes.update(var.aval.shape for var in stacks if var.aval.dtype == jnp.uint16)
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                search(inner)

    search(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)
    assert (jnp.dtype(jnp.uint16) in written) is as_integers
    assert (jnp.dtype(jnp.bfloat16) in written) is not as_integers
    kernels = {leaf.shape for leaf in jax.tree.leaves(params["blocks"]) if leaf.ndim == 3}
    assert not shapes & kernels  # the cast parameters of all layers are not saved
