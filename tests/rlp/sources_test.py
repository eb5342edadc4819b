"""Files of documents: one order, the same texts whatever the form, errors that name the place."""

import gzip
import json
import random
import re

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from rlp import tokenizer
from rlp.data.sources import ENDINGS, find_files, read_documents
from rlp.data.text import text_streams
from rlp.errors import UserError

TEXTS = [f"document {i}: " + "é日x\n"[i % 4] * (i * 7 % 60) for i in range(41)]
SEPARATOR = "\n%%\n"


def write(path, texts, column="text"):
    """A file of documents, in the form that its ending asks for."""
    name = path.name
    if name.endswith(".parquet"):
        table = pyarrow.table({"id": list(range(len(texts))), column: texts})
        pyarrow.parquet.write_table(table, path, row_group_size=7)
        return path
    lines = [json.dumps({"id": i, column: text}) + "\n" for i, text in enumerate(texts)]
    data = (SEPARATOR.join(texts) if ".txt" in name else "".join(lines)).encode()
    half = len(data) // 2  # several members or frames make one file
    if name.endswith(".gz"):
        data = gzip.compress(data[:half], 1) + gzip.compress(data[half:], 1)
    if name.endswith(".zst"):
        compress = zstandard.ZstdCompressor().compress
        data = compress(data[:half]) + compress(data[half:])
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_form_gives_the_same_documents(tmp_path, ending):
    path = write(tmp_path / f"a{ending}", TEXTS, column="body")
    assert list(read_documents([str(path)], "body", SEPARATOR)) == TEXTS


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".txt.zst", ".parquet"])
def test_documents_longer_than_a_read_survive(tmp_path, ending):
    noise = random.Random(0)
    texts = ["".join(noise.choices("ab\né日", k=n)) for n in (1_500_000, 3, 700_000)]
    path = write(tmp_path / f"a{ending}", texts)
    read: list[int] = []
    assert list(read_documents([str(path)], "text", SEPARATOR, read.append)) == texts
    assert 0 < sum(read) <= path.stat().st_size


def test_a_txt_file_is_one_document_unless_separated(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\n--\ntwo\n")
    assert list(read_documents([str(path)])) == ["one\r\n--\ntwo\n"]
    assert list(read_documents([str(path)], txt_separator="--\n")) == ["one\r\n", "two\n"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_texts_of_nothing_but_space_are_no_documents(tmp_path, ending):
    path = write(tmp_path / f"a{ending}", ["", "a", " \n", "b", ""])
    assert list(read_documents([str(path)], "text", SEPARATOR)) == ["a", "b"]


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


@pytest.fixture
def bucket():
    """Puts files into fsspec's memory; they are gone after the test."""
    memory = fsspec.filesystem("memory")
    yield lambda path, name: memory.put(str(path), f"/bucket/{name}")
    memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_at_a_url_gives_the_same_documents(tmp_path, bucket, ending):
    path = write(tmp_path / f"a{ending}", TEXTS)
    bucket(path, path.name)
    read: list[int] = []
    found = list(read_documents([f"memory://bucket/a{ending}"], "text", SEPARATOR, read.append))
    assert found == TEXTS
    assert 0 < sum(read) <= path.stat().st_size


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


def test_text_at_urls_makes_the_same_rows(tmp_path, bucket):
    here = write(tmp_path / "a.jsonl", TEXTS)
    bucket(here, "a.jsonl")
    words = {"tokenizer": tokenizer.ByteTokenizer(), "sequence_length": 32, "holdout_every": 5}
    for local, remote in zip(
        text_streams(train=str(here), **words),
        text_streams(train="memory://bucket", **words),
        strict=True,
    ):
        assert len(local) == len(remote) > 3
        assert (local.batch(0, 3).tokens == remote.batch(0, 3).tokens).all()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/gone.txt", "data.train: no file or folder memory://bucket/gone.txt"),
        ("memory://bucket/*.parquet", "data.train: memory://bucket/\\*.parquet holds no file"),
        ("memory://bucket/a.md", "data.train: memory://bucket/a.md is of no known kind"),
        ("nothing://bucket/a.txt", "there is no way to read nothing:// here"),
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
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', "a.jsonl, line 3: not valid JSON"),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n', "a.jsonl, line 2: not a JSON object but list"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}', "a.jsonl, line 2: no column 'text'; .*body"),
        ("a.jsonl", b'{"text": 7}\n', "a.jsonl, line 1: column 'text' is not a text but int"),
        ("a.jsonl", b'{"text": null}\n', "a.jsonl, line 1: .*not a text but NoneType"),
        ("a.jsonl", b'{"text": "\\ud800"}', "a.jsonl, line 1: .*not valid Unicode"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}', "a.jsonl, line 2: not valid UTF-8"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: not valid JSON"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "a"}\n7', mtime=0),
            "a.jsonl.gz, line 2: not a JSON object",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "a"}', mtime=0)[:-9],
            "a.jsonl.gz: damaged or cut off",
        ),
        ("a.jsonl.gz", b'{"text": "a"}', "a.jsonl.gz: cannot be read: .*gzip"),
        ("a.jsonl.zst", b'{"text": "a"}', "a.jsonl.zst: damaged zstd"),
        ("a.txt.zst", zstandard.compress(b"abc" * 99)[:-4], "a.txt.zst: cut off"),
        ("a.txt", b"fine\nalso\n\xe6\x97 broken", "a.txt, line 3: not valid UTF-8"),
        ("a.parquet", b"PAR1 not", "a.parquet: not a readable parquet file"),
    ],
)
def test_bad_content_names_its_file_and_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(read_documents([str(tmp_path / name)]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", None, "b"], "a.parquet, row 2: .*not a text but NoneType"),
        ([1, 2], "a.parquet, row 1: .*not a text but int"),
        (["a"] * 2000 + [None], "a.parquet, row 2001: "),
    ],
)
def test_bad_parquet_rows_are_named(tmp_path, values, message):
    path = write(tmp_path / "a.parquet", values)
    with pytest.raises(UserError, match=message):
        list(read_documents([str(path)]))
    with pytest.raises(
        UserError, match="no column 'txt'; set data.text_column to one of: id, text"
    ):
        list(read_documents([str(path)], "txt"))


def test_invalid_utf8_in_parquet_is_named(tmp_path):
    raw = pyarrow.array([b"good", b"\xff\xfe"], pyarrow.binary())
    table = pyarrow.table({"text": pyarrow.Array.from_buffers(pyarrow.string(), 2, raw.buffers())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="a.parquet, row 2: not valid UTF-8"):
        list(read_documents([str(tmp_path / "a.parquet")]))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "data.train is empty"),
        (" , ", "data.train is empty"),
        ("{}/none.txt", "data.train: no file or folder .*none.txt"),
        ("{}/*.zip", "data.train: .*zip holds no file of a known kind"),
        ("{}/empty", "data.train: .*empty holds no file of a known kind"),
        ("{}/a.csv", "data.train: .*a.csv is of no known kind; known: .txt"),
        ("{}/blank.txt", "data.train: no documents in .*blank.txt"),
    ],
)
def test_paths_without_documents_are_refused(tmp_path, spec, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("a")
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(UserError, match=message):
        text_streams(
            train=spec.format(tmp_path), tokenizer=tokenizer.load("bytes"), sequence_length=8
        )
