"""Files of documents: a fixed order, the same texts in every format, errors that name the line."""

import gzip
import json
import random

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from rlp.data import content, sources
from rlp.data.corpus import tokenize
from rlp.data.file_list import ENDINGS, find_files
from rlp.data.sources import read_rows
from rlp.run.text_fields import file_text
from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from tests.support.documents import text_streams
from tests.support.text_files import SEPARATOR, TEXTS, documents, write


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
@pytest.mark.parametrize("compress", [lambda data: data, gzip.compress, zstandard.compress])
def test_line_ends_and_byte_order_marks_of_txt_files_change_nothing(
    tmp_path, written, asked, mark, compress
):
    lines = ["", "first", "second", "", "third\u2028same", "\N{BYTE ORDER MARK}", "", "last", ""]
    name = {gzip.compress: "a.txt.gz", zstandard.compress: "a.txt.zst"}.get(compress, "a.txt")
    path = tmp_path / name
    path.write_bytes(compress((mark + written.join(lines)).encode()))
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
    assert documents(path, separator="\n") == texts[:2]  # the last text is white space


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("compress", [lambda data: data, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("count", [1, 3])
def test_the_first_json_line_may_begin_with_a_byte_order_mark(tmp_path, line_end, compress, count):
    name = {gzip.compress: "a.jsonl.gz", zstandard.compress: "a.jsonl.zst"}.get(compress, "a.jsonl")
    texts = [f"text {i}" for i in range(count)]
    data = line_end.join(json.dumps({"text": text}) for text in texts)
    (tmp_path / name).write_bytes(compress(b"\xef\xbb\xbf" + data.encode()))
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


def test_one_line_summarizes_the_files(tmp_path, caplog):
    """Files, skipped files, documents, characters, tokens, texts left out, and rows."""
    write(tmp_path / "a.jsonl", [f"document {i}" for i in range(20)] + [" ", "", None, 7])
    write(tmp_path / "b.parquet", ["é" * 10, "x" * 40])
    (tmp_path / "c.txt").write_text("\n")
    for name in ("d.csv", ".hidden", "e"):
        (tmp_path / name).touch()
    caplog.set_level("INFO", "rlp")
    words = {"tokenizer": ByteTokenizer(), "holdout_every": 11, "held_out_min_tokens": 20}
    text_streams(train=str(tmp_path), sequence_length=32, **words)
    (line,) = [message for message in caplog.messages if "read 3 files" in message]
    characters = 10 * 10 + 10 * 11 + 50
    assert line == (
        "data.train: read 3 files (1 .jsonl, 1 .parquet, 1 .txt), skipped: 1 .csv, 1 hidden, "
        f"1 without ending, 1 without documents: {tmp_path}/c.txt; 22 documents with {characters} "
        f"characters and {characters + 10 + 22} tokens, left out: 3 empty and 2 unusable; "
        "20 training rows; 1 held-out row, left out: 2 windows (too short, with tags, or without "
        "their fork)"
    )


def test_held_out_files_have_their_own_line(tmp_path, caplog):
    paths = [write(tmp_path / f"{name}.jsonl", TEXTS) for name in "ab"]
    caplog.set_level("INFO", "rlp")
    words = {"tokenizer": ByteTokenizer(), "sequence_length": 400}
    text_streams(train=str(paths[0]), evaluation=str(paths[1]), **words)
    lines = [message for message in caplog.messages if "read 1 file (1 .jsonl)" in message]
    assert [line.partition(":")[0] for line in lines] == ["data.train", "data.evaluation"]
    assert [line.rpartition("; ")[2] for line in lines] == ["41 training rows", "41 held-out rows"]


def test_a_separator_that_does_not_occur_is_reported(tmp_path, caplog):
    for name, text in {"a": "a%b", "b": "ab", "c": "abc", "d": " \n"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    files = find_files(str(tmp_path), "data.train")
    words = ByteTokenizer()
    assert len(tokenize(files, "data.train", "text", "%", words, "")) == 4
    (logged,) = (message for message in caplog.messages if "txt_separator" in message)
    assert logged == (
        "data.train: data.txt_separator='%' does not occur in 2 .txt file(s), so each of them is "
        f"one document: {tmp_path}/b.txt, {tmp_path}/c.txt"
    )
    caplog.clear()
    tokenize(files, "data.train", "text", r"\n", words, "")
    assert "txt_separator='\\\\n' does not occur in 3 .txt file(s)" in caplog.text
    assert "in a shell, write $'\\n' for a line break" in caplog.text
    caplog.clear()
    tokenize(files, "data.train", "text", "", words, "")
    assert not caplog.messages


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_at_a_url_gives_the_same_documents(tmp_path, bucket, ending):
    path = write(tmp_path / f"a{ending}", TEXTS)
    bucket(path, path.name)
    read: list[int] = []
    found = documents(f"memory://bucket/a{ending}", "text", SEPARATOR, read.append)
    assert found == TEXTS
    assert 0 < sum(read) <= path.stat().st_size


def test_text_at_urls_makes_the_same_rows(tmp_path, bucket):
    here = write(tmp_path / "a.jsonl", TEXTS)
    bucket(here, "a.jsonl")
    words = {"tokenizer": ByteTokenizer(), "sequence_length": 32, "holdout_every": 5}
    for local, remote in zip(
        text_streams(train=str(here), **words),
        text_streams(train="memory://bucket", **words),
        strict=True,
    ):
        assert len(local) == len(remote) > 3
        assert (local.batch(0, 3).tokens == remote.batch(0, 3).tokens).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', "a.jsonl, line 3: not valid JSON"),
        (
            "a.jsonl",
            b'{"text": "a"}\n["b"]\n',
            "a.jsonl, line 2: must be a JSON object but is list",
        ),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}', "a.jsonl, line 2: column 'text' not found"),
        ("a.jsonl", b'{"text": 7}\n', "a.jsonl, line 1: column 'text' must be a text but is int"),
        ("a.jsonl", b'{"text": null}\n', "a.jsonl, line 1: .*must be a text but is null"),
        (
            "a.jsonl",
            b'{"body": 1}\n{"id": 2}',
            "a.jsonl: column 'text' not found; set .* one of: body, id$",
        ),
        ("a.jsonl", b'{"text": "\\ud800"}', "a.jsonl, line 1: .*not valid Unicode"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}', "a.jsonl, line 2: not valid UTF-8"),
        ("a.jsonl", b"[" * 100_000, "1 of 1 rows cannot be used.*line 1: its values are nested"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "a"}\n7', mtime=0),
            "a.jsonl.gz, line 2: must be a JSON object but is int",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "a"}', mtime=0)[:-9],
            "a.jsonl.gz: truncated",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "a"}', mtime=0) + gzip.compress(b'{"text": "b"}', mtime=0)[:5],
            "a.jsonl.gz: truncated",
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
        ("a.txt.zst", zstandard.compress(b"abc" * 99)[:-4], "a.txt.zst: truncated"),
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
        (["a", None, "b"], "a.parquet, row 2: .*must be a text but is null"),
        ([1, 2], "a.parquet, row 1: .*must be a text but is int"),
        (["a"] * 1600 + [None] * 401, "a.parquet, row 1601: .*row 1603: .*; and 398 more"),
    ],
)
def test_bad_parquet_rows_are_named(tmp_path, values, message):
    path = write(tmp_path / "a.parquet", values)
    with pytest.raises(UserError, match=message):
        documents(path)
    with pytest.raises(
        UserError, match="column 'txt' not found; set data.text_column to one of: id, text"
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
    (logged,) = caplog.messages
    assert logged.startswith("data.train: 4 of 20 rows cannot be used and are skipped: ")
    assert all(f"{path}, line {number}: " in logged for number in (1, 8, 13))
    assert logged.endswith("; and 1 more")
    path.write_text(path.read_text() + json.dumps(UNUSABLE[case]))
    with pytest.raises(UserError, match="5 of 21 rows cannot be used, more than") as caught:
        documents(path)
    assert "\n" not in str(caught.value)


def test_a_column_that_no_row_of_a_file_has_is_refused_early(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_PATIENCE", 3)
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": 1, "id": 2}\n' * 3 + '{"text": "late"}\nnot JSON')
    with pytest.raises(
        UserError, match=r"a.jsonl: column 'text' not found; set .* one of: body, id$"
    ):
        documents(path)


def test_columns_of_one_name_are_refused_if_they_are_asked_for(tmp_path):
    column = pyarrow.array(["a", "b"])
    table = pyarrow.Table.from_arrays([column] * 3, ["text", "text", "id"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="a.parquet: several columns are named 'text'; rename"):
        documents(tmp_path / "a.parquet")
    assert documents(tmp_path / "a.parquet", "id") == ["a", "b"]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_structs_have_the_keys_that_their_rows_have(tmp_path, ending):
    """Parquet adds the keys of other rows with null; a column that is null stays null."""
    values = [{"a": 1, "list": [{"b": 1}, {"c": {"d": 2}}]}, {"e": "x"}]
    path = write(tmp_path / f"a{ending}", values)
    rows = read_rows([str(path)], [("f", "text")])
    assert [value for _, (value,) in rows] == values


@pytest.mark.parametrize("rest", [b"g", b"garbage", b"\0", b"\0" * 600, b"\0" * 9 + b"tail"])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_bytes_after_gzip_data_are_ignored_with_a_warning(
    tmp_path, rest, chunk, caplog, monkeypatch
):
    monkeypatch.setattr(content, "_CHUNK", chunk)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"first, ") + gzip.compress(b"second") + rest)
    assert documents(path) == ["first, second"]
    warnings = [m for m in caplog.messages if "a.txt.gz: ignoring the bytes after the end" in m]
    assert len(warnings) == bool(rest.strip(b"\0"))


def test_invalid_utf8_in_parquet_is_named(tmp_path):
    raw = pyarrow.array([b"good", b"\xff\xfe"], pyarrow.binary())
    table = pyarrow.table({"text": pyarrow.Array.from_buffers(pyarrow.string(), 2, raw.buffers())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="a.parquet, row 2: not valid UTF-8"):
        documents(tmp_path / "a.parquet")


def test_a_text_that_a_field_names_has_no_byte_order_mark(tmp_path):
    (tmp_path / "a.jinja").write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert file_text("data.chat_template", str(tmp_path / "a.jinja"), "''") == "a\nb"


def test_a_text_that_a_field_names_is_no_corpus(tmp_path):
    (tmp_path / "a.jinja").write_bytes(b"a" * (2**24 + 1))
    with pytest.raises(
        UserError, match=r"data.chat_template=.* has 16,777,217 bytes; use a .* at most 16,777,216"
    ):
        file_text("data.chat_template", str(tmp_path / "a.jinja"), "''")


def test_concatenated_files_lose_their_byte_order_marks(tmp_path):
    mark = "\ufeff"
    (tmp_path / "a.txt").write_text(f"{mark}one\n\n{mark}two")
    line = lambda text: json.dumps({"text": text}) + "\n"
    (tmp_path / "b.jsonl").write_text(mark + line("three") + mark + line("four"))
    texts = [
        x for name in ("a.txt", "b.jsonl") for x in documents(tmp_path / name, separator="\n\n")
    ]
    assert texts == ["one", "two", "three", "four"]


def test_a_text_with_zero_bytes_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes("north".encode("utf-16-le"))
    with pytest.raises(
        UserError, match="a.txt: contains zero bytes.*UTF-16.*; convert it to UTF-8"
    ):
        documents(tmp_path / "a.txt")
