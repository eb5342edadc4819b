"""The form of products changes the results of bfloat16 by rounding and nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from models import backend
from models.layers.feed_forward import gated
from models.layers.linear import multiply
from models.sharding import batch_sharding, make_mesh
from tests.support import tiny, trees

KEYS = jax.random.split(jax.random.key(0), 8)


def program(platform: str, chosen: bool, run, *arguments):
    """Lower a program for a platform, with the choice of a CPU's form of products."""
    with pytest.MonkeyPatch.context() as patch, backend.compiling_for(platform):
        choices = dataclasses.replace(backend.CPU, float32_products=chosen)
        patch.setattr(backend, "CPU", choices)
        traced = tiny.jit(lambda *x: run(*x)).trace(*arguments)  # a new function is traced anew
        return traced.lower(lowering_platforms=(platform,))


def layers(x, gate, up, down, cotangent):
    """Apply a gated feed-forward and a linear map; return the output and all gradients."""
    run = lambda x, *kernels: multiply(gated(x, *kernels, "silu"), kernels[-1].T)
    out, vjp = jax.vjp(run, x, gate, up, down)
    return out, vjp(cotangent)


def arrays(dtype):
    shapes = (2, 5, 16), (16, 24), (16, 24), (24, 16), (2, 5, 24)
    draw = lambda key, shape: jax.random.normal(key, shape).astype(dtype)
    return [draw(key, shape) for key, shape in zip(KEYS, shapes, strict=False)]


def network(dtype):
    """Return a function and arguments: hidden states of branches, and the gradient."""
    config = tiny.model_config(vocab_size=40, compute_dtype=dtype)
    trunk, branches = trees.random_tree(7)

    def run(params, cotangent):
        def loss(params):
            hidden = trees.run_packed(params, trunk, branches, config=config)
            return trees.weighted(hidden, cotangent, branches.live), hidden

        return jax.value_and_grad(loss, has_aux=True)(params)

    return run, tiny.params(config), trees.random_cotangent(7)


def text(*arguments) -> str:
    return program(*arguments).as_text()


def test_bfloat16_products_in_either_form_agree_within_rounding():
    case = network("bfloat16")
    on, off = (program("cpu", chosen, *case) for chosen in (True, False))
    products = [line for line in on.as_text().splitlines() if "dot_general" in line]
    assert products
    assert all(line.endswith("xf32>") for line in products)
    assert "@LayoutConstraint" in on.as_text()
    assert "@LayoutConstraint" not in off.as_text()
    actual, expected = (lowered.compile()(*case[1:]) for lowered in (on, off))
    assert tiny.relative_error(actual, expected) < 2**-7  # bfloat16 rounds to 2**-9


def test_float32_is_computed_by_the_same_program():
    case = network("float32")
    assert text("cpu", True, *case) == text("cpu", False, *case)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_accelerators_have_one_form(platform):
    case = layers, *arrays(jnp.bfloat16)
    assert text(platform, True, *case) == text(platform, False, *case)
    assert text("cpu", False, *case) == text(platform, False, *case)


def test_on_a_mesh_no_rows_are_gathered():
    mesh, (x, *kernels, cotangent) = make_mesh(devices=jax.devices()[:2]), arrays(jnp.bfloat16)
    x, cotangent = jax.device_put((x, cotangent), batch_sharding(mesh))
    with jax.set_mesh(mesh):
        compiled = program("cpu", True, layers, x, *kernels, cotangent).compile().as_text()
    assert "all-reduce" in compiled  # of the gradients of kernels
    assert "all-gather" not in compiled
