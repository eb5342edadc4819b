"""Weight files are located by their headers, and every kind of damage has a specific message."""

import json
import os
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import save_file

from rlp.interop.huggingface import find, read_config, write_folder
from rlp.interop.huggingface.folder import weight_files
from rlp.runtime.errors import UserError
from tests.support import folders, standin


@pytest.fixture
def sharded(tmp_path):
    """A model in several shards."""
    made = standin.tensors()
    tree = standin.on_mesh(standin.params(made, standin.arrays(made)))
    options = {"dtype": "float32", "files": {}, "record": {}, "shard_bytes": 1000}
    write_folder(tmp_path / "sharded", tree, made, {"model_type": "made_up"}, **options)
    return tmp_path / "sharded"


@pytest.fixture
def single(tmp_path):
    folder = tmp_path / "single"
    folder.mkdir()
    save_file({"a": np.ones((4, 4), np.float32)}, folder / "model.safetensors")
    return folder


def fault_of(folder, function=weight_files):
    with pytest.raises(UserError) as caught:
        function(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def test_every_tensor_has_its_file(sharded, single):
    assert weight_files(single) == {"a": single / "model.safetensors"}
    files = weight_files(sharded)
    assert set(files) == {tensor.name for tensor in standin.tensors()}
    assert len(set(files.values())) > 2


# File names in an index.

OUTSIDE = ("", " ", "/x", "..", "../x", "a/../../x", "a/../x", "a\\..\\x", "C:\\x", "x\0")


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_that_names_a_file_outside_its_folder_is_refused(sharded, name):
    """Because of the name, even if the file exists."""
    save_file({"a": np.ones(1, np.float32)}, sharded.parent / "x")
    tensor = max(weight_files(sharded))
    change_index(sharded, lambda listed: listed.update({tensor: name}))
    assert f"names the file {name!r}, which is not inside its folder" in fault_of(sharded)


def test_files_of_an_index_may_be_links_elsewhere_as_in_the_hubs_cache(sharded, tmp_path):
    expected = weight_files(sharded)
    (tmp_path / "blobs").mkdir()
    for path in set(expected.values()):
        path.rename(tmp_path / "blobs" / path.name)
        path.symlink_to(Path("..", "blobs", path.name))
    assert weight_files(sharded) == expected


# Damage.


def test_a_file_cut_short_is_named(single, sharded):
    path = single / "model.safetensors"
    size = path.stat().st_size
    for length in (size - 1, size // 2, 20, 8, 3, 0):
        os.truncate(path, length)
        assert f"{path} cannot be read (" in fault_of(single)
    last = max(weight_files(sharded).values())
    os.truncate(last, last.stat().st_size - 1)
    assert f"{last} cannot be read (" in fault_of(sharded)


@pytest.mark.parametrize(
    ("place", "byte", "reason"),
    [(7, 0x10, "header too large"), (8, 0xFF, "invalid UTF-8"), (9, 0x7B, "invalid JSON")],
)
def test_a_changed_byte_of_the_header_is_found(single, place, byte, reason):
    path = single / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[place] = byte
    path.write_bytes(content)
    fault = fault_of(single)
    assert str(path) in fault
    assert reason in fault
    assert "download or copy it again" in fault


def test_an_index_that_lists_an_extra_tensor(sharded):
    first = min(weight_files(sharded).values()).name
    change_index(sharded, lambda index: index.update(extra=first))
    assert f"lists extra in {first}, which does not contain it" in fault_of(sharded)


def test_an_index_that_names_the_wrong_file(sharded):
    files = weight_files(sharded)
    first, last = min(files.values()).name, max(files.values()).name
    moved = next(tensor for tensor, path in files.items() if path.name == first)
    change_index(sharded, lambda index: index.update({moved: last}))
    assert f"lists {moved} in {last}, which does not contain it" in fault_of(sharded)


def test_an_index_that_lacks_a_tensor(sharded):
    files = weight_files(sharded)
    change_index(sharded, lambda index: index.pop("model.norm.weight"))
    expected = f"{files['model.norm.weight']} contains model.norm.weight, which "
    assert expected in fault_of(sharded)


def test_a_tensor_that_two_files_contain(sharded):
    files = weight_files(sharded)
    last = max(files.values())
    save_file({"lm_head.weight": np.ones(1), "model.norm.weight": np.ones(1)}, last)
    change_index(sharded, lambda index: index.update({"lm_head.weight": last.name}))
    assert f"{last} contains model.norm.weight, which " in fault_of(sharded)


def test_a_listed_file_that_is_missing(sharded):
    last = max(weight_files(sharded).values())
    last.unlink()
    assert f"{last} is missing, but " in fault_of(sharded)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_without_its_map(sharded, content):
    (sharded / "model.safetensors.index.json").write_text(content)
    assert "has no weight_map from tensor names to files" in fault_of(sharded)


def test_two_sets_of_weights_are_ambiguous(sharded, single):
    (single / "model.safetensors").rename(sharded / "model.safetensors")
    assert "has both model.safetensors and model.safetensors.index.json" in fault_of(sharded)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_pickled_weights_are_not_read(tmp_path, name):
    (tmp_path / name).touch()
    fault = fault_of(tmp_path)
    assert f"has {name}, but only safetensors are supported; convert it" in fault
    assert "save_pretrained(" in fault


def test_a_folder_without_weights(tmp_path):
    assert "has neither model.safetensors nor" in fault_of(tmp_path)


def test_the_config_is_an_object(sharded, tmp_path):
    assert read_config(sharded) == {"model_type": "made_up"}
    (sharded / "config.json").write_bytes(b'\xef\xbb\xbf{"model_type": "with a BOM"}\r\n')
    assert read_config(sharded) == {"model_type": "with a BOM"}
    assert f"{tmp_path / 'config.json'} cannot be read (No such file" in fault_of(
        tmp_path, read_config
    )
    faults = ((b"[1]", "is not a JSON object"), (b"{", "not JSON"), (b"\xff", "not"))
    for content, message in faults:
        (tmp_path / "config.json").write_bytes(content)
        fault = fault_of(tmp_path, read_config)
        assert str(tmp_path / "config.json") in fault
        assert message in fault


# Names.


@pytest.fixture
def asked(monkeypatch):
    """The downloads that were requested from the hub."""
    calls = []

    def download(repository, **options):
        calls.append((repository, options["revision"]))
        return "/fetched"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


def test_a_folder_is_returned_unchanged(tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    for name in ("owner/name", "owner/name@main", "plain"):
        Path(name).mkdir(parents=True)
        assert find(name) == Path(name)
        assert find(str(tmp_path / name)) == tmp_path / name
    assert asked == []


def test_a_name_is_looked_up_on_the_hub(asked):
    for name in ("owner/name", "owner/name@v1", "owner/name@refs/pr/1"):
        assert find(name) == Path("/fetched")
    assert asked == [("owner/name", revision) for revision in (None, "v1", "refs/pr/1")]


@pytest.mark.parametrize("name", ["/no/folder", "./no", "../no/no", "~/no", "a/b/c", "plain", ""])
def test_a_path_is_not_looked_up_on_the_hub(tmp_path, monkeypatch, asked, name):
    monkeypatch.chdir(tmp_path)
    assert f"no such folder: {name}" in fault_of(name, find)
    assert asked == []


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "model.safetensors").touch()
    assert "is a file; pass the folder" in fault_of(str(tmp_path / "model.safetensors"), find)


def test_an_error_of_the_hub_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("owner/name", "owner/na me", "owner/"):
        fault = fault_of(name, find)
        assert fault.startswith(f"{name} is not a folder, and cannot be fetched from the hub (")
        assert fault.endswith("); pass the path of a downloaded folder")


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("config.json", True),
        ("model-00001-of-00002.safetensors", True),
        ("model.safetensors.index.json", True),
        ("tokenizer.model", True),
        ("chat_template.jinja", True),
        ("merges.txt", True),
        ("pytorch_model.bin", False),
        ("tf_model.h5", False),
        ("README.md", False),
    ],
)
def test_only_files_that_are_used_are_fetched(monkeypatch, file, wanted):
    taken = []

    def download(repository, *, revision, allow_patterns):
        filtered = huggingface_hub.utils.filter_repo_objects([file], allow_patterns=allow_patterns)
        taken.extend(filtered)
        return "/fetched"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    find("owner/name")
    assert taken == [file] * wanted


def test_a_gguf_file_beside_safetensors_is_not_read(tmp_path):
    """It may be a quantized copy that the user created."""
    folder = folders.write(tmp_path / "model")
    before = weight_files(folder)
    (folder / "model.gguf").write_bytes(b"GGUF")
    assert weight_files(folder) == before
