"""A folder is written completely, as Hugging Face libraries expect it, or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from rlp.interop.huggingface import export
from rlp.runtime.errors import UserError
from tests.support import standin
from tests.support.paths import ROOT
from tests.support.standin_folder import MADE, TREE, VALUES, write


def refuses(out, tree=TREE, made=MADE, **options):
    """Return the error of a write that is refused before any tensor or folder is touched."""

    def watch(_):
        raise AssertionError("writing began")

    before = sorted(out.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        write(out, tree, made, watch=watch, **options)
    assert "\n" not in str(caught.value)
    assert sorted(out.parent.rglob("*")) == before
    return str(caught.value)


# Contents of the folder.


def test_files_hold_the_tensors_of_the_model(tmp_path):
    write(tmp_path / "m", config={"b": 1, "a": [2]}, files={"x.json": "{}"})
    names = {"config.json", "rlp.json", "x.json", "model.safetensors"}
    assert {path.name for path in (tmp_path / "m").iterdir()} == names
    assert list(json.loads((tmp_path / "m/config.json").read_text()).items()) == [
        ("b", 1),
        ("a", [2]),
    ]
    assert json.loads((tmp_path / "m/rlp.json").read_text()) == {"step": 7}
    standin.assert_same_bits(load_file(tmp_path / "m/model.safetensors"), VALUES)
    assert list(tmp_path.iterdir()) == [tmp_path / "m"]


def test_every_file_is_as_readable_as_any_other_new_file(tmp_path):
    (tmp_path / "new").touch()
    write(tmp_path / "m")
    modes = {path.stat().st_mode for path in (*(tmp_path / "m").iterdir(), tmp_path / "new")}
    assert len(modes) == 1


@pytest.mark.parametrize("shard_bytes", [1, 600, 1000, 1800, 2**30])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shards_are_in_order_of_the_limited_size_and_listed(tmp_path, dtype, shard_bytes):
    write(tmp_path / "m", dtype=dtype, shard_bytes=shard_bytes)
    width = jnp.dtype(dtype).itemsize
    held, total = [], 0
    files = sorted((tmp_path / "m").glob("*.safetensors"))
    for path in files:
        values = load_file(path)
        size = sum(x.size * width for x in values.values())
        assert size <= shard_bytes or len(values) == 1
        total += size
        held.append(values.keys())
        with safe_open(path, "np") as file:
            assert file.metadata() == {"format": "pt"}
    order = [tensor.name for tensor in MADE]
    assert [name for keys in held for name in sorted(keys, key=order.index)] == order
    if len(files) == 1:
        assert files[0].name == "model.safetensors"
        assert not (tmp_path / "m/model.safetensors.index.json").exists()
        return
    names = [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))]
    assert [path.name for path in files] == names
    index = json.loads((tmp_path / "m/model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": total}
    listed = {name: file for file, keys in zip(names, held, strict=True) for name in keys}
    assert index["weight_map"] == listed


def test_bfloat16_is_rounded_as_torch_does(tmp_path):
    tree = jax.tree.map(np.copy, TREE)
    ties = (np.arange(128, dtype=np.uint32) << 15) | np.uint32(0x3F800000)
    tree["embedding"].flat[:128] = ties.view(np.float32)
    tree["embedding"].flat[128:131] = [1e-40, -0.0, 3.38e38]
    write(tmp_path / "m", tree, dtype="bfloat16")
    torch = pytest.importorskip("torch")
    load = pytest.importorskip("safetensors.torch").load_file
    there = load(tmp_path / "m/model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(there, torch.from_numpy(tree["embedding"]).to(torch.bfloat16))


def test_additional_files_come_from_memory_or_from_the_disk(tmp_path):
    (tmp_path / "blob").write_bytes(b"\0\1")
    (tmp_path / "link").symlink_to(tmp_path / "blob")
    files = {"a.bin": b"\xff", "tokenizer.json": "é", "b": tmp_path / "link"}
    write(tmp_path / "m", files=files)
    assert (tmp_path / "m/a.bin").read_bytes() == b"\xff"
    assert (tmp_path / "m/tokenizer.json").read_text(encoding="utf-8") == "é"
    assert (tmp_path / "m/b").read_bytes() == b"\0\1"
    assert not (tmp_path / "m/b").is_symlink()


def test_copies_are_not_written(tmp_path):
    made = standin.tensors(tied=True)
    values = standin.arrays(made)
    write(tmp_path / "m", standin.params(made, values), made)
    assert load_file(tmp_path / "m/model.safetensors").keys() == values.keys()
    assert "lm_head.weight" not in values


def test_every_tensor_is_passed_through_watch(tmp_path):
    seen = []
    watch = lambda items: (seen.append((item.name, len(items))) or item for item in items)
    write(tmp_path / "m", shard_bytes=1000, watch=watch)
    assert seen == [(tensor.name, len(MADE)) for tensor in MADE]


def test_parameters_keep_no_copy_on_the_host(tmp_path):
    tree = standin.on_mesh(TREE, (2, 2, 2))
    write(tmp_path / "m", tree)
    assert all(leaf._npy_value is None for leaf in jax.tree.leaves(tree))


def test_nothing_is_compiled_per_layer(tmp_path):
    compiled = []
    for layers in (2, 9):
        made = standin.tensors(layers=layers)
        tree = standin.on_mesh(standin.params(made, standin.arrays(made)), (2, 2, 2))
        export._layer.clear_cache()
        write(tmp_path / str(layers), tree, made)
        compiled.append(export._layer._cache_size())
    assert compiled == [2, 2]


# Refusals.


def test_what_exists_is_not_touched(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file", "dangling", "."):
        assert "exists already; remove it or name" in refuses(tmp_path / name)


def test_what_cannot_be_written_is_refused_early(tmp_path, monkeypatch):
    assert "choose bfloat16 or float32" in refuses(tmp_path / "m", dtype="float16")
    gone = tmp_path / "tokenizer.json"
    assert f"no such file: {gone}" in refuses(tmp_path / "m", files={"tokenizer.json": gone})
    (tmp_path / "file").touch()
    assert "m cannot be written, because" in refuses(tmp_path / "file" / "m")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    assert "the disk has 0.0 GB free" in refuses(tmp_path / "m")


def test_names_that_are_taken_and_other_models_are_an_error(tmp_path):
    for name in ("config.json", "rlp.json", "a/b", "model.safetensors", export.INDEX):
        with pytest.raises(ValueError, match="is not a valid name for an additional file"):
            write(tmp_path / "m", files={name: ""})
    with pytest.raises(ValueError, match="head/kernel"):
        write(tmp_path / "m", made=standin.tensors(tied=True))
    with pytest.raises(ValueError, match="belong to layers"):
        write(tmp_path / "m", made=[tensor for tensor in MADE if tensor.layer != 0])
    wrong = standin.Tensor("embed_tokens.weight", (8, 24), "embedding", None)
    with pytest.raises(ValueError, match=r"embed_tokens.weight becomes \(24, 8\) instead of"):
        write(tmp_path / "m", made=[wrong, *MADE[1:]])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(np.nan, "float32"), (np.inf, "float32"), (-np.inf, "bfloat16"), (3.4e38, "bfloat16")],
)
def test_parameters_that_are_not_finite_are_refused(tmp_path, value, dtype):
    tree = jax.tree.map(np.copy, TREE)
    tree["blocks"]["ffn"]["up"]["kernel"][1, 3, 4] = value
    message = f"model.layers.1.mlp.up_proj.weight has values that are not finite in {dtype};"
    with pytest.raises(UserError, match=message):
        write(tmp_path / "m", tree, dtype=dtype, shard_bytes=1000)
    assert list(tmp_path.iterdir()) == []


# Atomic writes.


@pytest.mark.parametrize("after", range(0, len(MADE) + 1, 2))
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing(tmp_path, after, error):
    def watch(items):
        yield from items[:after]
        raise error

    with pytest.raises(error):
        write(tmp_path / "m", shard_bytes=1000, watch=watch)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_disk_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    for module, name in ((export, "save_file"), (os, "fsync"), (Path, "rename")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(UserError, match="m cannot be written .*No space left on device"):
                write(tmp_path / "m")
        assert list(tmp_path.iterdir()) == []
    write(tmp_path / "m")


PROGRAM = """
import os, signal, sys
from pathlib import Path
from tests.support.standin_folder import write

def watch(items):
    for number, item in enumerate(items):
        if number == 5:
            print(os.getpid(), flush=True)
            if sys.argv[2] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            sys.stdin.read()
        yield item

write(Path(sys.argv[1]), shard_bytes=1000, watch=watch)
"""


def start(out, end):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(out), end],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_leftovers_of_killed_processes_are_removed_and_those_of_running_ones_are_not(tmp_path):
    killed, living = start(tmp_path / "m", "killed"), start(tmp_path / "m", "waits")
    assert killed.wait(100) == -signal.SIGKILL
    assert int(living.stdout.readline()) == living.pid
    others = (".m.unfinished-x", f".other.unfinished-{killed.pid}", f"m.unfinished-{killed.pid}")
    for name in (*others, f".m.unfinished-{os.getpid()}"):
        (tmp_path / name).mkdir()
    # The second process may have removed the leftovers of the first.
    (tmp_path / f".m.unfinished-{killed.pid}").mkdir(exist_ok=True)
    write(tmp_path / "m")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"m", *others, f".m.unfinished-{living.pid}"}
    # By now the folder exists, and the process that finishes later does not replace it.
    before = (tmp_path / "m" / "model.safetensors").read_bytes()
    _, _ = living.communicate("")
    assert living.returncode != 0
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"m", *others}
