"""The text of single tokens for every kind of tokenizer."""

import json

import pytest

from rlp.tokenizers.load import load_tokenizer
from rlp.tokenizers.token_text import PARTIAL
from tests.support import folders
from tests.support.bpe_folder import make_folder


@pytest.mark.parametrize("kind", ["bytes", "bpe", "space in front"])
@pytest.mark.parametrize("text", ["a 漢字 é ℕ", "é", "1 + 1 = 2 漢", "日\ufffd本", "\ufffd"])
def test_pieces_lose_no_character_with_any_kind_of_tokenizer(tmp_path, kind, text):
    """Some kinds show a broken character as one U+FFFD, others as one for every byte."""
    tokenizer = load_tokenizer(folders.folder_of(tmp_path, kind))
    ids = tokenizer.encode(text)
    assert "".join(tokenizer.pieces(ids)).replace(PARTIAL, "") == text
    for end in range(len(ids) + 1):
        pieces = tokenizer.pieces(ids[:end])
        assert len(pieces) == end
        assert all(pieces)


def test_added_tokens_that_are_text_keep_their_bytes(tmp_path):
    """Gemma's line breaks are an example. Special tokens and the thinking tags are not text."""
    folder = make_folder(tmp_path, added=("\n\n", "<b>", "<think>", "</think>"), eos_token="</s>")
    tokenizer = load_tokenizer(folder)
    token_bytes = tokenizer.token_bytes()
    for name, expected in (("\n\n", b"\n\n"), ("<b>", b"<b>"), ("<think>", b""), ("</s>", b"")):
        (i,) = tokenizer.encode(name)
        assert token_bytes[i] == expected
        assert i in tokenizer.added
    text = "north\n\n<b>west"
    assert b"".join(token_bytes[i] for i in tokenizer.encode(text)) == text.encode()


def test_added_tokens_of_spaces_have_the_bytes_of_spaces(tmp_path):
    """Gemma has such tokens for indentation, in which "▁" is a space as in its other tokens."""
    files = folders.space_in_front_files()
    content = json.loads(files["tokenizer.json"])
    new_id = max(token["id"] for token in content["added_tokens"]) + 1000
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"].append({"id": new_id, "content": "▁▁", "special": False} | plain)
    for name, text in (files | {"tokenizer.json": json.dumps(content)}).items():
        (tmp_path / name).write_text(text)
    tokenizer = load_tokenizer(str(tmp_path))
    (a,) = tokenizer.encode("a")[:1]
    (token,) = [i for i in tokenizer.added if tokenizer.decode([a, i]).endswith("a  ")]
    assert tokenizer.token_bytes()[token] == b"  "
