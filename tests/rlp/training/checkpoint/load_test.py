"""Checkpoints load onto any mesh, some items or all of them, or fail with a one-line error."""

import math
import shutil

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from rlp.runtime.errors import UserError
from rlp.training.checkpoint import Checkpoints, load_params
from tests.support.checkpoints import abstract, array_file, bits_of, flip, make_items, restore


def test_only_what_is_asked_for_is_loaded_and_absent_items_are_named(workdir):
    items = make_items(2)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        _, restored = restore(checkpoints, {"params": abstract(items)["params"]})
        assert set(restored) == {"params", "data", "meta"}
        with pytest.raises(
            UserError, match="no item `teacher`; its items are baseline, data, meta"
        ):
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


def test_parameters_load_without_the_other_items(workdir):
    for item in ("optimizer", "baseline", "data", "meta", "step"):
        shutil.rmtree(workdir / "checkpoints" / "2" / item)
    items = make_items(2)
    params, step = load_params(str(workdir), abstract(items)["params"])
    assert step == 2
    assert bits_of(params) == bits_of(items["params"])


def test_a_tree_that_does_not_fit_is_an_error_and_no_damage(workdir):
    wanted = abstract(make_items(2))
    other = wanted | {
        "optimizer": jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((*x.shape, 3), jnp.float16), wanted["optimizer"]
        )
    }
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        message = (
            r"`optimizer` of checkpoint .*/2 does not match this run's config: "
            r".*1/mean/embed is float32\[16,8\] there and float16\[16,8,3\] here; .*; and 1 more$"
        )
        with pytest.raises(UserError, match=message):
            checkpoints.restore(other)
        assert (checkpoints.steps, checkpoints.warnings) == ([1, 2], [])
        assert restore(checkpoints, wanted)[0] == 2


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
        (f"{workdir}@3", wanted, "/run has no checkpoint of step 3; name one of 1, 2$"),
        (f"{workdir}@bset", wanted, "use a step or `best` after the @, not 'bset'"),
        (f"{workdir}@1", wanted, r"checkpoint 1 .* is damaged \(params/.*another step: 1, 2$"),
        (f"{workdir}", wider, r"embed is float32\[16,8\] there and float32\[16,9\] here$"),
        (f"{workdir}@2", deeper, r"extra is absent there and float32\[2\] here$"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            load_params(spec, tree)
        assert "\n" not in str(caught.value)
    assert (workdir / "checkpoints" / "1").exists()


def test_best_of_a_run_without_metrics_lists_its_steps(tmp_path):
    items = make_items(1)
    with Checkpoints(tmp_path / "checkpoints", best_metric="think_loss") as checkpoints:
        checkpoints.save(3, items)
        checkpoints.save(7, items, {"think_loss": math.nan})
    with pytest.raises(UserError, match=r"no best checkpoint.*name a step \(3, 7\)"):
        load_params(f"{tmp_path}@best", abstract(items)["params"])


def test_a_folder_may_have_an_at_in_its_name(workdir):
    renamed = workdir.rename(workdir.with_name("a@2"))
    params = abstract(make_items(2))["params"]
    assert load_params(str(renamed), params)[1] == 2
    assert load_params(f"{renamed}@1", params)[1] == 1
