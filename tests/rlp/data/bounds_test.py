"""Limits on reading: files that grow, decompression bombs, and rows that are too long."""

import dataclasses
import gzip
import os
import random

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from rlp.data import bounds, content
from rlp.data.bounds import Limits
from rlp.data.sources import read_documents
from rlp.data.summary import Summary
from rlp.runtime.errors import UserError
from tests.support.text_files import SEPARATOR, TEXTS, documents, write


def test_a_file_that_became_a_fifo_after_it_was_found_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(UserError, match="a.txt: not a regular file; set the field to files"):
        documents(tmp_path / "a.txt")


@pytest.mark.parametrize("ending", [".jsonl", ".txt", ".jsonl.gz"])
def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(content, "_CHUNK", 64)
    path = write(tmp_path / f"a{ending}", TEXTS)

    def grow(count):
        with path.open("ab") as file:
            file.write(b"\n" * 64)

    with pytest.raises(UserError, match=f"a{ending}: grew beyond its .* no process writes to"):
        documents(path, on_read=grow)


SMALL = Limits(row_bytes=2**20, ratio=20)


def bomb(path, size):
    """Write a file with one line of `size` bytes, compressed according to its ending."""
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
    monkeypatch.setattr(bounds, "UNCHECKED_BYTES", 2**19)
    path = bomb(tmp_path / f"a{ending}", 2**23)
    expected = (
        rf"a{ending}: its first .* unpack to .* more than data.max_decompression_ratio=20 times "
        "as many; if you trust the file, raise that field"
    )
    sizes = [0]
    unpacked = bounds.Meter.unpacked
    spy = lambda self, count: (sizes.append(count), unpacked(self, count))
    monkeypatch.setattr(bounds.Meter, "unpacked", spy)
    with pytest.raises(UserError, match=expected):
        documents(path, limits=dataclasses.replace(SMALL, row_bytes=2**30))
    assert sum(sizes) < 2**24 + 2**20  # the rest of the file is not decompressed first
    (text,) = documents(path, limits=Limits(ratio=1e6))
    assert len(text) >= 2**23
    monkeypatch.setattr(bounds, "UNCHECKED_BYTES", 2**24)  # smaller contents are not checked
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
    expected = (
        f"a{ending}, {where}: longer than data.max_row_bytes=1048576 bytes; split it, or raise"
    )
    with pytest.raises(UserError, match=expected):
        documents(path, limits=limits)
    assert documents(path, limits=dataclasses.replace(limits, row_bytes=2**22))


def test_the_limit_of_a_row_is_not_one_of_the_file(tmp_path):
    texts = ["a" * 2**17] * 16
    for ending in (".txt", ".jsonl", ".parquet"):
        path = write(tmp_path / f"a{ending}", texts)
        assert documents(path, separator=SEPARATOR, limits=Limits(2**18, 1e6)) == texts
    bad = write(tmp_path / "b.txt", ["a", "b", "c" * 2**19, "d"])
    with pytest.raises(UserError, match="b.txt, document 3: longer than data.max_row_bytes="):
        documents(bad, separator=SEPARATOR, limits=Limits(2**18))


def test_a_row_of_too_many_values_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "_LONG", 2**10)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "b"}\n{"text": "a", "x": [' + "{}," * 2**18 + "0]}\n")
    with pytest.raises(UserError, match=r"a.jsonl, line 2: has about 524,\d* JSON values"):
        documents(path, limits=SMALL)


def test_a_parquet_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    """Both with plain pages and with a dictionary that stores the value of all rows once."""
    monkeypatch.setattr(bounds, "UNCHECKED_BYTES", 2**19)
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
    """A thousand rows of the maximum length would not fit in memory."""
    path = tmp_path / "a.parquet"
    value = "".join(random.Random(0).choices("abcdefgh", k=2**16))
    pyarrow.parquet.write_table(pyarrow.table({"text": [value] * 2**10}), path)
    sizes = []
    monkeypatch.setattr(bounds.Meter, "unpacked", lambda self, count: sizes.append(count))
    assert len(documents(path, limits=Limits(row_bytes=2**18))) == 2**10
    assert max(sizes) <= 2**19


def test_pieces_of_a_text_are_split_as_the_whole_is(tmp_path, monkeypatch):
    """A piece may end within a character, a line end or a separator."""
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
