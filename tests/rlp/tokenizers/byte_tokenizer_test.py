"""The byte tokenizer."""

from hypothesis import given
from hypothesis import strategies as st

from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.token_text import PARTIAL

BYTES = ByteTokenizer()


@given(st.text())
def test_bytes_round_trip(text):
    ids = BYTES.encode(text)
    assert BYTES.decode(ids) == text
    assert all(0 <= i < 256 for i in ids)
    assert "".join(BYTES.pieces(ids)).replace(PARTIAL, "") == text.replace(PARTIAL, "")


@given(st.lists(st.integers(0, 260)))
def test_any_ids_have_a_text_and_a_visible_piece_each(ids):
    assert isinstance(BYTES.decode(ids), str)
    pieces = BYTES.pieces(ids)
    assert len(pieces) == len(ids)
    assert all(pieces)


@given(st.text(alphabet="ab é日𝄞<>"))
def test_byte_spans_name_the_character_of_each_byte(text):
    ((ids, spans),) = BYTES.encode_spans([text])
    assert ids.tolist() == BYTES.encode(text)
    offsets = spans[:, 0].tolist()
    assert (spans[:, 1] == spans[:, 0] + 1).all()
    expected = [byte for character in text for byte in character.encode()]
    assert expected == BYTES.encode(text)
    for index, character in enumerate(text):
        assert offsets.count(index) == len(character.encode())
    assert offsets == sorted(offsets)


def test_special_ids_are_distinct_and_are_not_bytes():
    special = {BYTES.pad, *BYTES.bos, BYTES.eos, *BYTES.think_open, *BYTES.think_close}
    assert special == set(range(256, BYTES.vocab_size))
    assert BYTES.decode([*BYTES.think_open, 104, 105, *BYTES.think_close]) == "<think>hi</think>"
