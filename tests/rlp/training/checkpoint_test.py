"""What is saved comes back bit for bit or not at all, whatever is killed or damaged in between."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from rlp.runtime.errors import UserError
from rlp.training.checkpoint import Checkpoints, load_params
from tests.support.checkpoints import (
    abstract,
    array_file,
    bits_of,
    flip,
    make_items,
    restore,
)


def test_restored_equals_saved_bit_for_bit(workdir):
    items = make_items(2)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        step, restored = restore(checkpoints, abstract(items))
        assert checkpoints.warnings == []
    assert step == 2
    assert bits_of(restored) == bits_of(items)


def test_nothing_saved_gives_none(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps == []
        assert checkpoints.restore(abstract(make_items(0))) is None


def test_only_what_is_asked_for_is_loaded_and_absent_items_are_named(workdir):
    items = make_items(2)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        _, restored = restore(checkpoints, {"params": abstract(items)["params"]})
        assert set(restored) == {"params", "data", "meta"}
        with pytest.raises(UserError, match="no item `teacher`; it has baseline, data, meta"):
            checkpoints.restore({"teacher": abstract(items)["params"]})


@pytest.mark.parametrize("written", ["single", "replicated", "sharded"])
def test_lands_on_another_mesh_than_wrote_it(tmp_path, written):
    auto = (AxisType.Auto, AxisType.Auto)
    mesh = jax.make_mesh((8, 1), ("fsdp", "tensor"), axis_types=auto)
    other = jax.make_mesh((2, 4), ("fsdp", "tensor"), axis_types=auto)
    source = {
        "single": SingleDeviceSharding(jax.devices()[3]),
        "replicated": NamedSharding(mesh, PartitionSpec()),
        "sharded": NamedSharding(mesh, PartitionSpec("fsdp")),
    }[written]
    weights = {"w": make_items(3)["params"]["embed"]}
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, {"params": jax.device_put(weights, source)})
        for target in (
            NamedSharding(other, PartitionSpec("tensor", "fsdp")),
            NamedSharding(other, PartitionSpec()),
            SingleDeviceSharding(jax.devices()[5]),
        ):
            _, restored = restore(checkpoints, abstract({"params": weights}, target))
            assert restored["params"]["w"].sharding == target
            assert bits_of(restored) == bits_of({"params": weights})


@pytest.mark.parametrize("spec", [PartitionSpec(), PartitionSpec("data")])
def test_the_caller_may_overwrite_everything_once_save_returns(tmp_path, spec):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    values = np.arange(2**21, dtype=np.float32)
    on_device = jax.device_put(values, NamedSharding(mesh, spec)) + 0
    on_host = values.copy()
    meta = {"tokens": 1}
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, {"params": {"device": on_device, "host": on_host}, "meta": meta})
        jax.block_until_ready(overwrite(on_device))
        on_host[:] = -1
        meta["tokens"] = 2
        struct = jax.ShapeDtypeStruct(values.shape, values.dtype)
        _, restored = restore(checkpoints, {"params": {"device": struct, "host": struct}})
    np.testing.assert_array_equal(restored["params"]["device"], values)
    np.testing.assert_array_equal(restored["params"]["host"], values)
    assert restored["meta"] == {"tokens": 1}


def test_parameters_load_without_the_other_items(workdir):
    for item in ("optimizer", "baseline", "data", "meta", "step"):
        shutil.rmtree(workdir / "checkpoints" / "2" / item)
    items = make_items(2)
    params, step = load_params(str(workdir), abstract(items)["params"])
    assert step == 2
    assert bits_of(params) == bits_of(items["params"])


def test_data_position_and_step_are_files_of_their_own(workdir):
    folder = workdir / "checkpoints" / "2"
    assert json.loads((folder / "step" / "data.json").read_text()) == 2
    assert json.loads((folder / "data" / "data.json").read_text()) == {"record": 32}


# What is kept.


@pytest.mark.parametrize("lower_is_better", [True, False])
@pytest.mark.parametrize("reopen", [False, True])
def test_keeps_the_latest_and_the_best(tmp_path, lower_is_better, reopen):
    figures = [
        None,
        math.nan,
        0.4,
        0.1,
        0.1,
        0.9,
        0.9,
        0.1,
        None,
        math.inf,
        -math.inf,
        math.nan,
        0.5,
    ]
    sign = -1 if lower_is_better else 1

    def open_it():
        return Checkpoints(
            tmp_path / "checkpoints",
            keep=2,
            best_metric="accuracy",
            lower_is_better=lower_is_better,
        )

    checkpoints = open_it()
    wanted = {"w": jax.ShapeDtypeStruct((3,), jnp.int32)}
    ranked = []
    for step, figure in enumerate(figures):
        metrics = None if figure is None else {"accuracy": figure, "other": -step}
        checkpoints.save(step, {"params": {"w": jnp.full(3, step)}}, metrics)
        checkpoints.wait()
        if figure is not None and math.isfinite(figure):
            ranked.append((sign * figure, step))
        best = {max(ranked)[1]} if ranked else set()
        assert set(checkpoints.steps) == {step, max(step - 1, 0)} | best
        for best_step in best:
            params, loaded_step = load_params(f"{tmp_path}@best", wanted)
            assert loaded_step == best_step
            assert params["w"].tolist() == [best_step] * 3
        if reopen:
            checkpoints.close()
            checkpoints = open_it()
    checkpoints.close()


def test_another_best_metric_starts_over(tmp_path):
    items = {"params": {"w": jnp.zeros(3)}}
    for name, figures in (("a", [0.1, 0.2]), ("b", [0.9, 0.8, 0.85, 0.86])):
        with Checkpoints(tmp_path / "checkpoints", keep=1, best_metric=name) as checkpoints:
            first = max(checkpoints.steps, default=-1) + 1
            for step, figure in enumerate(figures, first):
                checkpoints.save(step, items, {name: figure})
    assert checkpoints.steps == [3, 5]
    assert load_params(f"{tmp_path}@best", abstract(items)["params"])[1] == 3


def test_saving_a_step_again_replaces_it(workdir):
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        for seed in (7, 8):
            checkpoints.save(2, make_items(seed))
        step, restored = restore(checkpoints, abstract(make_items(8)))
        assert (step, checkpoints.steps, checkpoints.warnings) == (2, [1, 2], [])
    assert bits_of(restored) == bits_of(make_items(8))
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2"]


def test_a_step_saved_again_without_figures_stays_the_best(workdir):
    with Checkpoints(workdir / "checkpoints", keep=1, best_metric="think_loss") as checkpoints:
        checkpoints.save(1, make_items(1))
        checkpoints.save(3, make_items(3), {"think_loss": 0.4})
    assert checkpoints.steps == [1, 3]
    assert load_params(f"{workdir}@best", abstract(make_items(1))["params"])[1] == 1


# What the user reads.


def test_load_params_says_what_is_wrong(workdir, tmp_path):
    (tmp_path / "empty").mkdir()
    flip(array_file(workdir / "checkpoints" / "1"))
    wanted = abstract(make_items(2))["params"]
    wider = wanted | {"embed": jax.ShapeDtypeStruct((16, 9), jnp.float32)}
    deeper = wanted | {"extra": jax.ShapeDtypeStruct((2,), jnp.float32)}
    for spec, tree, message in (
        (f"{tmp_path}/none", wanted, "no such folder: .*/none$"),
        (f"{tmp_path}/none@best", wanted, "no such folder: .*/none$"),
        (f"{tmp_path}/empty", wanted, "/empty has no checkpoint; train that run first"),
        (f"{workdir}@3", wanted, "/run has no checkpoint of step 3; it has 1, 2$"),
        (f"{workdir}@bset", wanted, "after the @ comes a step or `best`, not 'bset'"),
        (f"{workdir}@1", wanted, r"checkpoint 1 of .* is damaged \(params/.*it has 1, 2"),
        (f"{workdir}", wider, r"embed is float32\[16,8\] there and float32\[16,9\] here$"),
        (f"{workdir}@2", deeper, r"extra is absent there and float32\[2\] here$"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            load_params(spec, tree)
        assert "\n" not in str(caught.value)
    assert (workdir / "checkpoints" / "1").exists()


def test_best_of_a_run_without_figures_lists_what_there_is(tmp_path):
    items = make_items(1)
    with Checkpoints(tmp_path / "checkpoints", best_metric="think_loss") as checkpoints:
        checkpoints.save(3, items)
        checkpoints.save(7, items, {"think_loss": math.nan})
    with pytest.raises(UserError, match="no best checkpoint.*it has 3, 7: name a step"):
        load_params(f"{tmp_path}@best", abstract(items)["params"])


def test_a_folder_may_have_an_at_in_its_name(workdir):
    renamed = workdir.rename(workdir.with_name("a@2"))
    params = abstract(make_items(2))["params"]
    assert load_params(str(renamed), params)[1] == 2
    assert load_params(f"{renamed}@1", params)[1] == 1


def test_settings_that_cannot_be(tmp_path):
    with pytest.raises(UserError, match="checkpoint.keep is 0"):
        Checkpoints(tmp_path, keep=0)
    with Checkpoints(tmp_path, best_metric="think_los") as checkpoints:
        with pytest.raises(UserError, match="'think_los', which is not.* choose one of think_loss"):
            checkpoints.save(1, {"params": {"w": jnp.zeros(1)}}, {"think_loss": 1.0})
        assert checkpoints.steps == []
