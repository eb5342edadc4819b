"""Every byte and every token of a document is counted once, whatever the tokenizer and windows."""

import numpy as np
import pytest

from rlp.data import located_text
from rlp.data.located_text import locate, read_texts, rows_of, windows_of
from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.load import load_tokenizer
from rlp.tokenizers.word_tokenizer import WordTokenizer
from tests.support import folders, text_files

BYTES = ByteTokenizer()
TEXTS = ("a b  c\n\n", " 1 + 1 = 2", "é ½ 漢字 ok", "\u3000x🙂🙂 y ", "a", "Q: 5 6 " * 30)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    kinds = ("bytes", "bpe", "space in front")
    made = {kind: folders.folder_of(tmp_path_factory.mktemp("t"), kind) for kind in kinds}
    return {"own bytes": BYTES} | {kind: load_tokenizer(folder) for kind, folder in made.items()}


@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_the_tokens_are_those_of_the_text(tokenizers, text):
    for kind, tokenizer in tokenizers.items():
        document = locate(text, tokenizer)
        sizes = document.bytes_of_tokens()
        assert len(sizes) == len(document.ids), kind
        assert sizes.min() >= 0, kind
        assert sizes.sum() == len(text.encode()), kind


def test_white_space_that_is_not_tokenized_belongs_to_the_next_token():
    document = locate("  two  words ", WordTokenizer(("two", "words"), "here"))
    assert document.bytes_of_tokens().tolist() == [5, 8]


@pytest.mark.parametrize("length", [4, 5, 12, 17, 1000])
def test_every_token_is_scored_once_after_at_least_half_a_window(length):
    document = locate("0123456789" * 9 + "abc", BYTES)
    windows = windows_of(document, length, BYTES)
    room = length - 1  # after BOS
    scored = [t for window in windows for t in range(window.scored, window.end)]
    assert scored == list(range(93))
    for window in windows:
        assert window.end - window.start == min(room, 93)
        assert window.scored == 0 or window.scored - window.start >= room // 2


def test_windows_with_a_tag_are_left_out():
    document = locate("0123456789" * 3, BYTES)
    document.ids[25] = BYTES.think_close[0]
    kept = windows_of(document, 11, BYTES)
    assert kept
    assert all(not window.start <= 25 < window.end for window in kept)
    assert len(kept) < len(windows_of(locate(document.text, BYTES), 11, BYTES))


def test_a_row_is_the_window_after_bos():
    document = locate("0123456789" * 2, BYTES)
    windows = windows_of(document, 8, BYTES)
    none, index = np.full((len(windows), 1), -1, np.int32), np.arange(len(windows))
    rows = rows_of([(document, window) for window in windows], none, index, 9, BYTES)
    for row, window in enumerate(windows):
        ids = [*BYTES.bos, *document.ids[window.start : window.end], BYTES.pad]
        assert rows.tokens[row].tolist() == ids
        assert rows.segment[row].tolist() == [1] * 8 + [0]
        assert rows.position[row].tolist() == [*range(8), 0]


def test_texts_are_those_of_the_files_in_an_order_that_is_spread_over_them(tmp_path):
    text_files.write(tmp_path / "a.jsonl", [f"text {i}" for i in range(20)])
    found = read_texts(str(tmp_path), "--text", "text", "")
    assert sorted(found) == sorted(f"text {i}" for i in range(20))
    first = sorted(int(text.split()[1]) // 5 for text in found[:4])
    assert first == [0, 1, 2, 3]


def test_a_wrong_column_names_the_flag(tmp_path):
    text_files.write(tmp_path / "a.jsonl", ["one"], column="body")
    with pytest.raises(UserError, match="'text' not found; set --text_column to one of: id, body"):
        read_texts(str(tmp_path), "--text", "text", "")


def test_empty_texts_are_refused(tmp_path):
    text_files.write(tmp_path / "a.jsonl", [" "])
    with pytest.raises(UserError, match="--text=.*every text is empty"):
        located_text.read_texts(str(tmp_path), "--text", "text", "")
