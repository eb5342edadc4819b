"""Files of documents: one order, the same texts whatever the form, errors that name the place."""

import dataclasses
import gzip
import json
import os
import random
import re
import socket

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from rlp.data import bounds, content, locations, sources
from rlp.data.bounds import LIMITS, Limits
from rlp.data.corpus import tokenize
from rlp.data.sources import ENDINGS, find_files, read_documents, read_rows
from rlp.data.summary import Summary
from rlp.run.text_fields import file_text
from rlp.runtime.errors import UserError
from rlp.tokenizers import tokenizer
from tests.support.documents import text_streams

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


def documents(path, column="text", separator="", on_read=lambda count: None, limits=LIMITS):
    """The documents of a file, those that cannot be used being too many if they are a fifth."""
    summary = Summary("data.train", [str(path)], 0.2, "documents")
    found = list(read_documents(summary, column, separator, on_read, limits))
    summary.finish(separator)
    assert summary.found == {str(path): len(found)}
    assert summary.characters == sum(map(len, found))
    return found


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_form_gives_the_same_documents(tmp_path, ending):
    path = write(tmp_path / f"a{ending}", TEXTS, column="body")
    assert documents(path, "body", SEPARATOR) == TEXTS


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".txt.zst", ".parquet"])
def test_documents_longer_than_a_read_survive(tmp_path, ending):
    noise = random.Random(0)
    texts = ["".join(noise.choices("ab\né日", k=n)) for n in (1_500_000, 3, 700_000)]
    path = write(tmp_path / f"a{ending}", texts)
    read: list[int] = []
    assert documents(path, "text", SEPARATOR, read.append) == texts
    assert 0 < sum(read) <= path.stat().st_size


def test_a_txt_file_is_one_document_unless_separated(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n--\ntwo\n")
    assert documents(path) == ["one\n--\ntwo\n"]
    assert documents(path, separator="--\n") == ["one\n", "two\n"]


LINE_ENDS = ["\n", "\r\n", "\r"]


@pytest.mark.parametrize("written", LINE_ENDS)
@pytest.mark.parametrize("asked", LINE_ENDS)
@pytest.mark.parametrize("mark", ["", "\N{BYTE ORDER MARK}"])
@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, zstandard.compress])
def test_line_ends_and_byte_order_marks_of_txt_files_change_nothing(
    tmp_path, written, asked, mark, pack
):
    lines = ["", "first", "second", "", "third\u2028same", "\N{BYTE ORDER MARK}", "", "last", ""]
    name = {gzip.compress: "a.txt.gz", zstandard.compress: "a.txt.zst"}.get(pack, "a.txt")
    path = tmp_path / name
    path.write_bytes(pack((mark + written.join(lines)).encode()))
    whole = "\n".join(lines)
    assert documents(path) == [whole]
    assert documents(path, separator=asked * 2) == whole.split("\n\n")


def test_line_ends_are_mixed_in_one_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\r\n\r\nb\n\r\nc\r\rd\n\ne")
    assert documents(path, separator="\n\n") == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".ndjson.zst", ".parquet"])
def test_a_text_in_a_column_keeps_its_line_ends_and_marks(tmp_path, ending):
    texts = ["a\r\nb\rc\nd", "\N{BYTE ORDER MARK}e", "\r"]
    path = write(tmp_path / f"a{ending}", texts)
    assert documents(path, separator="\n") == texts[:2]  # the last one is white space


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("count", [1, 3])
def test_the_first_json_line_may_begin_with_a_byte_order_mark(tmp_path, line_end, pack, count):
    name = {gzip.compress: "a.jsonl.gz", zstandard.compress: "a.jsonl.zst"}.get(pack, "a.jsonl")
    texts = [f"text {i}" for i in range(count)]
    data = line_end.join(json.dumps({"text": text}) for text in texts)
    (tmp_path / name).write_bytes(pack(b"\xef\xbb\xbf" + data.encode()))
    assert documents(tmp_path / name) == texts


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_file_in_utf_16_is_named_as_that(tmp_path, encoding, name):
    text = '\N{BYTE ORDER MARK}{"text": "a"}\n' if encoding == "utf-16-be" else '{"text": "a"}\n'
    (tmp_path / name).write_bytes(text.encode(encoding))
    with pytest.raises(UserError, match=r"line 1: not valid UTF-8.*convert it to UTF-8") as caught:
        documents(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_texts_of_nothing_but_space_are_no_documents(tmp_path, ending):
    path = write(tmp_path / f"a{ending}", ["", "a", " \n", "b", ""])
    assert documents(path, "text", SEPARATOR) == ["a", "b"]


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


def test_paths_with_commas_stand_in_lists(tmp_path):
    for name in ("a,b.txt", "c.txt", "d, e.txt", "b.txt"):
        (tmp_path / name).touch()
    names = ["a,b.txt", "c.txt", "d, e.txt", "b.txt"]
    assert find_files(",".join(f"{tmp_path}/{name}" for name in names), "f") == [
        f"{tmp_path}/{name}" for name in names
    ]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").touch()
    # What exists as an item of its own is one.
    assert find_files(f"{tmp_path}/a,{tmp_path}/b.txt", "f") == [
        f"{tmp_path}/a/x.txt",
        f"{tmp_path}/b.txt",
    ]
    with pytest.raises(UserError, match="f: no file or folder .*/z$"):
        find_files(f"{tmp_path}/b.txt,{tmp_path}/z,y.txt", "f")


def test_links_are_followed_once_and_broken_ones_are_named(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder in (data / "real", elsewhere / "inner"):
        folder.mkdir(parents=True)
    write(data / "real" / "a.jsonl", ["a"])
    write(elsewhere / "inner" / "b.jsonl", ["b"])
    (data / "again").symlink_to(data / "real")  # comes first by its name
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
        told = found.not_read()
        assert "broken links 2" in told
        assert "not regular files 1 (FIFO " in told
        assert all(f"/{name}" in told for name in ("gone", "gone.jsonl", "pipe.jsonl"))
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
PASSED_OVER = ".csv 1, .json 1, .jsonl.bz2 1, hidden 2, no ending 2"


def test_what_is_passed_over_is_counted_by_ending(tmp_path, bucket):
    for name in MIXED + HIDDEN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "a"}')
        bucket(tmp_path / name, name)
    for spec in (str(tmp_path), f"{tmp_path},{tmp_path}/*", "memory://bucket"):
        found = find_files(spec, "data.train")
        assert [path.rpartition("/")[2] for path in found] == ["a.jsonl", "d.txt", "f.ndjson"]
        assert found.not_read() == PASSED_OVER
    assert find_files(f"{tmp_path}/*.jsonl", "data.train").not_read() == ""
    for name in ("a.jsonl", "d.txt", "f.ndjson"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"holds no file of a known kind: .*\(it has: .csv 1"):
        find_files(str(tmp_path), "data.train")


def test_one_line_tells_what_was_read(tmp_path, caplog):
    """Files, what was passed over, documents, what was left out, characters, tokens, rows."""
    write(tmp_path / "a.jsonl", [f"document {i}" for i in range(20)] + [" ", "", None, 7])
    write(tmp_path / "b.parquet", ["é" * 10, "x" * 40])
    (tmp_path / "c.txt").write_text("\n")
    for name in ("d.csv", ".hidden", "e"):
        (tmp_path / name).touch()
    caplog.set_level("INFO", "rlp")
    words = {"tokenizer": tokenizer.ByteTokenizer(), "holdout_every": 11, "held_out_min_tokens": 20}
    text_streams(train=str(tmp_path), sequence_length=32, **words)
    (line,) = [message for message in caplog.messages if "files read" in message]
    characters = 10 * 10 + 10 * 11 + 50
    assert line == (
        "data.train: 3 files read (.jsonl 1, .parquet 1, .txt 1), passed over: .csv 1, hidden 1, "
        f"no ending 1, 1 without documents: {tmp_path}/c.txt; 22 documents of {characters} "
        f"characters and {characters + 10 + 22} tokens, 3 empty and 2 unusable left out; "
        "20 training rows; 1 held-out row, 2 windows left out (too short, with tags, or without "
        "their fork)"
    )


def test_held_out_files_have_their_own_line(tmp_path, caplog):
    paths = [write(tmp_path / f"{name}.jsonl", TEXTS) for name in "ab"]
    caplog.set_level("INFO", "rlp")
    words = {"tokenizer": tokenizer.ByteTokenizer(), "sequence_length": 400}
    text_streams(train=str(paths[0]), evaluation=str(paths[1]), **words)
    lines = [message for message in caplog.messages if "1 file read (.jsonl 1)" in message]
    assert [line.partition(":")[0] for line in lines] == ["data.train", "data.evaluation"]
    assert [line.rpartition("; ")[2] for line in lines] == ["41 training rows", "41 held-out rows"]


def test_a_separator_that_does_not_occur_is_reported(tmp_path, caplog):
    for name, text in {"a": "a%b", "b": "ab", "c": "abc", "d": " \n"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    files = find_files(str(tmp_path), "data.train")
    words = tokenizer.ByteTokenizer()
    assert len(tokenize(files, "data.train", "text", "%", words, "")) == 4
    (told,) = (message for message in caplog.messages if "txt_separator" in message)
    assert told == (
        "data.train: data.txt_separator='%' does not occur in 2 .txt files, each of which is one "
        f"document: {tmp_path}/b.txt, {tmp_path}/c.txt"
    )
    caplog.clear()
    tokenize(files, "data.train", "text", r"\n", words, "")
    assert "txt_separator='\\\\n' does not occur in 3 .txt files" in caplog.text
    assert "in a shell, write $'\\n' for a line break" in caplog.text
    caplog.clear()
    tokenize(files, "data.train", "text", "", words, "")
    assert not caplog.messages


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
    found = documents(f"memory://bucket/a{ending}", "text", SEPARATOR, read.append)
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
        ("memory://bucket/a.md", "data.train: memory://bucket/a.md is not of a known kind"),
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
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}', "a.jsonl, line 2: no column 'text'"),
        ("a.jsonl", b'{"text": 7}\n', "a.jsonl, line 1: column 'text' is not a text but int"),
        ("a.jsonl", b'{"text": null}\n', "a.jsonl, line 1: .*not a text but null"),
        ("a.jsonl", b'{"body": 1}\n{"id": 2}', "a.jsonl: no column 'text'; .* one of: body, id$"),
        ("a.jsonl", b'{"text": "\\ud800"}', "a.jsonl, line 1: .*not valid Unicode"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}', "a.jsonl, line 2: not valid UTF-8"),
        ("a.jsonl", b"[" * 100_000, "1 of 1 rows cannot be used.*line 1: its values are nested"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "a"}\n7', mtime=0),
            "a.jsonl.gz, line 2: not a JSON object",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "a"}', mtime=0)[:-9],
            "a.jsonl.gz: cut off",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "a"}', mtime=0) + gzip.compress(b'{"text": "b"}', mtime=0)[:5],
            "a.jsonl.gz: cut off",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "a"}', mtime=0) + b"\x1f\x8b no deflate",
            "a.jsonl.gz: damaged gzip file",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b"a" * 99, mtime=0)[:-8] + b"12345678",
            "damaged gzip file: .*check",
        ),
        ("a.jsonl.gz", b'{"text": "a"}', "a.jsonl.gz: not a gzip file"),
        ("a.jsonl.zst", b'{"text": "a"}', "a.jsonl.zst: damaged zstd"),
        ("a.txt.zst", zstandard.compress(b"abc" * 99)[:-4], "a.txt.zst: cut off"),
        ("a.txt", b"fine\nalso\n\xe6\x97 broken", "a.txt, line 3: not valid UTF-8"),
        ("a.parquet", b"PAR1 not", "a.parquet: not a readable parquet file"),
    ],
)
def test_bad_content_names_its_file_and_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        documents(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", None, "b"], "a.parquet, row 2: .*not a text but null"),
        ([1, 2], "a.parquet, row 1: .*not a text but int"),
        (["a"] * 1600 + [None] * 401, "a.parquet, row 1601: .*row 1603: .*; and 398 more"),
    ],
)
def test_bad_parquet_rows_are_named(tmp_path, values, message):
    path = write(tmp_path / "a.parquet", values)
    with pytest.raises(UserError, match=message):
        documents(path)
    with pytest.raises(
        UserError, match="no column 'txt'; set data.text_column to one of: id, text"
    ):
        documents(path, "txt")


UNUSABLE = {
    "null": {"text": None},
    "missing": {"body": "b"},
    "not a text": {"text": ["a"]},
    "half of a surrogate pair": {"text": "a\ud800"},
    "not an object": ["text"],
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_rows_that_cannot_be_used_are_left_out_up_to_a_share(tmp_path, case, caplog):
    rows = [{"text": f"text {i}"} for i in range(16)]
    for place in (0, 7, 12, 19):
        rows.insert(place, UNUSABLE[case])
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert documents(path) == [f"text {i}" for i in range(16)]
    (told,) = caplog.messages
    assert told.startswith("data.train: 4 of 20 rows cannot be used and are left out: ")
    assert all(f"{path}, line {number}: " in told for number in (1, 8, 13))
    assert told.endswith("; and 1 more")
    path.write_text(path.read_text() + json.dumps(UNUSABLE[case]))
    with pytest.raises(UserError, match="5 of 21 rows cannot be used, more than") as caught:
        documents(path)
    assert "\n" not in str(caught.value)


def test_a_column_that_no_row_of_a_file_has_is_refused_early(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_PATIENCE", 3)
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": 1, "id": 2}\n' * 3 + '{"text": "late"}\nnot JSON')
    with pytest.raises(UserError, match=r"a.jsonl: no column 'text'; .* one of: body, id$"):
        documents(path)


def test_columns_of_one_name_are_refused_if_they_are_asked_for(tmp_path):
    column = pyarrow.array(["a", "b"])
    table = pyarrow.Table.from_arrays([column] * 3, ["text", "text", "id"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="a.parquet: several columns are called 'text'; rename"):
        documents(tmp_path / "a.parquet")
    assert documents(tmp_path / "a.parquet", "id") == ["a", "b"]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_structs_have_the_keys_that_their_rows_have(tmp_path, ending):
    """Parquet fills the keys that other rows have with null; a column's own null stays."""
    values = [{"a": 1, "list": [{"b": 1}, {"c": {"d": 2}}]}, {"e": "x"}]
    path = write(tmp_path / f"a{ending}", values)
    rows = read_rows([str(path)], [("f", "text")])
    assert [value for _, (value,) in rows] == values


@pytest.mark.parametrize("rest", [b"g", b"garbage", b"\0", b"\0" * 600, b"\0" * 9 + b"tail"])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_bytes_behind_gzip_data_are_left_out_with_a_warning(
    tmp_path, rest, chunk, caplog, monkeypatch
):
    monkeypatch.setattr(content, "_CHUNK", chunk)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"first, ") + gzip.compress(b"second") + rest)
    assert documents(path) == ["first, second"]
    warned = [m for m in caplog.messages if "a.txt.gz: bytes behind the end of its gzip" in m]
    assert len(warned) == bool(rest.strip(b"\0"))


def test_invalid_utf8_in_parquet_is_named(tmp_path):
    raw = pyarrow.array([b"good", b"\xff\xfe"], pyarrow.binary())
    table = pyarrow.table({"text": pyarrow.Array.from_buffers(pyarrow.string(), 2, raw.buffers())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="a.parquet, row 2: not valid UTF-8"):
        documents(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "data.train is empty"),
        (" , ", "data.train is empty"),
        ("{}/none.txt", "data.train: no file or folder .*none.txt"),
        ("{}/*.zip", "data.train: .*zip holds no file of a known kind"),
        ("{}/empty", "data.train: .*empty holds no file of a known kind"),
        ("{}/a.csv", "data.train: .*a.csv is not of a known kind; known: .txt"),
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


def test_a_text_that_a_field_names_has_no_byte_order_mark(tmp_path):
    (tmp_path / "a.jinja").write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert file_text("data.chat_template", str(tmp_path / "a.jinja"), "''") == "a\nb"


def test_a_text_that_a_field_names_is_no_corpus(tmp_path):
    (tmp_path / "a.jinja").write_bytes(b"a" * (2**24 + 1))
    with pytest.raises(UserError, match=r"data.chat_template=.* has 16,777,217 bytes; 16,777,216"):
        file_text("data.chat_template", str(tmp_path / "a.jinja"), "''")


def test_files_that_were_joined_keep_no_marks_of_byte_order(tmp_path):
    mark = "\ufeff"
    (tmp_path / "a.txt").write_text(f"{mark}one\n\n{mark}two")
    line = lambda text: json.dumps({"text": text}) + "\n"
    (tmp_path / "b.jsonl").write_text(mark + line("three") + mark + line("four"))
    texts = [
        x for name in ("a.txt", "b.jsonl") for x in documents(tmp_path / name, separator="\n\n")
    ]
    assert texts == ["one", "two", "three", "four"]


def test_a_text_with_bytes_of_zero_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes("north".encode("utf-16-le"))
    with pytest.raises(UserError, match="a.txt: it holds bytes of zero.*UTF-16"):
        documents(tmp_path / "a.txt")


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
    """Through links, too; opening a FIFO, or reading a device, might never end."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket.txt"))
    for name, kind in (("pipe.jsonl", "FIFO"), ("zero.txt", "device"), ("socket.txt", "socket")):
        with pytest.raises(UserError, match=f"data.train: .*{name} is a {kind}; only regular"):
            find_files(str(tmp_path / name), "data.train")
    listener.close()
    with pytest.raises(UserError, match=r"no file of a known kind: .*not regular files 3"):
        find_files(str(tmp_path), "data.train")


def test_a_file_that_became_a_fifo_after_it_was_found_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(UserError, match="a.txt: it is not a regular file"):
        documents(tmp_path / "a.txt")


@pytest.mark.parametrize("ending", [".jsonl", ".txt", ".jsonl.gz"])
def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(content, "_CHUNK", 64)
    path = write(tmp_path / f"a{ending}", TEXTS)

    def grow(count):
        with path.open("ab") as file:
            file.write(b"\n" * 64)

    with pytest.raises(UserError, match=f"a{ending}: it grew beyond its .* nothing writes to"):
        documents(path, on_read=grow)


SMALL = Limits(row_bytes=2**20, ratio=20)


def bomb(path, size):
    """A file of one line of so many bytes, packed as its ending says."""
    line = [b'{"text": "', *[b"a" * 2**16] * (size >> 16), b'"}\n']
    if path.name.endswith(".gz"):
        with gzip.open(path, "wb", 9) as file:
            file.writelines(line)
    elif path.name.endswith(".zst"):
        with zstandard.open(path, "wb") as file:
            for piece in line:
                file.write(piece)
    else:
        path.write_bytes(b"".join(line))
    return path


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst", ".txt.gz", ".txt.zst"])
def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(bounds, "FREE", 2**19)
    path = bomb(tmp_path / f"a{ending}", 2**23)
    wanted = rf"a{ending}: its first .* unpack to .* over data.max_decompression_ratio=20 times"
    most = [0]
    made = bounds.Meter.made
    seen = lambda self, count: (most.append(count), made(self, count))
    monkeypatch.setattr(bounds.Meter, "made", seen)
    with pytest.raises(UserError, match=wanted):
        documents(path, limits=dataclasses.replace(SMALL, row_bytes=2**30))
    assert sum(most) < 2**24 + 2**20  # it does not unpack the rest first
    (text,) = documents(path, limits=Limits(ratio=1e6))
    assert len(text) >= 2**23
    monkeypatch.setattr(bounds, "FREE", 2**24)  # below it, files may unpack to anything
    assert len(documents(path, limits=Limits(ratio=20))) == 1


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
def test_pieces_of_a_bomb_are_small(tmp_path, ending):
    path = bomb(tmp_path / f"a{ending}", 2**26)
    pieces = content.chunks(str(path), lambda count: None, Limits(ratio=1e6))
    assert max(map(len, pieces)) <= 2**24


@pytest.mark.parametrize(
    ("ending", "where"),
    [(".jsonl", "line 1"), (".jsonl.gz", "line 1"), (".txt", "document 1"), (".parquet", "row 1")],
)
def test_a_row_that_is_too_long_is_refused(tmp_path, ending, where):
    path = tmp_path / f"a{ending}"
    write(path, ["a" * 2**21, "b"]) if ending == ".parquet" else bomb(path, 2**21)
    limits = dataclasses.replace(SMALL, ratio=1e6)
    wanted = f"a{ending}, {where}: it has more than data.max_row_bytes=1048576 bytes; split it"
    with pytest.raises(UserError, match=wanted):
        documents(path, limits=limits)
    assert documents(path, limits=dataclasses.replace(limits, row_bytes=2**22))


def test_the_limit_of_a_row_is_not_one_of_the_file(tmp_path):
    texts = ["a" * 2**17] * 16
    for ending in (".txt", ".jsonl", ".parquet"):
        path = write(tmp_path / f"a{ending}", texts)
        assert documents(path, separator=SEPARATOR, limits=Limits(2**18, 1e6)) == texts
    bad = write(tmp_path / "b.txt", ["a", "b", "c" * 2**19, "d"])
    with pytest.raises(UserError, match="b.txt, document 3: it has more than"):
        documents(bad, separator=SEPARATOR, limits=Limits(2**18))


def test_a_row_of_too_many_values_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "_LONG", 2**10)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "b"}\n{"text": "a", "x": [' + "{}," * 2**18 + "0]}\n")
    with pytest.raises(UserError, match=r"a.jsonl, line 2: it holds about 524,\d* values"):
        documents(path, limits=SMALL)


def test_a_parquet_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    """Whether its pages do, or its dictionary holds once what all rows have."""
    monkeypatch.setattr(bounds, "FREE", 2**19)
    plain, dictionary = tmp_path / "plain.parquet", tmp_path / "dictionary.parquet"
    texts = pyarrow.table({"text": ["a" * 2**12] * 2**12})
    pyarrow.parquet.write_table(texts, plain, use_dictionary=False, compression="zstd")
    pyarrow.parquet.write_table(texts, dictionary, compression="none")
    most = []
    for path in (plain, dictionary):
        summary = Summary("data.train", [str(path)], 0.2, "documents")
        found = read_documents(summary, limits=Limits(ratio=20))
        with pytest.raises(UserError, match=f"{path.name}: its first .* unpack to"):
            most.append(sum(1 for _ in found))
        assert summary.characters < 2**23
        assert len(documents(path, limits=Limits(ratio=1e6))) == 2**12


def test_values_of_a_dictionary_are_read_few_at_a_time(tmp_path, monkeypatch):
    """A thousand rows of the greatest length would not fit in memory."""
    path = tmp_path / "a.parquet"
    value = "".join(random.Random(0).choices("abcdefgh", k=2**16))
    pyarrow.parquet.write_table(pyarrow.table({"text": [value] * 2**10}), path)
    sizes = []
    monkeypatch.setattr(bounds.Meter, "made", lambda self, count: sizes.append(count))
    assert len(documents(path, limits=Limits(row_bytes=2**18))) == 2**10
    assert max(sizes) <= 2**19


def test_pieces_of_a_text_are_split_as_the_whole_is(tmp_path, monkeypatch):
    """Wherever they end: in a character, in a line end, in a separator."""
    random_ = random.Random(0)
    path = tmp_path / "a.txt"
    for _ in range(300):
        raw = "".join(random_.choices(["a", "\r", "\n", "é", "\ufeff"], k=random_.randrange(30)))
        path.write_bytes(raw.encode())
        monkeypatch.setattr(content, "_CHUNK", random_.randrange(1, 6))
        separator = random_.choice(["", "a", "\n", "aa", "\na\n", "a\n"])
        plain = raw.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        whole = plain.split(separator) if separator else [plain]
        found = content.read_texts(str(path), separator, lambda count: None, Limits())
        assert list(found) == whole, (raw, separator)
