"""The GPU kernels lower without a GPU; their results are tested in ../attention_test.py."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from models.backend import compiling_for
from tests.support.forest import forest, run, run_and_vjp

KERNELS = {"attention_forward": 1, "attention_dq": 1, "attention_dkv": 2}


def lowered(step, f):
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="cuda")
    mesh = AbstractMesh((1,), ("x",), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh), compiling_for("cuda"):
        return jax.jit(step).trace(f).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_they_lower_for_an_h200_and_add_in_one_order(head_dim, dtype):
    f = forest(rows=1, trunk=100, slots=40, head_dim=head_dim, dtype=jnp.dtype(dtype))
    text = lowered(lambda f: run_and_vjp(f, "pallas_gpu"), f)
    names = re.findall(r'name = "(attention_[a-z]+)"', text)
    assert {name: names.count(name) for name in KERNELS} == KERNELS
    assert "atomic" not in text  # atomic sums have no fixed order


def test_decoding_lowers_as_one_kernel():
    f = forest(rows=1, trunk=100, slots=40, last=True, dtype=jnp.bfloat16)
    text = lowered(lambda f: run(f.arrays, f, None), f)
    assert re.findall(r'name = "(attention_[a-z]+)"', text) == ["attention_forward"]
