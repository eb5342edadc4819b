"""What is read is what the files hold, bit for bit and on any mesh, or every misfit is named."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from rlp.errors import UserError
from rlp.huggingface import read_params, weights, write_folder
from tests.rlp.huggingface import standin

SIZES = (1, 2, 4, 8)
MESHES = [m for m in itertools.product(SIZES, SIZES, SIZES) if np.prod(m) in (1, 8)]


def folder_of(path, values):
    path.mkdir()
    save_file(values, path / "model.safetensors", metadata={"format": "pt"})
    return path


def fault_of(folder, made, tree):
    """The one line that reading the folder ends with; nothing may have been read by then."""

    def watch(_):
        raise AssertionError("reading began")

    with pytest.raises(UserError) as caught:
        read_params(folder, made, standin.shardings(tree), watch=watch)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("dtype", [np.float32, standin.BFLOAT16, np.float16])
def test_parameters_are_those_of_the_file_on_any_mesh(tmp_path, dtype, mesh):
    made = standin.tensors()
    values = standin.arrays(made, dtype)
    expected = standin.params(made, values)
    shardings = standin.shardings(expected, mesh)
    read = read_params(folder_of(tmp_path / "m", values), made, shardings)
    standin.assert_same_bits(read, expected)
    assert jax.tree.map(lambda x: x.sharding, read) == shardings


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("shard_bytes", [2**30, 1000, 1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_written_and_read_again_is_the_same(tmp_path, dtype, shard_bytes, mesh):
    made = standin.tensors()
    tree = standin.on_mesh(standin.params(made, standin.arrays(made, jnp.dtype(dtype))), mesh)
    options = {"dtype": dtype, "files": {}, "record": {}, "shard_bytes": shard_bytes}
    write_folder(tmp_path / "m", tree, made, {}, **options)
    standin.assert_same_bits(read_params(tmp_path / "m", made, standin.shardings(tree, mesh)), tree)


def test_bfloat16_parameters_are_rounded_to_nearest_even(tmp_path):
    made = standin.tensors()
    values = standin.arrays(made)
    tree = standin.params(made, values)
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)
    folder = folder_of(tmp_path / "m", values)
    read = read_params(folder, made, standin.shardings(tree), dtype=jnp.bfloat16)
    standin.assert_same_bits(read, expected)


def test_all_misfits_are_named_at_once(tmp_path):
    made = standin.tensors()
    values = standin.arrays(made)
    tree = standin.params(made, values)
    del values["model.norm.weight"], values["model.layers.1.norm.weight"]
    values |= {"model.layers.3.norm.weight": np.zeros(8, np.float32), "a": np.zeros(1, np.int8)}
    values["model.layers.0.mlp.up_proj.weight"] = np.zeros((8, 16), np.float32)
    values["model.layers.0.norm.weight"] = np.zeros(8, np.int8)
    values["lm_head.weight"] = np.zeros((3, 8), np.float64)
    fault = fault_of(folder_of(tmp_path / "m", values), made, tree)
    assert "missing: model.layers.1.norm.weight, model.norm.weight;" in fault
    assert "unexpected: a, model.layers.3.norm.weight;" in fault
    assert "lm_head.weight is [3, 8] instead of [24, 8]" in fault
    assert "model.layers.0.mlp.up_proj.weight is [8, 16] instead of [16, 8]" in fault
    assert "lm_head.weight is F64, model.layers.0.norm.weight is I8;" in fault
    assert str(tmp_path / "m") in fault


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int8"])
def test_quantised_weights_are_refused(tmp_path, dtype):
    made = standin.tensors()
    values = standin.arrays(made)
    tree = standin.params(made, values)
    values["lm_head.weight"] = values["lm_head.weight"].astype(jnp.dtype(dtype))
    fault = fault_of(folder_of(tmp_path / "m", values), made, tree)
    named = {"float8_e4m3fn": "F8_E4M3", "int8": "I8"}[dtype]
    assert f"not one of F32, BF16, F16: lm_head.weight is {named}; take the model before" in fault


@pytest.mark.parametrize("rows", [1, 5, 24, 1000])
def test_a_copy_may_be_absent_or_equal_but_not_differ(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(weights, "COMPARED", rows * 8)
    made = standin.tensors(tied=True)
    values = standin.arrays(made)
    original = values["model.embed_tokens.weight"]
    original[0, 0] = np.nan
    tree = standin.params(made, values)
    shardings = standin.shardings(tree)
    absent = read_params(folder_of(tmp_path / "absent", values), made, shardings)
    standin.assert_same_bits(absent, tree)
    values["lm_head.weight"] = original.copy()
    equal = read_params(folder_of(tmp_path / "equal", values), made, shardings)
    standin.assert_same_bits(equal, tree)
    for number, (row, column, value) in enumerate([(23, 7, 1), (0, 1, 1), (4, 0, 1)]):
        values["lm_head.weight"] = original.copy()
        values["lm_head.weight"][row, column] += value
        fault = fault_of(folder_of(tmp_path / str(number), values), made, tree)
        assert "lm_head.weight in " in fault
        assert "differs from model.embed_tokens.weight" in fault
    values["lm_head.weight"] = original.astype(np.float16)
    assert "differs" in fault_of(folder_of(tmp_path / "dtype", values), made, tree)


def test_nothing_is_compiled_per_layer(tmp_path):
    compiled = []
    for layers in (2, 9):
        made = standin.tensors(layers=layers, width=32)
        values = standin.arrays(made)
        folder = folder_of(tmp_path / str(layers), values)
        shardings = standin.shardings(standin.params(made, values), (2, 2, 2))
        weights._writer.cache_clear()
        read_params(folder, made, shardings)
        writers = {weights._writer(leaf) for leaf in jax.tree.leaves(shardings["blocks"])}
        compiled.append(sum(writer._cache_size() for writer in writers))
    assert compiled == [2, 2]  # of the stacked parameters


def aligned(x):
    """A copy where XLA likes it best; `device_put` on a CPU takes such memory over as it is."""
    space = np.empty(x.nbytes + 64, np.uint8)
    start = -space.ctypes.data % 64
    copy = space[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


@pytest.mark.parametrize("mesh", MESHES)
def test_parameters_are_donated_in_place(tmp_path, monkeypatch, mesh):
    made = standin.tensors(width=256, ffn=256, vocab=256)
    values = standin.arrays(made)
    tree = standin.params(made, values)
    read = weights._read
    monkeypatch.setattr(weights, "_read", lambda *args: aligned(read(*args)))
    shardings = standin.shardings(tree, mesh)
    params = read_params(folder_of(tmp_path / "m", values), made, shardings)

    def places(tree):
        leaves = jax.tree.leaves(tree)
        return [s.data.unsafe_buffer_pointer() for x in leaves for s in x.addressable_shards]

    before = places(params)
    doubled = jax.jit(lambda t: jax.tree.map(lambda x: 2 * x, t), donate_argnums=0)(params)
    assert places(doubled) == before
    standin.assert_same_bits(doubled, jax.tree.map(lambda x: 2 * x, tree))


def test_every_tensor_read_is_seen_by_the_watch(tmp_path):
    made = standin.tensors(tied=True)
    values = standin.arrays(made)
    seen = []

    def watch(items):
        assert len(items) == len(made) - 1
        return (seen.append(item.name) or item for item in items)

    shardings = standin.shardings(standin.params(made, values))
    read_params(folder_of(tmp_path / "m", values), made, shardings, watch=watch)
    assert seen == list(values)


def test_tensors_and_parameters_of_different_models_are_an_error(tmp_path):
    made = standin.tensors()
    shardings = standin.shardings(standin.params(made, standin.arrays(made)))
    for wrong, message in (
        (standin.tensors(tied=True), "head/kernel"),
        ([t for t in made if t.layer != 1], r"blocks/ffn/up/kernel are of layers \[0, 2\]"),
        ([*made, made[1]], r"layers \[0, 1, 2, 0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            read_params(tmp_path, wrong, shardings)
