"""Laws that hold for every tokenizer, whatever its kind."""

import pytest

from rlp.data import compass
from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.folder_tokenizer import FolderTokenizer
from rlp.tokenizers.token_text import PARTIAL
from tests.support.bpe_folder import make_folder

TEXTS = ["Mia faces north .", "Now she faces west .", "", "left <think> left </think> west"]


@pytest.fixture(scope="module", params=["bytes", "words", "folder"])
def one(request, tmp_path_factory):
    if request.param == "folder":
        return FolderTokenizer(make_folder(tmp_path_factory.mktemp("bpe"), eos_token="<|im_end|>"))
    return {"bytes": ByteTokenizer(), "words": compass.TOKENIZER}[request.param]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_whole_and_in_pieces(one, text):
    ids = one.encode(text)
    assert all(0 <= i < one.vocab_size for i in ids)
    assert one.decode(ids) == text
    pieces = one.pieces(ids)
    assert len(pieces) == len(ids)
    assert all(pieces)
    assert one.between_pieces.join(pieces).replace(PARTIAL, "") == text


def test_texts_are_encoded_together_as_one_by_one(one):
    assert [ids.tolist() for ids in one.encode_all(TEXTS)] == [one.encode(t) for t in TEXTS]
    assert {ids.dtype.name for ids in one.encode_all(TEXTS)} == {"int32"}


def test_spans_are_the_characters_of_each_token(one):
    for text, (ids, spans) in zip(TEXTS, one.encode_spans(TEXTS), strict=True):
        assert ids.tolist() == one.encode(text)
        assert spans.shape == (len(ids), 2)
        for piece, (first, end) in zip(one.pieces(ids.tolist()), spans, strict=True):
            assert text[first:end] == piece


def test_tags_and_ends_are_ids_of_the_vocabulary(one):
    tags = (*one.think_open, *one.think_close)
    ids = {one.pad, one.eos, one.separator, *one.bos, *tags}
    assert max(ids) < one.vocab_size
    assert one.decode(one.think_open) == "<think>"
    assert one.decode(one.think_close) == "</think>"
    assert len(one.token_bytes()) == one.vocab_size


def test_its_files_are_the_same_tokenizer(one, tmp_path):
    for name, content in one.files().items():
        text = content if isinstance(content, str) else content.read_text(encoding="utf-8")
        (tmp_path / name).write_text(text, encoding="utf-8")
    again = FolderTokenizer(str(tmp_path))
    texts = TEXTS[:3]  # bytes do not read the names of special tokens, a folder does
    assert [again.encode(text) for text in texts] == [one.encode(text) for text in texts]
    assert (again.bos, again.eos, again.pad) == (one.bos, one.eos, one.pad)


def test_a_chat_without_a_template_is_refused_in_one_line(one):
    if isinstance(one, FolderTokenizer):
        assert (
            one.chat([{"role": "user", "content": "a"}], "{{ messages[0].content }}", True) == "a"
        )
        return
    with pytest.raises(UserError, match="no tokens for a chat template; use a tokenizer folder"):
        one.chat([{"role": "user", "content": "a"}], "", True)
    (refused,) = one.chat_all([([], False)], "")
    assert isinstance(refused, UserError)
