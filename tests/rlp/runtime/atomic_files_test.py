"""Files and folders are written atomically, and all code uses one module to write them."""

import os
import re
from pathlib import Path

import pytest

from rlp.runtime import atomic_files, disk_errors
from rlp.runtime.errors import UserError
from tests.support.paths import ROOT


def test_a_file_and_its_name_are_on_the_disk_when_it_is_written(tmp_path, monkeypatch):
    path, calls = tmp_path / "a.json", []
    sync, replace = os.fsync, Path.replace

    def synced(descriptor):
        calls.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def renamed(self, target):
        calls.append("renamed")
        return replace(self, target)

    monkeypatch.setattr(atomic_files.os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    atomic_files.write_whole(path, "content")
    assert calls[1:] == ["renamed", tmp_path.resolve()]
    assert calls[0].name.startswith(".a.json.unfinished-")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    atomic_files.write_whole(path, "before")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = "a.json cannot be written: No space left"
    with pytest.raises(UserError, match=message), disk_errors.writing(path):
        atomic_files.write_whole(path, "after")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "before"


def test_what_stops_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("before")

    def lines():
        yield b"after"
        raise KeyError

    with pytest.raises(KeyError), atomic_files.replacing(path) as file:
        file.writelines(lines())
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]
    assert path.read_text() == "before"


def test_what_killed_processes_left_is_removed_and_that_of_others_is_not(tmp_path):
    for pid in (os.getpid(), 2**22 + 1, 1):  # our own id, an unused id, the id of a running process
        (tmp_path / f".a.json.unfinished-{pid}").touch()
    atomic_files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert {file.name for file in tmp_path.iterdir()} == {"a.json", ".a.json.unfinished-1"}
    assert (tmp_path / "a.json").read_text() == '{\n "x": null\n}'


def test_nothing_else_makes_its_files_durable_in_a_way_of_its_own():
    allowed = {
        "rlp/runtime/atomic_files.py",
        "rlp/runtime/lease.py",  # must write to the file that is locked
        "rlp/metrics/metrics_file.py",  # appends to metrics.damaged.jsonl
    }
    writers = {
        str(path.relative_to(ROOT))
        for room in ("rlp", "launch", "models")
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"os\.(fsync|replace|rename)\(", path.read_text(encoding="utf-8"))
    }
    assert writers == allowed
