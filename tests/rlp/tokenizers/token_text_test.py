"""The text of single tokens, of every kind of tokenizer."""

import json

import pytest

from rlp.tokenizers.load import load_tokenizer
from rlp.tokenizers.token_text import PARTIAL
from tests.support import folders
from tests.support.bpe_folder import make_folder


@pytest.mark.parametrize("kind", ["bytes", "bpe", "space in front"])
@pytest.mark.parametrize("text", ["a 漢字 é ℕ", "é", "1 + 1 = 2 漢", "日\ufffd本", "\ufffd"])
def test_pieces_lose_no_character_with_any_kind_of_tokenizer(tmp_path, kind, text):
    """Broken characters are one U+FFFD with some kinds, and one for every byte with others."""
    one = load_tokenizer(folders.folder_of(tmp_path, kind))
    ids = one.encode(text)
    assert "".join(one.pieces(ids)).replace(PARTIAL, "") == text
    for end in range(len(ids) + 1):
        pieces = one.pieces(ids[:end])
        assert len(pieces) == end
        assert all(pieces)


def test_added_tokens_that_are_text_keep_their_bytes(tmp_path):
    """Gemma's line breaks, for example. Special ones and the thinking tags are no text."""
    folder = make_folder(tmp_path, added=("\n\n", "<b>", "<think>", "</think>"), eos_token="</s>")
    one = load_tokenizer(folder)
    spelled = one.token_bytes()
    for name, expected in (("\n\n", b"\n\n"), ("<b>", b"<b>"), ("<think>", b""), ("</s>", b"")):
        (i,) = one.encode(name)
        assert spelled[i] == expected
        assert i in one.added
    text = "north\n\n<b>west"
    assert b"".join(spelled[i] for i in one.encode(text)) == text.encode()


def test_added_tokens_of_spaces_have_the_bytes_of_spaces(tmp_path):
    """Gemma has such tokens for indentation, written with the sign that its pieces have."""
    files = folders.space_in_front_files()
    made = json.loads(files["tokenizer.json"])
    place = max(token["id"] for token in made["added_tokens"]) + 1000
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    made["added_tokens"].append({"id": place, "content": "▁▁", "special": False} | plain)
    for name, content in (files | {"tokenizer.json": json.dumps(made)}).items():
        (tmp_path / name).write_text(content)
    one = load_tokenizer(str(tmp_path))
    (number,) = [i for i in one.added if one.decode([one.encode("a")[0], i]).endswith("a  ")]
    assert one.token_bytes()[number] == b"  "
