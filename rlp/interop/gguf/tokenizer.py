"""Convert the tokenizer in the metadata of a GGUF file to files in the Hugging Face format.

`tokenizer.ggml.model` names the type: "gpt2" is byte-level BPE, with its merges in the file, and
"llama" is SentencePiece, whose merges transformers reconstructs from the vocabulary.

Where the GGUF import of transformers differs from the tokenizer that the model was trained with,
these files follow the latter, as llama.cpp does:

- `smollm` and others split off every digit, so that "\\n\\n1" is one token and "1".
- `llama-bpe` and others use a word that is a token directly, regardless of the merges, and put a
  BOS before a text unless the metadata says otherwise.
- `qwen2` first composes characters (NFC). llama.cpp does not, but the tokenizer of the model does.
- SentencePiece puts a space before every text, even if it begins with a space, unless
  `add_space_prefix` is false.
- Special tokens may contain characters outside the byte alphabet, like `<｜end▁of▁sentence｜>`.
- Tokens that pad the vocabulary ("[PAD151936]") are dropped.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlp.interop.gguf.config import special_ids
from rlp.interop.gguf.header import Header
from rlp.runtime.errors import UserError

Json = dict[str, Any]
LOGGER = logging.getLogger(__name__)

# Kinds of tokens, in tokenizer.ggml.token_type.
UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5
PADDING = re.compile(r"\[PAD\d+\]")

# Values of tokenizer.ggml.pre, which determine how text is split before merges, and more.
LLAMA_3 = (
    *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
    "jina-v5-nano",
)
WHOLE_WORDS_AND_BOS = frozenset((*LLAMA_3, "tekken"))
DIGITS = frozenset(
    ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
)
GPT_2 = frozenset(
    (
        *("gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion", "gigachat", "a.x-4.0", "mellum"),
        *("modern-bert", "exaone4", "granite-docling", "default"),
    )
)
COMPOSED = frozenset(("qwen2",))


def files(header: Header) -> dict[str, str]:
    """Return tokenizer.json, tokenizer_config.json and, if the model has one, chat_template.jinja.

    Raises:
      UserError: If the file has no tokenizer, or its type is not supported.
    """
    metadata, tokens = header.metadata, header.metadata.get("tokenizer.ggml.tokens")
    kind = metadata.get("tokenizer.ggml.model")
    if kind in (None, "none", "no_vocab") or not tokens:
        raise UserError(f"{header.path} has no tokenizer; use a file that contains one")
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    if len(types) != len(tokens):
        raise UserError(
            f"{header.path} has {len(tokens)} tokens but {len(types)} values in "
            "tokenizer.ggml.token_type; use another file of the model"
        )
    if kind == "gpt2":
        tokenizer, default_bos = _byte_level(header, tokens)
    elif kind == "llama":
        tokenizer, default_bos = _sentencepiece(header, tokens), True
    else:
        raise UserError(
            f"{header.path}: tokenizer.ggml.model={kind!r} is not supported, only gpt2 and llama; "
            "use the model in the Hugging Face format"
        )
    names = {role: tokens[i] for role, i in special_ids(header).items()}
    adds = {
        role: role in names and bool(metadata.get(f"tokenizer.ggml.add_{role}_token", default))
        for role, default in (("bos", default_bos), ("eos", False))
    }
    used = {
        i: (text, role)
        for i, (text, role) in enumerate(zip(tokens, types, strict=True))
        if role != UNUSED or not PADDING.fullmatch(text)
    }
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {text: i for text, i in vocabulary.items() if i in used}
    tokenizer["added_tokens"] = [
        _added(i, text, special=role != USER_DEFINED)
        for i, (text, role) in used.items()
        if role in (UNKNOWN, CONTROL, USER_DEFINED) and text in tokenizer["model"]["vocab"]
    ]
    tokenizer["post_processor"] = _template(names, special_ids(header), adds)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": text for role, text in names.items()},
        **{f"add_{role}_token": add for role, add in adds.items()},
        "clean_up_tokenization_spaces": False,
    }
    contents = {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False),
        "tokenizer_config.json": json.dumps(settings, indent=2, ensure_ascii=False),
    }
    if template := metadata.get("tokenizer.chat_template"):
        contents["chat_template.jinja"] = template
    return contents


def _byte_level(header: Header, tokens: Sequence[str]) -> tuple[Json, bool]:
    """Return tokenizer.json of byte-level BPE, and whether a text begins with BOS by default."""
    pre = header.metadata.get("tokenizer.ggml.pre", "default")
    if pre == "default":
        LOGGER.warning(
            "%s: tokenizer.ggml.pre is missing or default; text is split as by GPT-2", header.path
        )
    merges = header.metadata.get("tokenizer.ggml.merges")
    if merges is None:
        raise UserError(
            f"{header.path}: tokenizer.ggml.merges is missing; use another file of the model"
        )
    vocabulary = {text: i for i, text in enumerate(tokens)}
    pairs = [merge.split(" ", 1) for merge in merges]
    for pair in pairs:
        if missing := [text for text in (*pair, "".join(pair)) if text not in vocabulary]:
            raise UserError(
                f"{header.path}: the merge {' '.join(pair)!r} uses {min(missing)!r}, which is not "
                "in the vocabulary; download the file again"
            )
    byte_level: Json = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    tokenizer: Json = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "normalizer": {"type": "NFC"} if pre in COMPOSED else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": _splits(header, pre, byte_level),
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre in WHOLE_WORDS_AND_BOS,
            "vocab": vocabulary,
            "merges": pairs,
        },
    }
    return tokenizer, pre in WHOLE_WORDS_AND_BOS


def _splits(header: Header, pre: str, byte_level: Json) -> list[Json]:
    """Return the pre-tokenizers, in order, that split a text into words before merges."""
    words = byte_level | {"use_regex": True}
    if pre in DIGITS:
        return [{"type": "Digits", "individual_digits": True}, words]
    if pre in GPT_2:
        return [words]
    # A table of transformers, imported on demand, since that takes a second.
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if pre in GGUF_PRE_TOKENIZER_SPLITS:
        pattern = {"Regex": GGUF_PRE_TOKENIZER_SPLITS[pre]}
        split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        return [split, byte_level]
    raise UserError(
        f"{header.path}: tokenizer.ggml.pre={pre!r} is not supported; use the model in the "
        "Hugging Face format"
    )


def _sentencepiece(header: Header, tokens: Sequence[str]) -> Json:
    """Return tokenizer.json of SentencePiece."""
    from transformers.integrations.gguf import convert_gguf_tokenizer

    metadata, architecture = header.metadata, header.metadata["general.architecture"]
    scores = metadata.get("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(tokens):
        raise UserError(
            f"{header.path}: tokenizer.ggml.scores is missing or incomplete; use another file of "
            "the model"
        )
    fields = {"tokenizer_type": "llama", "tokens": list(tokens), "scores": scores}
    if merges := metadata.get("tokenizer.ggml.merges"):
        fields["merges"] = merges
    tokenizer = json.loads(convert_gguf_tokenizer(architecture, fields)[0].to_str())
    space, mark = " ", "▁"
    replaced = {"type": "Replace", "pattern": {"String": space}, "content": mark}
    steps = [replaced]
    if metadata.get("tokenizer.ggml.add_space_prefix", architecture != "gemma3"):
        steps.insert(0, {"type": "Prepend", "prepend": mark})
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": steps}
    tokenizer["pre_tokenizer"] = None
    unknown = special_ids(header).get("unk")
    tokenizer["model"]["unk_token"] = None if unknown is None else tokens[unknown]
    tokenizer["decoder"]["decoders"] = [
        *({"type": "Replace", "pattern": {"String": mark}, "content": space},),
        *({"type": "ByteFallback"}, {"type": "Fuse"}),
        *({"type": "Strip", "content": space, "start": 1, "stop": 0} for _ in steps[1:]),
    ]
    return tokenizer


def _added(number: int, text: str, *, special: bool) -> Json:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": text, **flags, "special": special}


def _template(names: Mapping[str, str], ids: Mapping[str, int], adds: Mapping[str, bool]) -> Json:
    """Return the post-processor that adds BOS and EOS to a text."""
    added = [role for role, add in adds.items() if add]
    token = lambda role, segment: {"SpecialToken": {"id": names[role], "type_id": segment}}

    def text(letter: str, segment: int) -> list[Json]:
        start = [token("bos", segment)] if adds["bos"] else []
        end = [token("eos", segment)] if adds["eos"] else []
        return [*start, {"Sequence": {"id": letter, "type_id": segment}}, *end]

    return {
        "type": "TemplateProcessing",
        "single": text("A", 0),
        "pair": [*text("A", 0), *text("B", 1)],
        "special_tokens": {
            names[role]: {"id": names[role], "ids": [ids[role]], "tokens": [names[role]]}
            for role in added
        },
    }
