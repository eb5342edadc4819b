"""Tokens are named alike wherever they are, and their offsets are places in the text."""

import pytest

from rlp.serving.token_names import TokenNames
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.folder_tokenizer import FolderTokenizer
from tests.support import folders

TEXT = "a b =2 1é b\N{CJK UNIFIED IDEOGRAPH-4E2D}a"


def space_in_front(folder):
    for name, content in folders.space_in_front_files().items():
        (folder / name).write_text(content)
    return FolderTokenizer(folder)


@pytest.fixture(params=["bytes", "space in front"])
def tokenizer(request, tmp_path):
    return ByteTokenizer() if request.param == "bytes" else space_in_front(tmp_path)


def test_whole_characters_are_where_their_offsets_say(tokenizer):
    names, ids = TokenNames(tokenizer), tokenizer.encode(TEXT)
    text, offsets = tokenizer.decode(ids), names.offsets(ids)
    assert offsets[0] == 0
    checked = 0
    for token, at, after in zip(ids, offsets, [*offsets[1:], len(text)], strict=True):
        name = names.name(token)
        if name.startswith("bytes:"):
            assert text[at] in "é\N{CJK UNIFIED IDEOGRAPH-4E2D}"
        elif at:  # the space in front of the first word is not in the text
            assert text[at:after] == name
            checked += 1
    assert checked > 5


def test_a_token_after_a_broken_character_is_where_its_offset_says():
    tokenizer = ByteTokenizer()
    names, ids = TokenNames(tokenizer), [*b"a\x8ab\xe4\xb8c"]
    text, offsets = tokenizer.decode(ids), names.offsets(ids)
    assert [text[offsets[ids.index(ord(letter))]] for letter in "abc"] == ["a", "b", "c"]


def test_names_do_not_depend_on_neighbours(tokenizer):
    names = TokenNames(tokenizer)
    ids = tokenizer.encode("é")
    assert [names.name(token) for token in ids[-2:]] == ["bytes:\\xc3", "bytes:\\xa9"]
    assert names.name(tokenizer.vocab_size) == f"token_id:{tokenizer.vocab_size}"
    assert names.bytes_of(10**6) == b""
    assert names.name(tokenizer.eos) == tokenizer.decode([tokenizer.eos]) != ""
