"""Paths, folders, globs and URLs resolve to files in a fixed order; skipped files are counted."""

import os
import re
import socket

import fsspec
import pytest

from rlp.data import locations
from rlp.data.file_list import find_files
from rlp.runtime.errors import UserError
from rlp.tokenizers.load import load_tokenizer
from tests.support.documents import text_streams
from tests.support.text_files import TEXTS, write


def test_files_folders_globs_and_lists_have_one_order(tmp_path):
    names = [
        "b.txt",
        "a.jsonl",
        "sub/c.TXT",
        "sub/d.parquet",
        "notes.md",
        ".hidden/e.txt",
        "x,y.txt",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(*items):
        files = find_files(",".join(f"{tmp_path}/{item}" for item in items), "data.train")
        return [file.removeprefix(f"{tmp_path}/") for file in files]

    assert found("b.txt") == ["b.txt"]
    assert found("sub", "a.jsonl") == ["sub/c.TXT", "sub/d.parquet", "a.jsonl"]
    assert sorted(found("*")) == ["a.jsonl", "b.txt", "sub/c.TXT", "sub/d.parquet", "x,y.txt"]
    assert found("*.txt", "b.txt", "**/*.txt") == ["b.txt", "x,y.txt"]
    assert found("x,y.txt") == ["x,y.txt"]


def test_lists_may_contain_paths_with_commas(tmp_path):
    for name in ("a,b.txt", "c.txt", "d, e.txt", "b.txt"):
        (tmp_path / name).touch()
    names = ["a,b.txt", "c.txt", "d, e.txt", "b.txt"]
    assert find_files(",".join(f"{tmp_path}/{name}" for name in names), "f") == [
        f"{tmp_path}/{name}" for name in names
    ]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").touch()
    # A part that exists by itself is a separate item.
    assert find_files(f"{tmp_path}/a,{tmp_path}/b.txt", "f") == [
        f"{tmp_path}/a/x.txt",
        f"{tmp_path}/b.txt",
    ]
    with pytest.raises(UserError, match="f: file or folder not found: .*/z$"):
        find_files(f"{tmp_path}/b.txt,{tmp_path}/z,y.txt", "f")


def test_links_are_followed_once_and_broken_ones_are_named(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder in (data / "real", elsewhere / "inner"):
        folder.mkdir(parents=True)
    write(data / "real" / "a.jsonl", ["a"])
    write(elsewhere / "inner" / "b.jsonl", ["b"])
    (data / "again").symlink_to(data / "real")  # its name sorts first
    (data / "link").symlink_to(elsewhere)
    (data / "loop").symlink_to(data)
    (elsewhere / "back").symlink_to(tmp_path)
    (data / "same.jsonl").symlink_to(data / "real" / "a.jsonl")
    (data / "gone.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    (data / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(data / "pipe.jsonl")
    for spec in (str(data), f"{data}/*"):
        found = find_files(spec, "data.train")
        assert sorted(map(os.path.realpath, found)) == [
            f"{data}/real/a.jsonl",
            f"{elsewhere}/inner/b.jsonl",
        ]
        skipped = found.describe_skipped()
        assert "2 broken links" in skipped
        assert "1 special file (FIFO " in skipped
        assert all(f"/{name}" in skipped for name in ("gone", "gone.jsonl", "pipe.jsonl"))
    assert find_files(str(data / "link" / "inner"), "f") == [f"{data}/link/inner/b.jsonl"]
    with pytest.raises(UserError, match="gone.jsonl is a broken link"):
        find_files(str(data / "gone.jsonl"), "f")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    write(tmp_path / "a.jsonl", ["a"])
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("inner"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="inner: cannot be read: Permission denied"):
        find_files(str(tmp_path), "f")


MIXED = ("a.jsonl", "b.json", "c.CSV", "d.txt", "e.jsonl.bz2", "f.ndjson", "README", "LICENSE")
HIDDEN = (".git/x.jsonl", ".DS_Store")
SKIPPED = "1 .csv, 1 .json, 1 .jsonl.bz2, 2 hidden, 2 without ending"


def test_skipped_files_are_counted_by_ending(tmp_path, bucket):
    for name in MIXED + HIDDEN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "a"}')
        bucket(tmp_path / name, name)
    for spec in (str(tmp_path), f"{tmp_path},{tmp_path}/*", "memory://bucket"):
        found = find_files(spec, "data.train")
        assert [path.rpartition("/")[2] for path in found] == ["a.jsonl", "d.txt", "f.ndjson"]
        assert found.describe_skipped() == SKIPPED
    assert find_files(f"{tmp_path}/*.jsonl", "data.train").describe_skipped() == ""
    for name in ("a.jsonl", "d.txt", "f.ndjson"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"no file with a supported ending: .*\(skipped: 1 .csv"):
        find_files(str(tmp_path), "data.train")


def test_folders_globs_and_lists_of_urls_have_one_order(tmp_path, bucket):
    path = write(tmp_path / "here.txt", TEXTS)
    for name in (
        "b.txt",
        "a.jsonl",
        "sub/c.TXT",
        "sub/d.parquet",
        "notes.md",
        ".hid/e.txt",
        ".f.txt",
    ):
        bucket(path, name)

    def found(*items):
        files = find_files(",".join(f"memory://bucket{item}" for item in items), "data.train")
        return [re.sub("^memory:///?bucket/", "", file) for file in files]

    every = ["a.jsonl", "b.txt", "sub/c.TXT", "sub/d.parquet"]
    assert found("") == found("/") == every
    assert found("/sub", "/a.jsonl") == ["sub/c.TXT", "sub/d.parquet", "a.jsonl"]
    assert sorted(found("/*")) == every
    assert found("/b.txt", "/*.txt") == ["b.txt"]
    files = find_files(f"memory://bucket/b.txt,{path}", "data.train")
    assert files == ["memory://bucket/b.txt", str(path)]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "memory://bucket/gone.txt",
            "data.train: file or folder not found: memory://bucket/gone.txt",
        ),
        ("memory://bucket/*.parquet", "data.train: memory://bucket/\\*.parquet contains no file"),
        ("memory://bucket/a.md", "data.train: memory://bucket/a.md has an unsupported ending"),
        ("nothing://bucket/a.txt", "a.txt: protocol nothing:// is not supported"),
    ],
)
def test_a_url_that_cannot_be_read_is_named(tmp_path, bucket, url, message):
    bucket(write(tmp_path / "a.txt", TEXTS), "a.md")
    with pytest.raises(UserError, match=message):
        find_files(url, "data.train")


def test_a_missing_package_is_named(monkeypatch):
    def missing(protocol):
        raise ImportError(f"Please install the package for {protocol}")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(UserError, match="^gs://bucket/a.txt: gs:// needs gcsfs; pip install it$"):
        find_files("gs://bucket/a.txt", "data.train")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "data.train='' is empty: set it to"),
        (" , ", "data.train=' , ' is empty: set it to"),
        ("{}/none.txt", "data.train: file or folder not found: .*none.txt"),
        ("{}/*.zip", "data.train: .*zip contains no file with a supported ending"),
        ("{}/empty", "data.train: .*empty contains no file with a supported ending"),
        ("{}/a.csv", "data.train: .*a.csv has an unsupported ending; supported: .txt"),
        ("{}/blank.txt", "data.train: no documents in .*blank.txt"),
    ],
)
def test_paths_without_documents_are_refused(tmp_path, spec, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("a")
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(UserError, match=message):
        text_streams(
            train=spec.format(tmp_path), tokenizer=load_tokenizer("bytes"), sequence_length=8
        )


def test_a_server_that_cannot_be_reached_is_one_line(monkeypatch):
    class Away:
        def isfile(self, path):
            raise ConnectionRefusedError("nobody\nthere")

    monkeypatch.setattr(locations, "_system", lambda url: Away())
    with pytest.raises(
        UserError, match="hf://a/b.txt: cannot be read: ConnectionRefused.*nobody th"
    ):
        find_files("hf://a/b.txt", "data.train")


def test_what_is_not_a_regular_file_is_refused_by_its_kind(tmp_path):
    """Also through links: opening a FIFO or reading a device might never end."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket.txt"))
    for name, kind in (("pipe.jsonl", "FIFO"), ("zero.txt", "device"), ("socket.txt", "socket")):
        with pytest.raises(UserError, match=f"data.train: .*{name} is a {kind}; only regular"):
            find_files(str(tmp_path / name), "data.train")
    listener.close()
    with pytest.raises(UserError, match=r"no file with a supported ending: .*3 special files"):
        find_files(str(tmp_path), "data.train")
