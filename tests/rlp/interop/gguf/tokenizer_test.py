"""The tokenizer in a GGUF file gives the ids of the tokenizer that was converted."""

import json
from pathlib import Path

import pytest

from rlp.interop import huggingface
from rlp.tokenizers.load import load_tokenizer
from tests.support import gguf_files

pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {
    "llama-bpe": LLAMA_3,
    "qwen2": LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}"),
    "gpt-2": None,
    "smollm": None,
    "default": None,
}
SPECIAL = ("<s>", "</s>", "<｜end▁of▁turn｜>", "<unk>")
PLAIN = "<think>"  # an added token that is not special
TEXTS = (
    *("", " ", "   ", "\n", "\n\n", "\t\t x", "\r\n\r\n", " the", "  the  end ", "the\n\nend\n"),
    *("a\n\n1. one\n2. two", "\n\n  3", "12345 6789 3.14", "x1y22z333", "I'LL don't we've it's"),
    *(
        "naïve façade",
        "e\u0301 o\u0308",
        "中文字符 日本語",
        "😀👨\u200d👩\u200d👧!",
        "العربية हिन्दी",
    ),
    *("<s>hi</s> x", "a <｜end▁of▁turn｜> b", "<think>hm</think>", "▁▁a ▁", "\u00a0n\u2003m"),
    *("[PAD3] <unk>", "a plugh, plugh", "def f(x):\n    return x**2  # ok", "hello" * 30),
)
TEXT = [
    "the end of the story is that the cat sat on the mat and then hello hello hello",
    "it's 12345 and 12345 or 1999, 2024; we've don't I'll the\n\n\n\nend   of  naïve façade é é",
    "def f(x):\n    return x\n\n1. one\n\n1. two\n\n1. three 中文字符 中文字符 日本語 日本語",
] * 20


def byte_level(pre: str, *, words: bool = False):
    """Create a byte-level BPE tokenizer that splits text according to `pre`."""
    original = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=pre == "llama-bpe"))
    parts = tokenizers.pre_tokenizers
    if SPLITS[pre]:
        split = parts.Split(tokenizers.Regex(SPLITS[pre]), "isolated")
        steps = [split, parts.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        digits = [parts.Digits(individual_digits=True)] if pre == "smollm" else []
        steps = [*digits, parts.ByteLevel(add_prefix_space=False)]
    original.pre_tokenizer = parts.Sequence(steps)
    original.decoder = tokenizers.decoders.ByteLevel()
    if pre == "qwen2":
        original.normalizer = tokenizers.normalizers.NFC()
    alphabet = parts.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=380, special_tokens=list(SPECIAL), initial_alphabet=alphabet
    )
    original.train_from_iterator(TEXT, trainer)
    if words:  # a token that no sequence of merges produces
        state = json.loads(original.to_str())
        state["model"]["vocab"]["Ġplugh"] = len(state["model"]["vocab"])
        original = tokenizers.Tokenizer.from_str(json.dumps(state))
    original.add_tokens([tokenizers.AddedToken(PLAIN, normalized=False)])
    return original


def sentencepiece(*, space: bool):
    """Create a tokenizer like that of Llama 2, with or without a space before every text."""
    original = tokenizers.Tokenizer(
        tokenizers.models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    steps = [tokenizers.normalizers.Replace(" ", "▁")]
    if space:
        steps.insert(0, tokenizers.normalizers.Prepend("▁"))
    original.normalizer = tokenizers.normalizers.Sequence(steps)
    parts = [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback()]
    parts += [tokenizers.decoders.Fuse()]
    parts += [tokenizers.decoders.Strip(" ", 1, 0)] if space else []
    original.decoder = tokenizers.decoders.Sequence(parts)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=420, special_tokens=special)
    original.train_from_iterator([word for text in TEXT for word in text.split("\n")], trainer)
    state = json.loads(original.to_str())
    state["added_tokens"] = state["added_tokens"][:3]
    return tokenizers.Tokenizer.from_str(json.dumps(state))


def metadata(original, kind: str, pre: str) -> dict:
    """Return the metadata that a converter writes for a tokenizer."""
    state = json.loads(original.to_str())
    added = {token["content"]: token["special"] for token in state["added_tokens"]}
    ids = original.get_vocab(with_added_tokens=True)
    words = sorted(ids, key=ids.get)
    assert [ids[word] for word in words] == list(range(len(words)))
    types = [1 if word not in added else 3 if added[word] else 4 for word in words]
    types = [6 if word.startswith("<0x") else kind for word, kind in zip(words, types, strict=True)]
    padding = [f"[PAD{i}]" for i in range(len(words), 448)]
    found = {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": words + padding,
        "tokenizer.ggml.token_type": types + [5] * len(padding),
        "tokenizer.ggml.bos_token_id": ids["<s>"],
        "tokenizer.ggml.eos_token_id": ids["</s>"],
        "tokenizer.ggml.eot_token_id": None,
        "tokenizer.ggml.unknown_token_id": ids["<unk>"],
        "tokenizer.ggml.add_bos_token": None,
    }
    merges = [" ".join(pair) for pair in state["model"]["merges"]]
    if kind == "gpt2":
        return found | {"tokenizer.ggml.merges": merges}
    rank = {merge.replace(" ", ""): float(-i) for i, merge in reversed(list(enumerate(merges)))}
    scores = [rank.get(word, 0.0 if ids.get(word, 0) < 3 else -1e4) for word in words + padding]
    return found | {"tokenizer.ggml.merges": None, "tokenizer.ggml.scores": scores}


def folder_of(tmp_path: Path, changes: dict, architecture: str = "llama") -> Path:
    values = gguf_files.tensors(architecture, rows=448)
    path = gguf_files.write(tmp_path / "m.gguf", architecture, values, changes)
    return huggingface.find(str(path))


def assert_same_ids(folder: Path, original) -> None:
    found = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        expected = original.encode(text, add_special_tokens=False).ids
        ids = found(text, add_special_tokens=False)["input_ids"]
        assert ids == expected, text
        assert found.decode(ids) == original.decode(expected, skip_special_tokens=False), text


@pytest.mark.parametrize("pre", SPLITS)
def test_ids_are_those_of_the_tokenizer_that_was_converted(pre, tmp_path):
    original = byte_level(pre, words=pre == "llama-bpe")
    assert_same_ids(folder_of(tmp_path, metadata(original, "gpt2", pre)), original)


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_ids_are_those_of_a_qwen(architecture, tmp_path):
    original = byte_level("qwen2")
    assert_same_ids(
        folder_of(tmp_path, metadata(original, "gpt2", "qwen2"), architecture), original
    )


@pytest.mark.parametrize("space", [True, False])
def test_ids_are_those_of_a_sentencepiece(space, tmp_path):
    original = sentencepiece(space=space)
    changes = metadata(original, "llama", "default") | {"tokenizer.ggml.add_space_prefix": space}
    assert_same_ids(folder_of(tmp_path, changes), original)


def test_ids_are_those_of_a_gemma(tmp_path):
    original = sentencepiece(space=False)
    assert_same_ids(folder_of(tmp_path, metadata(original, "llama", "default"), "gemma3"), original)


@pytest.mark.parametrize("pre", ["llama-bpe", "gpt-2", "qwen2"])
def test_ids_are_those_of_transformers_where_it_is_right(pre, tmp_path):
    pytest.importorskip("torch")
    changes = metadata(byte_level(pre), "gpt2", pre)
    changes["tokenizer.ggml.add_bos_token"] = True
    # It does not support special tokens outside the byte alphabet, and does not compose characters.
    changes["tokenizer.ggml.tokens"][2] = "<|end_of_turn|>"
    folder = folder_of(tmp_path, changes)
    ours = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    for text in TEXTS:
        if pre != "qwen2" or "\u0301" not in text:
            assert ours(text)["input_ids"] == theirs(text)["input_ids"], text


@pytest.mark.parametrize(
    ("kind", "pre", "add_bos", "expected"),
    [
        ("gpt2", "gpt-2", None, False),
        ("gpt2", "gpt-2", True, True),
        ("gpt2", "llama-bpe", None, True),
        ("gpt2", "llama-bpe", False, False),
        ("llama", "default", None, True),
        ("llama", "default", False, False),
    ],
)
def test_bos_is_added_as_the_metadata_says_or_by_default_of_the_tokenizer_type(
    kind, pre, add_bos, expected, tmp_path
):
    original = byte_level(pre) if kind == "gpt2" else sentencepiece(space=True)
    changes = metadata(original, kind, pre) | {"tokenizer.ggml.add_bos_token": add_bos}
    folder = folder_of(tmp_path, changes)
    bos = [original.token_to_id("<s>")]
    found = transformers.AutoTokenizer.from_pretrained(folder)
    assert found("x")["input_ids"][:1] == (bos if expected else original.encode("x").ids[:1])
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert plain.encode("x").ids == found("x")["input_ids"]
    assert json.loads((folder / "tokenizer_config.json").read_text())["add_bos_token"] is expected
    assert (found.bos_token, found.eos_token, found.unk_token) == ("<s>", "</s>", "<unk>")


def test_eos_is_added_where_the_metadata_says_so(tmp_path):
    original = byte_level("gpt-2")
    changes = metadata(original, "gpt2", "gpt-2") | {"tokenizer.ggml.add_eos_token": True}
    found = transformers.AutoTokenizer.from_pretrained(folder_of(tmp_path, changes))
    assert found("x")["input_ids"] == [*original.encode("x").ids, original.token_to_id("</s>")]


def test_padding_is_not_a_token_and_the_template_is_that_of_the_model(tmp_path):
    original = byte_level("gpt-2")
    template = "{% for message in messages %}<s>{{ message['content'] }}{% endfor %}"
    changes = metadata(original, "gpt2", "gpt-2") | {"tokenizer.chat_template": template}
    found = load_tokenizer(str(folder_of(tmp_path, changes)), rows=448)
    assert found.vocab_size == original.get_vocab_size()
    assert found.chat_template == template
    assert found.eos == original.token_to_id("</s>")
    assert len(found.think_open) == 1


def test_a_merge_of_an_unknown_token_is_named(tmp_path):
    changes = metadata(byte_level("gpt-2"), "gpt2", "gpt-2")
    changes["tokenizer.ggml.merges"] = ["q zz"]
    with pytest.raises(Exception, match="the merge 'q zz' uses 'qzz', which is not in the voc"):
        folder_of(tmp_path, changes)
