"""Tokenizers: round trips, offsets, thinking tags, and folders that cannot be used."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlp.runtime.errors import UserError
from rlp.tokenizers import tokenizer
from tests.support import folders

CORPUS = ["Mia faces north . She turns left .", "Now she faces west .", "naïve 日本語 ½ é"]
BYTES = tokenizer.load("bytes")


def make_folder(
    folder: Path, added=("<think>", "</think>", "<|endoftext|>"), before=None, **named
) -> str:
    """A small byte-level BPE tokenizer as transformers saves it; `before` makes its
    post-processor."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(CORPUS, trainer)
    bpe.add_tokens([AddedToken(name, special=False, normalized=False) for name in added])
    bpe.add_special_tokens(list(named.values()))
    if before:
        bpe.post_processor = before(bpe)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, **named)
    wrapped.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def bpe(tmp_path_factory) -> tokenizer.Tokenizer:
    return tokenizer.load(make_folder(tmp_path_factory.mktemp("bpe"), eos_token="<|im_end|>"))


@given(st.text())
def test_bytes_round_trip(text):
    ids = BYTES.encode(text)
    assert BYTES.decode(ids) == text
    assert all(0 <= i < 256 for i in ids)
    assert "".join(BYTES.pieces(ids)).replace(tokenizer.PARTIAL, "") == text.replace(
        tokenizer.PARTIAL, ""
    )


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
    spelled = [byte for character in text for byte in character.encode()]
    assert spelled == BYTES.encode(text)
    for place, character in enumerate(text):
        assert offsets.count(place) == len(character.encode())
    assert offsets == sorted(offsets)


def test_special_bytes_ids_are_distinct_and_outside_text():
    special = {BYTES.pad, *BYTES.bos, BYTES.eos, *BYTES.think_open, *BYTES.think_close}
    assert special == set(range(256, BYTES.vocab_size))
    assert BYTES.decode([*BYTES.think_open, 104, 105, *BYTES.think_close]) == "<think>hi</think>"


@pytest.mark.parametrize("text", [*CORPUS, "", "\n\t ", "日日日", "unseen: zqx 𝄞"])
def test_folder_round_trip_pieces_and_offsets(bpe, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert max(ids, default=0) < bpe.vocab_size
    pieces = bpe.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces).replace(tokenizer.PARTIAL, "") == text
    # Whatever stands before a token's span is spelled by the tokens before it, and no more.
    ((again, spans),) = bpe.encode_spans([text])
    assert again.tolist() == ids
    assert spans.shape == (len(ids), 2)
    for number, (start, end) in enumerate(spans):
        if bpe.decode(ids[:number]) in text:
            assert bpe.decode(ids[:number]) == text[:start]
        if bpe.decode(ids[: number + 1]) in text:
            assert bpe.decode(ids[: number + 1]) == text[:end]


def test_a_folder_that_states_its_bos_puts_it_also_where_transformers_does_not(tmp_path):
    """As it does not with files of DeepSeek-V3, whose class it replaces."""
    folder = Path(make_folder(tmp_path, **NAMED))
    path = folder / "tokenizer_config.json"
    for states, expected in ((True, ["<s>"]), (False, []), (None, [])):
        config = json.loads(path.read_text()) | {"add_bos_token": states}
        config |= {"tokenizer_class": "LlamaTokenizerFast"}
        path.write_text(json.dumps(config))
        one = tokenizer.load(str(folder))
        assert one.put_before == ()
        assert [one.decode([i]) for i in one.bos] == expected


@pytest.mark.parametrize("kind", ["bytes", "bpe", "space in front"])
@pytest.mark.parametrize("text", ["a 漢字 é ℕ", "é", "1 + 1 = 2 漢", "日\ufffd本", "\ufffd"])
def test_pieces_lose_no_character_with_any_kind_of_tokenizer(tmp_path, kind, text):
    """Broken characters are one U+FFFD with some kinds, and one for every byte with others."""
    one = tokenizer.load(folders.folder_of(tmp_path, kind))
    ids = one.encode(text)
    assert "".join(one.pieces(ids)).replace(tokenizer.PARTIAL, "") == text
    for end in range(len(ids) + 1):
        pieces = one.pieces(ids[:end])
        assert len(pieces) == end
        assert all(pieces)


def test_added_tokens_that_are_text_keep_their_bytes(tmp_path):
    """Gemma's line breaks, for example. Special ones and the thinking tags are no text."""
    folder = make_folder(tmp_path, added=("\n\n", "<b>", "<think>", "</think>"), eos_token="</s>")
    one = tokenizer.load(folder)
    spelled = one.token_bytes()
    for name, expected in (("\n\n", b"\n\n"), ("<b>", b"<b>"), ("<think>", b""), ("</s>", b"")):
        (i,) = one.encode(name)
        assert spelled[i] == expected
        assert i in one.added
    text = "north\n\n<b>west"
    assert b"".join(spelled[i] for i in one.encode(text)) == text.encode()


def test_a_sentencepiece_model_alone_asks_for_its_library(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(UserError, match="pip install sentencepiece protobuf") as caught:
        tokenizer.load(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["bytes", "bpe"])
def test_encode_all_equals_encode(name, request):
    one = BYTES if name == "bytes" else request.getfixturevalue("bpe")
    texts = [*CORPUS, "", "a"]
    assert [ids.tolist() for ids in one.encode_all(texts)] == [one.encode(t) for t in texts]


def test_tags_that_were_added_are_single_tokens_between_texts(bpe):
    ids = bpe.encode("north<think>left</think>west")
    (think_open,), (think_close,) = bpe.think_open, bpe.think_close
    assert ids.count(think_open) == ids.count(think_close) == 1
    at, to = ids.index(think_open), ids.index(think_close)
    assert bpe.decode(ids[at + 1 : to]) == "left"


@pytest.mark.parametrize("added", [(), ("<think>",), ("</think>",)], ids=str)
def test_tags_that_were_not_added_are_the_ids_of_their_text(tmp_path, added):
    one = tokenizer.load(make_folder(tmp_path, added=added, eos_token="</s>"))
    for ids, tag in ((one.think_open, "<think>"), (one.think_close, "</think>")):
        assert isinstance(ids, tuple)
        assert list(ids) == one.encode(tag)
        assert one.decode(ids) == tag
        assert (len(ids) == 1) == (tag in added)


NAMED = {"eos_token": "</s>", "bos_token": "<s>", "pad_token": "<p>"}


def test_named_specials_are_used_where_nothing_is_asked_for(tmp_path):
    one = tokenizer.load(make_folder(tmp_path, **NAMED))
    names = [one.decode([i]) for i in (one.eos, one.pad, one.separator)]
    assert names == ["</s>", "<p>", "</s>"]


def put_before(*names):
    """A post-processor that puts these tokens of `make_folder` before a text, and </s> behind."""
    from tokenizers import processors

    return lambda made: processors.TemplateProcessing(
        single=" ".join([*names, "$A", "</s>"]),
        special_tokens=[(name, made.token_to_id(name)) for name in [*names, "</s>"]],
    )


@pytest.mark.parametrize("names", [(), ("<s>",), ("<p>",), ("<p>", "<s>")], ids=str)
def test_what_stands_before_a_text_is_what_the_tokenizer_puts_there(tmp_path, names):
    """The name of its bos_token alone puts nothing anywhere; another token may be put there."""
    from transformers import AutoTokenizer

    folder = make_folder(tmp_path, before=put_before(*names) if names else None, **NAMED)
    one = tokenizer.load(folder)
    assert [one.decode([i]) for i in one.bos] == list(names)
    whole = AutoTokenizer.from_pretrained(folder)("north west")["input_ids"]
    assert [*one.bos, *one.encode("north west")] == whole[: len(whole) - bool(names)]
    assert tokenizer.load(folder, bos="none").bos == ()
    assert tokenizer.load(folder, bos="<s>").bos == tuple(one.encode("<s>"))


def test_a_folder_without_bos_and_pad_pads_with_eos(bpe):
    assert bpe.decode([bpe.eos]) == "<|im_end|>"
    assert bpe.pad == bpe.separator == bpe.eos
    assert bpe.bos == ()


def test_tokens_that_are_asked_for_are_taken(tmp_path):
    folder = make_folder(tmp_path, **NAMED)
    text = tokenizer.load(folder, eos="<|endoftext|>")
    assert text.decode([text.eos]) == text.decode([text.separator]) == "<|endoftext|>"
    none = tokenizer.load(folder, bos="none", separator="<|endoftext|>")
    assert none.bos == ()
    assert [none.decode([i]) for i in (none.eos, none.separator)] == ["</s>", "<|endoftext|>"]
    first = tokenizer.load(folder, bos="<|endoftext|>")
    assert first.decode(first.bos) == "<|endoftext|>"


@pytest.mark.parametrize("field", ["bos", "eos", "separator"])
def test_a_token_that_is_not_there_is_refused_by_its_name(tmp_path, field):
    folder = make_folder(tmp_path, eos_token="</s>")
    for name in ("<|nowhere|>", "north west", "日"):
        with pytest.raises(UserError, match=re.escape(f"data.{field}='{name}' is not one token")):
            tokenizer.load(folder, **{field: name})
    with pytest.raises(UserError, match=f"data.{field}='</s>'; bytes have tokens of their own"):
        tokenizer.load("bytes", **{field: "</s>"})


def test_a_tag_that_cannot_be_written_is_refused(tmp_path):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = {"[unk]": 0, "<": 1, ">": 2, "think": 3, "[end]": 4}  # no "/"
    words = Tokenizer(models.WordLevel(known, unk_token="[unk]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"unk_token": "[unk]", "eos_token": "[end]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="think> cannot be written with it"):
        tokenizer.load(str(tmp_path))


def test_no_end_of_text_is_refused(tmp_path):
    folder = make_folder(tmp_path)
    with pytest.raises(UserError, match="ends a text .*set data.eos"):
        tokenizer.load(folder)
    assert tokenizer.load(folder, eos="<|endoftext|>").bos == ()


def test_a_path_that_is_no_folder_is_refused_and_never_looked_up(tmp_path):
    for spec in ("Qwen/Qwen3-1.7B", str(tmp_path / "none"), ""):
        with pytest.raises(UserError, match="no folder"):
            tokenizer.load(spec)


@pytest.mark.parametrize("content", [None, "{", '{"version": "1.0"}'])
def test_a_folder_without_a_readable_tokenizer_is_refused(tmp_path, content):
    pytest.importorskip("transformers")
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=f"tokenizer {tmp_path}: ") as caught:
        tokenizer.load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_is_read_without_chatter(tmp_path, capfd):
    one = tokenizer.load(make_folder(tmp_path, eos_token="</s>"))
    capfd.readouterr()
    one = tokenizer.load(str(tmp_path))
    one.encode("north " * 3000)
    one.encode_all(["north " * 3000])
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif("RLP_TEST_TOKENIZER" not in os.environ, reason="no folder with golden strings")
def test_golden_strings():
    """golden.inp holds strings between marker lines, golden.out a line of ids for each."""
    folder = Path(os.environ["RLP_TEST_TOKENIZER"])
    one = tokenizer.load(str(folder))
    with open(folder / "golden.inp", newline="") as file:
        texts = file.read().split("\n__ggml_vocab_test__\n")
    rows = (folder / "golden.out").read_text().split("\n")
    for text, row in zip(texts, rows, strict=True):
        assert one.encode(text) == [int(i) for i in row.split()], repr(text)


def test_added_tokens_of_spaces_have_the_bytes_of_spaces(tmp_path):
    """Gemma has such tokens for indentation, written with the sign that its pieces have."""
    files = folders.space_in_front_files()
    made = json.loads(files["tokenizer.json"])
    place = max(token["id"] for token in made["added_tokens"]) + 1000
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    made["added_tokens"].append({"id": place, "content": "▁▁", "special": False} | plain)
    for name, content in (files | {"tokenizer.json": json.dumps(made)}).items():
        (tmp_path / name).write_text(content)
    one = tokenizer.load(str(tmp_path))
    (number,) = [i for i in one.added if one.decode([one.encode("a")[0], i]).endswith("a  ")]
    assert one.token_bytes()[number] == b"  "
