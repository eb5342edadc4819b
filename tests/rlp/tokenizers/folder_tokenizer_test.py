"""Hugging Face tokenizer folders: round trips, offsets, thinking tags, and unusable folders."""

import os
from pathlib import Path

import pytest

from rlp.runtime.errors import UserError
from rlp.tokenizers.load import load_tokenizer
from rlp.tokenizers.token_text import PARTIAL
from rlp.tokenizers.tokenizer import Tokenizer
from tests.support.bpe_folder import CORPUS, make_folder


@pytest.fixture(scope="module")
def bpe(tmp_path_factory) -> Tokenizer:
    return load_tokenizer(make_folder(tmp_path_factory.mktemp("bpe"), eos_token="<|im_end|>"))


@pytest.mark.parametrize("text", [*CORPUS, "", "\n\t ", "日日日", "unseen: zqx 𝄞"])
def test_folder_round_trip_pieces_and_offsets(bpe, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert max(ids, default=0) < bpe.vocab_size
    pieces = bpe.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces).replace(PARTIAL, "") == text
    # The text before the span of a token is exactly the text of the tokens before it.
    ((again, spans),) = bpe.encode_spans([text])
    assert again.tolist() == ids
    assert spans.shape == (len(ids), 2)
    for number, (start, end) in enumerate(spans):
        if bpe.decode(ids[:number]) in text:
            assert bpe.decode(ids[:number]) == text[:start]
        if bpe.decode(ids[: number + 1]) in text:
            assert bpe.decode(ids[: number + 1]) == text[:end]


def test_a_folder_with_only_a_sentencepiece_model_names_the_missing_library(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(UserError, match="pip install sentencepiece protobuf") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_tags_that_were_added_are_single_tokens_between_texts(bpe):
    ids = bpe.encode("north<think>left</think>west")
    (think_open,), (think_close,) = bpe.think_open, bpe.think_close
    assert ids.count(think_open) == ids.count(think_close) == 1
    at, to = ids.index(think_open), ids.index(think_close)
    assert bpe.decode(ids[at + 1 : to]) == "left"


@pytest.mark.parametrize("added", [(), ("<think>",), ("</think>",)], ids=str)
def test_tags_that_were_not_added_are_the_ids_of_their_text(tmp_path, added):
    tokenizer = load_tokenizer(make_folder(tmp_path, added=added, eos_token="</s>"))
    for ids, tag in ((tokenizer.think_open, "<think>"), (tokenizer.think_close, "</think>")):
        assert isinstance(ids, tuple)
        assert list(ids) == tokenizer.encode(tag)
        assert tokenizer.decode(ids) == tag
        assert (len(ids) == 1) == (tag in added)


NAMED = {"eos_token": "</s>", "bos_token": "<s>", "pad_token": "<p>"}


def test_the_special_tokens_of_the_folder_are_the_defaults(tmp_path):
    tokenizer = load_tokenizer(make_folder(tmp_path, **NAMED))
    ids = (tokenizer.eos, tokenizer.pad, tokenizer.separator)
    assert [tokenizer.decode([i]) for i in ids] == ["</s>", "<p>", "</s>"]


def test_a_folder_without_bos_and_pad_pads_with_eos(bpe):
    assert bpe.decode([bpe.eos]) == "<|im_end|>"
    assert bpe.pad == bpe.separator == bpe.eos
    assert bpe.bos == ()


def test_tokens_of_the_config_override_those_of_the_folder(tmp_path):
    folder = make_folder(tmp_path, **NAMED)
    text = load_tokenizer(folder, eos="<|endoftext|>")
    assert text.decode([text.eos]) == text.decode([text.separator]) == "<|endoftext|>"
    none = load_tokenizer(folder, bos="none", separator="<|endoftext|>")
    assert none.bos == ()
    assert [none.decode([i]) for i in (none.eos, none.separator)] == ["</s>", "<|endoftext|>"]
    first = load_tokenizer(folder, bos="<|endoftext|>")
    assert first.decode(first.bos) == "<|endoftext|>"


def test_a_tag_that_cannot_be_encoded_is_refused(tmp_path):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = {"[unk]": 0, "<": 1, ">": 2, "think": 3, "[end]": 4}  # no "/"
    words = Tokenizer(models.WordLevel(known, unk_token="[unk]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"unk_token": "[unk]", "eos_token": "[end]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="think> cannot be encoded with it"):
        load_tokenizer(str(tmp_path))


def test_a_folder_without_eos_is_refused(tmp_path):
    folder = make_folder(tmp_path)
    with pytest.raises(UserError, match="ends a text .*set data.eos"):
        load_tokenizer(folder)
    assert load_tokenizer(folder, eos="<|endoftext|>").bos == ()


@pytest.mark.parametrize("content", [None, "{", '{"version": "1.0"}'])
def test_a_folder_without_a_readable_tokenizer_is_refused(tmp_path, content):
    pytest.importorskip("transformers")
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=f"tokenizer {tmp_path}: ") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_loading_a_folder_prints_nothing(tmp_path, capfd):
    load_tokenizer(make_folder(tmp_path, eos_token="</s>"))
    capfd.readouterr()
    tokenizer = load_tokenizer(str(tmp_path))
    tokenizer.encode("north " * 3000)
    tokenizer.encode_all(["north " * 3000])
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif("RLP_TEST_TOKENIZER" not in os.environ, reason="no folder with golden strings")
def test_golden_strings():
    """golden.inp contains strings between marker lines, golden.out a line of ids for each."""
    folder = Path(os.environ["RLP_TEST_TOKENIZER"])
    tokenizer = load_tokenizer(str(folder))
    with open(folder / "golden.inp", newline="") as file:
        texts = file.read().split("\n__ggml_vocab_test__\n")
    rows = (folder / "golden.out").read_text().split("\n")
    for text, row in zip(texts, rows, strict=True):
        assert tokenizer.encode(text) == [int(i) for i in row.split()], repr(text)
