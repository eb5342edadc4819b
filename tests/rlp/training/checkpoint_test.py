"""What is saved comes back bit for bit or not at all, whatever is killed or damaged in between."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from rlp.runtime import run_folder
from rlp.runtime.errors import UserError
from rlp.training.checkpoint import Checkpoints, load_params
from rlp.training.checkpoint import folder as folders
from tests.support.paths import ROOT


class Moments(NamedTuple):
    """Like the states of an optax chain: a named tuple,"""

    steps: jax.Array
    mean: dict


class Nothing(NamedTuple):
    """and one without fields."""


META = {"tokens": 2**60 + 1, "flops": 0.1 + 0.2, "skipped": 0}


def make_items(seed):
    """State of random bits: NaNs with payloads, infinities, denormals and -0 included."""
    rng = np.random.default_rng(seed)

    def bits(shape, dtype="float32"):
        raw = rng.bytes(math.prod(shape) * jnp.dtype(dtype).itemsize)
        return jnp.asarray(np.frombuffer(raw, jnp.dtype(dtype)).reshape(shape))

    params = {"embed": bits((16, 8)), "layers": {"norm": bits((8,), "bfloat16")}}
    moments = {"embed": bits((16, 8)), "layers": {"norm": bits((8,))}}
    key = jax.random.key_data(jax.random.key(seed))
    return {
        "params": params,
        "optimizer": (Nothing(), Moments(jnp.int32(seed), moments), {"key": key}),
        "baseline": jax.tree.map(lambda x: x[::-1], params),
        "data": {"record": 16 * seed},
        "meta": META,
    }


def abstract(items, sharding=None):
    """The array items as structs that ask for `sharding` (None: the first device)."""
    arrays = {name: tree for name, tree in items.items() if name not in ("data", "meta")}
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arrays)


def restore(checkpoints, abstract_items):
    """(step, items) of the newest whole checkpoint, which there must be."""
    restored = checkpoints.restore(abstract_items)
    assert restored is not None
    return restored


def bits_of(items):
    """Something that compares equal only if every leaf has the same type, shape and bits."""

    def leaf_bits(leaf):
        if isinstance(leaf, (np.ndarray, jax.Array)):
            return (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes())
        return (type(leaf).__name__, leaf)

    return jax.tree.map(leaf_bits, items), jax.tree.structure(items)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def array_file(step_folder, item="params"):
    """The file that holds most of an item's bytes."""
    files = (path for path in (step_folder / item).rglob("*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with checkpoints 1 and 2 of `make_items`; tests that change it copy it."""
    workdir = tmp_path_factory.mktemp("run")
    with Checkpoints(workdir / "checkpoints", best_metric="think_loss") as checkpoints:
        checkpoints.save(1, make_items(1), {"think_loss": 0.3})
        checkpoints.save(2, make_items(2), {"think_loss": 0.5})
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "run"))


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


# Damage.


def test_every_change_to_every_file_is_found(workdir):
    folder = workdir / "checkpoints" / "2"
    assert folders.find_fault(folder, contents=True) is None
    names = [*folders.read_manifest(folder)["files"], run_folder.MANIFEST]
    assert len(names) > 20
    for name in names:
        path = folder / name
        content = path.read_bytes()
        for spoil in (
            lambda path=path: path.unlink(),
            lambda path=path, content=content: path.write_bytes(content[: len(content) // 2]),
            lambda path=path, content=content: path.write_bytes(content + b"\0"),
            lambda path=path: flip(path),
        ):
            spoil()
            assert folders.find_fault(folder, contents=True), name
            path.write_bytes(content)
    assert folders.find_fault(folder, contents=True) is None


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def put_another_step_there(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("1"), folder)


def put_a_file_there(folder):
    shutil.rmtree(folder)
    folder.write_text("garbage")


DAMAGE = {
    "array file cut short": lambda folder: os.truncate(array_file(folder), 100),
    "one bit of an array flipped": lambda folder: flip(array_file(folder, "optimizer")),
    "metadata deleted": lambda folder: (folder / "params" / "_METADATA").unlink(),
    "checkpoint metadata deleted": lambda folder: (folder / "_CHECKPOINT_METADATA").unlink(),
    "item missing": lambda folder: shutil.rmtree(folder / "baseline"),
    "figures garbled": lambda folder: flip(folder / "metrics" / "metrics"),
    "manifest deleted": lambda folder: (folder / run_folder.MANIFEST).unlink(),
    "manifest garbled": lambda folder: (folder / run_folder.MANIFEST).write_bytes(b"\xff\0{"),
    "emptied": empty,
    "a file in its place": put_a_file_there,
    "another step under its name": put_another_step_there,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_falls_back_and_says_so(workdir, damage):
    directory = workdir / "checkpoints"
    DAMAGE[damage](directory / "2")
    with Checkpoints(directory, best_metric="think_loss") as checkpoints:
        step, restored = restore(checkpoints, abstract(make_items(1)))
        assert step == 1
        assert bits_of(restored) == bits_of(make_items(1))
        assert len(checkpoints.warnings) == 1
        assert checkpoints.warnings[0].startswith("checkpoint 2 is damaged (")
        checkpoints.save(2, make_items(5))
    with Checkpoints(directory, best_metric="think_loss") as checkpoints:
        step, restored = restore(checkpoints, abstract(make_items(5)))
        assert (step, checkpoints.warnings) == (2, [])
    assert bits_of(restored) == bits_of(make_items(5))


def test_all_damaged_is_an_error_until_the_user_clears_them(workdir):
    directory = workdir / "checkpoints"
    flip(array_file(directory / "1"))
    os.truncate(array_file(directory / "2"), 0)
    for _ in range(2):
        message = "every checkpoint .* is damaged; .* delete"
        with Checkpoints(directory) as checkpoints, pytest.raises(UserError, match=message):
            checkpoints.restore(abstract(make_items(1)))
    shutil.rmtree(directory / "damaged")
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.restore(abstract(make_items(1))) is None


def test_a_tree_that_does_not_fit_is_an_error_and_no_damage(workdir):
    wanted = abstract(make_items(2))
    other = wanted | {
        "optimizer": jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((*x.shape, 3), jnp.float16), wanted["optimizer"]
        )
    }
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        message = (
            r"`optimizer` of checkpoint .*/2 does not fit this run's config: "
            r".*1/mean/embed is float32\[16,8\] there and float16\[16,8,3\] here; .*; and 1 more$"
        )
        with pytest.raises(UserError, match=message):
            checkpoints.restore(other)
        assert (checkpoints.steps, checkpoints.warnings) == ([1, 2], [])
        assert restore(checkpoints, wanted)[0] == 2


def test_a_failed_save_is_reported_and_leaves_the_last_good_one(workdir, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(workdir / "checkpoints")
    with monkeypatch.context() as patch:
        patch.setattr(folders, "write_manifest", no_space)
        checkpoints.save(2, make_items(9))
        with pytest.raises(UserError, match="No space left.*free some space.*same command again"):
            checkpoints.wait()
    step, restored = restore(checkpoints, abstract(make_items(2)))
    assert (step, checkpoints.warnings) == (2, [])
    assert bits_of(restored) == bits_of(make_items(2))
    checkpoints.save(2, make_items(9))
    assert bits_of(restore(checkpoints, abstract(make_items(9)))[1]) == bits_of(make_items(9))
    checkpoints.close()


def test_saves_and_restores_leave_no_descriptors_and_no_threads(tmp_path):
    items, held = {"params": {"w": jnp.zeros(4)}}, []
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        for step in range(10):
            checkpoints.save(step, items)
            restore(checkpoints, abstract(items))
            held.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
    # The first rounds start what the libraries keep, and threads of a pool come and go.
    for counts in zip(*held, strict=True):
        assert max(counts[5:]) <= max(counts[:5]) + 2


def test_a_save_that_must_not_take_its_name_any_more_does_not(tmp_path):
    allowed = [True]

    def may_write():
        if not allowed[0]:
            raise UserError("another process has the folder")

    items = {"params": {"w": jnp.zeros(4)}}
    with Checkpoints(tmp_path / "checkpoints", may_write=may_write) as checkpoints:
        checkpoints.save(1, items)
        checkpoints.wait()
        allowed[0] = False
        checkpoints.save(2, items)
        with pytest.raises(UserError, match="another process has the folder"):
            checkpoints.wait()
        assert checkpoints.steps == [1]


# Kills.

KILLED = """
    import sys, time
    import jax.numpy as jnp
    from rlp.training.checkpoint import Checkpoints, folder

    directory, step, moment = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    checkpoints = Checkpoints(directory, keep=1)
    checkpoints.save(1, {"params": {"w": jnp.full((1024, 1024), 1.0)}})
    checkpoints.wait()

    def stop(*_):
        print("now", flush=True)
        time.sleep(60)

    if moment == "before the commit":
        folder.write_manifest = stop
    checkpoints.save(step, {"params": {"w": jnp.full((1024, 1024), 2.0)}})
    if moment == "while writing":
        stop()
    checkpoints.wait()
"""


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("moment", ["before the commit", "while writing"])
def test_kill_9_in_a_save_leaves_a_whole_checkpoint(tmp_path, step, moment):
    directory = tmp_path / "checkpoints"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), directory, str(step), moment],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "now\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    unfinished = list(directory.glob(f"*{folders.UNFINISHED}"))
    with Checkpoints(directory, keep=1) as checkpoints:
        wanted = {"params": {"w": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}}
        restored_step, restored = restore(checkpoints, wanted)
        assert checkpoints.warnings == []
        weights = np.asarray(restored["params"]["w"])
        assert (weights == weights[0, 0]).all()
        before, after = (1, 1.0), (step, 2.0)
        if moment == "before the commit":  # all is written, and nothing of it may count
            assert unfinished
            assert (restored_step, weights[0, 0]) == before
        else:
            assert (restored_step, weights[0, 0]) in (before, after)
        assert not list(directory.glob(f"*{folders.UNFINISHED}"))
        checkpoints.save(2, restored)
    assert [path.name for path in directory.iterdir()] == ["2"]


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
