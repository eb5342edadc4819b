"""Properties of every tokenizer, whatever its kind."""

import pytest

from rlp.data import compass
from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.folder_tokenizer import FolderTokenizer
from rlp.tokenizers.token_text import PARTIAL
from tests.support.bpe_folder import make_folder

TEXTS = ["Mia faces north .", "Now she faces west .", "", "left <think> left </think> west"]


@pytest.fixture(scope="module", params=["bytes", "words", "folder"])
def tokenizer(request, tmp_path_factory):
    if request.param == "folder":
        return FolderTokenizer(make_folder(tmp_path_factory.mktemp("bpe"), eos_token="<|im_end|>"))
    return {"bytes": ByteTokenizer(), "words": compass.TOKENIZER}[request.param]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_whole_and_in_pieces(tokenizer, text):
    ids = tokenizer.encode(text)
    assert all(0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.decode(ids) == text
    pieces = tokenizer.pieces(ids)
    assert len(pieces) == len(ids)
    assert all(pieces)
    assert tokenizer.between_pieces.join(pieces).replace(PARTIAL, "") == text


def test_texts_are_encoded_together_as_one_by_one(tokenizer):
    assert [ids.tolist() for ids in tokenizer.encode_all(TEXTS)] == [
        tokenizer.encode(t) for t in TEXTS
    ]
    assert {ids.dtype.name for ids in tokenizer.encode_all(TEXTS)} == {"int32"}


def test_spans_are_the_characters_of_each_token(tokenizer):
    for text, (ids, spans) in zip(TEXTS, tokenizer.encode_spans(TEXTS), strict=True):
        assert ids.tolist() == tokenizer.encode(text)
        assert spans.shape == (len(ids), 2)
        for piece, (first, end) in zip(tokenizer.pieces(ids.tolist()), spans, strict=True):
            assert text[first:end] == piece


def test_tags_and_ends_are_ids_of_the_vocabulary(tokenizer):
    tags = (*tokenizer.think_open, *tokenizer.think_close)
    ids = {tokenizer.pad, tokenizer.eos, tokenizer.separator, *tokenizer.bos, *tags}
    assert max(ids) < tokenizer.vocab_size
    assert tokenizer.decode(tokenizer.think_open) == "<think>"
    assert tokenizer.decode(tokenizer.think_close) == "</think>"
    assert len(tokenizer.token_bytes()) == tokenizer.vocab_size


def test_its_files_are_the_same_tokenizer(tokenizer, tmp_path):
    for name, content in tokenizer.files().items():
        text = content if isinstance(content, str) else content.read_text(encoding="utf-8")
        (tmp_path / name).write_text(text, encoding="utf-8")
    again = FolderTokenizer(str(tmp_path))
    texts = TEXTS[:3]  # a folder recognizes the names of special tokens, the byte tokenizer not
    assert [again.encode(text) for text in texts] == [tokenizer.encode(text) for text in texts]
    assert (again.bos, again.eos, again.pad) == (tokenizer.bos, tokenizer.eos, tokenizer.pad)


def test_a_chat_without_a_template_is_refused_in_one_line(tokenizer):
    if isinstance(tokenizer, FolderTokenizer):
        assert (
            tokenizer.chat([{"role": "user", "content": "a"}], "{{ messages[0].content }}", True)
            == "a"
        )
        return
    with pytest.raises(UserError, match="no tokens for a chat template; use a tokenizer folder"):
        tokenizer.chat([{"role": "user", "content": "a"}], "", True)
    (refused,) = tokenizer.chat_all([([], False)], "")
    assert isinstance(refused, UserError)
