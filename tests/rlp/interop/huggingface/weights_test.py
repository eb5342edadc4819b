"""Weights are read bit for bit, on any mesh, or every tensor that does not fit is named."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from rlp.interop.huggingface import read_params, weights, write_folder
from rlp.runtime.errors import UserError
from tests.support import standin

SIZES = (1, 2, 4, 8)
MESHES = [m for m in itertools.product(SIZES, SIZES, SIZES) if np.prod(m) in (1, 8)]


def folder_of(path, values):
    path.mkdir()
    save_file(values, path / "model.safetensors", metadata={"format": "pt"})
    return path


def fault_of(folder, made, tree):
    """Return the error of reading a folder, which must be raised before any tensor is read."""

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


def test_all_tensors_that_do_not_fit_are_named_at_once(tmp_path):
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
def test_quantized_weights_are_refused(tmp_path, dtype):
    made = standin.tensors()
    values = standin.arrays(made)
    tree = standin.params(made, values)
    values["lm_head.weight"] = values["lm_head.weight"].astype(jnp.dtype(dtype))
    fault = fault_of(folder_of(tmp_path / "m", values), made, tree)
    named = {"float8_e4m3fn": "F8_E4M3", "int8": "I8"}[dtype]
    assert (
        f"dtype is not one of F32, BF16, F16: lm_head.weight is {named}; use the model before"
        in fault
    )


@pytest.mark.parametrize("rows", [1, 5, 24, 1000])
def test_a_copy_may_be_absent_or_equal_but_not_differ(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(weights, "COMPARED", rows * 8)
    made = standin.tensors(tied=True)
    values = standin.arrays(made)
    original = values["model.embed_tokens.weight"]
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


@pytest.mark.parametrize("rows", [5, 1000])
def test_a_copy_in_another_dtype_is_compared_by_value(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(weights, "COMPARED", rows * 8)
    made = standin.tensors(tied=True)
    values = standin.arrays(made, np.float16)
    rough = values["model.embed_tokens.weight"]
    tree = standin.params(made, values)
    for wide in (np.float32, np.float64):
        values["lm_head.weight"] = rough.astype(wide)
        folder = folder_of(tmp_path / f"equal-{np.dtype(wide)}", values)
        standin.assert_same_bits(read_params(folder, made, standin.shardings(tree)), tree)
    values["lm_head.weight"] = rough.astype(np.float32) + np.float32(1e-6)
    fault = fault_of(folder_of(tmp_path / "differs", values), made, tree)
    assert "rounded" not in fault
    assert fault.endswith("; set tie_word_embeddings to false in its config.json")
    exact = rough.astype(np.float32) + np.float32(1e-6)
    for number, kind in enumerate((np.float16, standin.BFLOAT16)):
        values["model.embed_tokens.weight"] = exact
        values["lm_head.weight"] = exact.astype(kind)
        fault = fault_of(folder_of(tmp_path / str(number), values), made, tree)
        assert (
            f"it is {['F16', 'BF16'][number]}, rounded from F32; remove it from the file" in fault
        )


def test_buffers_of_old_checkpoints_are_ignored_and_logged_once(tmp_path, caplog):
    made = standin.tensors()
    values = standin.arrays(made)
    tree = standin.params(made, values)
    buffers = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
        "model.layers.1.self_attn.rotary_emb.inv_freq": np.ones(4, np.float16),
        "model.rotary_emb.original_inv_freq": np.ones(4, np.float32),
        "model.layers.0.self_attn.rotary_emb.cos_cached": np.ones((1, 1, 8, 4), np.float32),
        "model.layers.0.attn.masked_bias": np.array(-1e9, np.float32),
        "model.layers.0.attn.bias": np.ones((1, 1, 8, 8), np.bool_),
        "model.embeddings.position_ids": np.arange(8)[None],
    }
    with caplog.at_level("INFO", logger="rlp"):
        read = read_params(
            folder_of(tmp_path / "m", values | buffers), made, standin.shardings(tree)
        )
    standin.assert_same_bits(read, tree)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "contains tensors that are ignored: " in line
    assert line.endswith("and 3 more")
    for name in ("model.layers.0.self_attn.bias", "inv_freq", "model.layers.0.attn.bias"):
        wrong = values | {name: np.ones(4, np.float32)}
        fault = fault_of(folder_of(tmp_path / name, wrong), made, tree)
        assert f"unexpected: {name};" in fault


def test_doubles_are_read_if_float32_represents_them(tmp_path):
    made = standin.tensors()
    values = standin.arrays(made)
    tree = standin.params(made, values)
    doubles = {name: x.astype(np.float64) for name, x in values.items()}
    read = read_params(folder_of(tmp_path / "exact", doubles), made, standin.shardings(tree))
    standin.assert_same_bits(read, tree)
    for number, value in enumerate((1 + 2.0**-40, 1e300, 1e-320)):
        doubles["model.norm.weight"][[1, 5]] = value
        folder = folder_of(tmp_path / str(number), doubles)
        with pytest.raises(UserError) as caught:
            read_params(folder, made, standin.shardings(tree))
        assert f"model.norm.weight in {folder / 'model.safetensors'} is float64" in str(
            caught.value
        )
        assert "cannot represent 2 of its values exactly; save the model in float32" in str(
            caught.value
        )
        assert "quanti" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, standin.BFLOAT16, np.float16, np.float64])
@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
@pytest.mark.parametrize(
    ("name", "index"), [("model.layers.1.mlp.up_proj.weight", (9, 3)), ("model.norm.weight", (7,))]
)
def test_a_value_that_is_not_finite_is_named(tmp_path, dtype, value, shown, name, index):
    made = standin.tensors()
    values = {key: x.astype(dtype) for key, x in standin.arrays(made).items()}
    tree = standin.params(made, values)
    values[name][index] = value
    folder = folder_of(tmp_path / "m", values)
    with pytest.raises(UserError) as caught:
        read_params(folder, made, standin.shardings(tree))
    count = f"{name} has 1 of {values[name].size} values that are not finite"
    assert str(caught.value).startswith(f"{count}, the first at {list(index)} ({shown}); ")
    assert "\n" not in str(caught.value)


def test_infinities_of_both_signs_do_not_cancel_and_the_largest_numbers_are_finite(tmp_path):
    made = standin.tensors()
    values = standin.arrays(made)
    largest = np.finfo(np.float32).max
    values["model.embed_tokens.weight"][:] = largest
    tree = standin.params(made, values)
    read = read_params(folder_of(tmp_path / "large", values), made, standin.shardings(tree))
    standin.assert_same_bits(read, tree)
    values["model.norm.weight"][[2, 4]] = np.inf, -np.inf
    with pytest.raises(UserError, match=r"norm.weight has 2 of 8 values .* at \[2\] \(inf\)"):
        read_params(folder_of(tmp_path / "m", values), made, standin.shardings(tree))


def test_parameters_come_from_any_source_of_tensors():
    made = standin.tensors(tied=True)
    values = standin.arrays(made)
    tree = standin.params(made, values)
    asked = []
    read = lambda name: asked.append(name) or values[name]
    found = weights.params_from(read, made, standin.shardings(tree))
    standin.assert_same_bits(found, tree)
    assert asked == list(values)


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
    """Return a copy in aligned memory, which `device_put` on a CPU uses without copying."""
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

    def pointers(tree):
        leaves = jax.tree.leaves(tree)
        return [s.data.unsafe_buffer_pointer() for x in leaves for s in x.addressable_shards]

    before = pointers(params)
    doubled = jax.jit(lambda t: jax.tree.map(lambda x: 2 * x, t), donate_argnums=0)(params)
    assert pointers(doubled) == before
    standin.assert_same_bits(doubled, jax.tree.map(lambda x: 2 * x, tree))


def test_every_tensor_is_passed_through_watch(tmp_path):
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
        ([t for t in made if t.layer != 1], r"blocks/ffn/up/kernel belong to layers \[0, 2\]"),
        ([*made, made[1]], r"layers \[0, 1, 2, 0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            read_params(tmp_path, wrong, shardings)
