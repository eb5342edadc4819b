"""The table of shardings contains every parameter; errors name what cannot be sharded."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from models import backend, sharding
from models.layers.registry import check_layers
from models.sharding import (
    batch_sharding,
    make_mesh,
    parameter_shardings,
    replicated,
)
from models.transformer import bind, shapes
from models.tree import Trunk, forward
from tests.support import tiny


def test_every_parameter_has_a_sharding():
    mesh = make_mesh(2, 2, 2)
    for changes in (
        {},
        {"tie_embeddings": False},
        {"qk_norm": "none", "qkv_bias": True},
        {"qk_norm": "all_heads", "norm": "after"},
        {"norm": "around", "zero_centered_norm": True},
    ):
        tree = shapes(tiny.model_config(**changes))
        placed = parameter_shardings(mesh, tree)
        assert jax.tree.structure(placed) == jax.tree.structure(tree)
    assert placed["embedding"].spec == PartitionSpec("tensor", "fsdp")
    assert placed["blocks"]["ffn"]["down"]["kernel"].spec == PartitionSpec(None, "tensor", "fsdp")
    assert placed["norm"]["scale"].spec == PartitionSpec(None)


def test_parameters_are_split_as_the_table_says():
    mesh = make_mesh(1, 4, 2)
    tree = shapes(tiny.model_config())
    placed = parameter_shardings(mesh, tree)
    q = tree["blocks"]["attention"]["q"]["kernel"].shape
    assert placed["blocks"]["attention"]["q"]["kernel"].shard_shape(q) == (2, 32 // 4, 32 // 2)
    assert placed["embedding"].shard_shape(tree["embedding"].shape) == (24 // 2, 32 // 4)


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((2, -1, 2), (2, 2, 2)),
        ((1, 1, -1), (1, 1, 8)),
        ((1, 4, 2), (1, 4, 2)),
    ],
)
def test_one_size_may_be_the_remaining_devices(sizes, shape):
    mesh = make_mesh(*sizes)
    assert tuple(mesh.shape.values()) == shape
    assert tuple(mesh.shape) == ("data", "fsdp", "tensor")


@pytest.mark.parametrize("sizes", [(3, 1, 1), (-1, 3, 1), (-1, -1, 1), (2, 2, 4), (-1, 16, 1)])
def test_sizes_that_do_not_fit_the_devices_are_refused(sizes):
    with pytest.raises(ValueError, match=f"mesh.data={sizes[0]}, mesh.fsdp={sizes[1]}"):
        make_mesh(*sizes)


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip of an 8 × 8 slice of TPU v6e, with the attributes that `make_mesh` reads."""

    id: int
    platform: str = "tpu"
    device_kind: str = "TPU v6 lite"
    process_index: int = 0
    core_on_chip: int = 0

    @property
    def coords(self):
        return (self.id % 8, self.id // 8, 0)

    @property
    def client(self):
        return SimpleNamespace(process_index=lambda: 0)


@pytest.mark.parametrize("sizes", [(1, -1, 4), (2, -1, 2), (1, 8, 8), (1, 64, 1)])
def test_devices_of_one_tensor_group_are_neighbours(sizes):
    """For sizes that divide the sides of the torus, and sizes that split one."""
    mesh = make_mesh(*sizes, devices=[Chip(i) for i in range(64)])
    groups = mesh.devices.reshape(-1, mesh.shape["tensor"])
    assert len({chip.id for chip in groups.flat}) == 64
    for group in groups:
        coords = np.array([chip.coords[:2] for chip in group])
        sides = coords.max(axis=0) - coords.min(axis=0) + 1
        assert sides.prod() == len(group)  # the group is a rectangle


def test_a_mesh_over_some_devices():
    mesh = make_mesh(2, 1, 1, devices=jax.devices()[:2])
    assert mesh.devices.size == 2


def test_rows_are_split_over_data_and_fsdp():
    mesh = make_mesh(2, 2, 2)
    assert batch_sharding(mesh).shard_shape((8, 5)) == (2, 5)
    assert replicated(mesh).shard_shape((8, 5)) == (8, 5)


def test_an_unknown_parameter_is_named():
    tree = {"blocks": {"attention": {"bias": jnp.zeros((2, 4))}}}
    with pytest.raises(ValueError, match="blocks/attention/bias is not in .*LOGICAL_AXES"):
        parameter_shardings(make_mesh(), tree)


def test_a_parameter_of_another_rank_is_named():
    with pytest.raises(ValueError, match=r"embedding has shape \(4,\)"):
        parameter_shardings(make_mesh(), {"embedding": jnp.zeros((4,))})


def test_a_size_that_does_not_divide_is_named():
    tree = shapes(tiny.model_config(num_kv_heads=1, head_dim=4))  # 4 columns for 8 devices
    with pytest.raises(ValueError, match="kv_heads=4 of .*attention/k/kernel.*mesh.tensor=8"):
        parameter_shardings(make_mesh(1, 1, 8), tree)
    tree = shapes(tiny.model_config(hidden_size=36))
    with pytest.raises(ValueError, match="width=36 of parameter .*mesh.fsdp=8"):
        parameter_shardings(make_mesh(1, 8, 1), tree)


def test_a_mesh_axis_cannot_split_two_dimensions(monkeypatch):
    monkeypatch.setitem(sharding.MESH_AXES, "vocab", "fsdp")
    with pytest.raises(ValueError, match="embedding would use a mesh axis twice"):
        parameter_shardings(make_mesh(), shapes(tiny.model_config()))


def test_a_mesh_that_would_split_a_head_is_refused():
    check_layers(tiny.model_config(), tensor=2)
    with pytest.raises(ValueError, match=r"mesh.tensor=8 does not divide the 2 heads"):
        check_layers(tiny.model_config(), tensor=8)


@pytest.mark.parametrize("remat", ["none", "dots", "block"])
def test_no_remat_policy_saves_gathered_layers(remat, monkeypatch):
    """In a deep network on few tokens, gathered parameters would dominate the saved memory."""
    monkeypatch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, unrolled_layers=0))
    config = tiny.model_config(num_layers=16, hidden_size=64, ffn_size=256, remat=remat)
    mesh, tree = make_mesh(1, 8, 1), shapes(config)
    placed = parameter_shardings(mesh, tree)
    at = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    trunk = Trunk(*[jax.ShapeDtypeStruct((8, 4), jnp.int32, sharding=batch_sharding(mesh))] * 3)
    loss = lambda params, trunk: forward(bind(config, params), trunk).sum()
    with jax.set_mesh(mesh):
        gradient = jax.jit(jax.grad(loss), out_shardings=placed)
        compiled = gradient.lower(jax.tree.map(at, tree, placed), trunk).compile()
    whole = sum(4 * leaf.size for leaf in jax.tree.leaves(tree))
    assert compiled.memory_analysis().temp_size_in_bytes < whole / 2
