"""Documents from Python code become the same rows as documents from files."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest

from rlp.data.documents import Documents, document_streams
from rlp.data.layout import Layout
from rlp.data.text import text_streams
from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer

TEXTS = [f"the {word} sees a river under stone number {n}" for n, word in enumerate("abcdefgh")]
BYTES = ByteTokenizer()
LAYOUT = Layout(BYTES, 64, holdout_every=4, seed=3)


def same_rows(one, other):
    batches = [stream.batch(0, len(stream)) for stream in (one, other)]
    for name in ("tokens", "segment", "position", "forks"):
        np.testing.assert_array_equal(*(getattr(batch, name) for batch in batches))


def from_files(tmp_path, texts, layout=LAYOUT):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return text_streams(layout, train=str(path))


@pytest.mark.parametrize(
    "source",
    [
        TEXTS,
        lambda: iter(TEXTS),
        [BYTES.encode(text) for text in TEXTS],
        [np.array(BYTES.encode(text)) for text in TEXTS],
        [TEXTS[0], "", " \n", *TEXTS[1:]],
    ],
    ids=["list", "function", "ids", "arrays", "empty ones"],
)
@pytest.mark.parametrize("pack", [False, True])
def test_documents_are_those_of_a_file_with_the_same_texts(tmp_path, source, pack):
    layout = Layout(BYTES, 64, holdout_every=4, seed=3, pack=pack)
    streams = document_streams(Documents(source), "my:docs", layout)
    for one, other in zip(streams, from_files(tmp_path, TEXTS, layout), strict=True):
        same_rows(one, other)
    digests = [next(iter(stream.fingerprint().values()))["digest"] for stream in streams]
    assert len(set(digests)) == 2


def test_forks_are_given_after_the_marker(tmp_path):
    layout = Layout(BYTES, 64, holdout_every=4, fork_marker="under ")
    for one, other in zip(
        document_streams(Documents(TEXTS), "my:docs", layout),
        from_files(tmp_path, TEXTS, layout),
        strict=True,
    ):
        same_rows(one, other)


def test_held_out_documents_may_be_given(tmp_path):
    train, held = document_streams(Documents(TEXTS, TEXTS[:2]), "my:docs", LAYOUT)
    assert (len(train), len(held)) == (8, 2)
    assert [*train.fingerprint(), *held.fingerprint()] == ["data.kind", "data.kind, held out"]


def test_another_text_is_another_fingerprint():
    before, after = (
        document_streams(Documents(texts), "my:docs", LAYOUT)[0].fingerprint()["data.kind"]
        for texts in (TEXTS, ["another", *TEXTS[1:]])
    )
    assert before["digest"] != after["digest"]
    assert before["files"] != after["files"]


def breaks():
    yield TEXTS[0]
    raise OSError("no more")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([3, 4], "my:docs': document 0 is a int; yield a text or token ids"),
        (
            ["text", [1, -2]],
            "my:docs': document 1 contains a value that is not a token id from 0 to",
        ),
        (
            [[1, 10**6]],
            "my:docs': document 0 contains a value that is not a token id from 0 to 260",
        ),
        ([["a", "b"]], "document 0 contains a value that is not a token id"),
        ("one text", "my:docs' is or returns a str; it must be an iterable of doc"),
        (lambda: None, "my:docs' is or returns a NoneType; it must be an iterable"),
        (iter(TEXTS), "my:docs' is a list_iterator, which can be read only once; set it to"),
        ([" "], "my:docs' yields no documents"),
        (TEXTS[:2], "my:docs' yields 2 documents, too few to hold out one in 4: set held"),
        (breaks, "data.kind='my:docs' raised OSError: no more"),
    ],
)
def test_what_is_not_documents_is_refused(source, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "my", ModuleType("my"))
    with pytest.raises(UserError) as caught:
        document_streams(Documents(source), "my:docs", LAYOUT)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_log_says_what_was_read(caplog):
    with caplog.at_level("INFO"):
        document_streams(Documents([*TEXTS, ""]), "my:docs", LAYOUT)
    assert "data.kind=my:docs; 8 documents with" in caplog.text
    assert "left out: 1 empty" in caplog.text
