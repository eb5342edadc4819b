"""Write small models in the Hugging Face format without torch, and compare them."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from models import hf
from models.config import ModelConfig
from models.rope import Rope
from rlp.interop import huggingface
from rlp.run.model_files import token_ids
from rlp.tokenizers.build_files import word_level_files
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.tokenizer import THINK_CLOSE, THINK_OPEN
from tests.support import tiny

# 70 words for the models of `tests.support.hf`, whose embeddings have 96 rows: 26 are unused.
SPECIALS = ("<pad>", "<bos>", "<eos>", "<think>", "</think>")
WORDS = (*SPECIALS, *(f"w{i}" for i in range(len(SPECIALS), 70)))
NAMED = {"unk": "<pad>", "pad": "<pad>", "bos": "<bos>", "eos": "<eos>"}

CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
GENERATION = {"do_sample": True, "eos_token_id": [2, 5], "temperature": 0.6, "top_k": 20}


def word_files(words=WORDS, specials=SPECIALS) -> dict[str, str]:
    """Files of a tokenizer with one token for each word, a chat template and a maximum length."""
    pytest.importorskip("tokenizers")
    ids = {word: i for i, word in enumerate(words)}
    files = dict(word_level_files(ids, specials, (ids["<bos>"],), **NAMED))
    settings = json.loads(str(files["tokenizer_config.json"])) | {"model_max_length": 4321}
    return files | {"tokenizer_config.json": json.dumps(settings), "chat_template.jinja": CHAT}


def byte_files(tags: bool = True) -> dict[str, str]:
    """Files of the byte tokenizer; if `tags` is false, it has no tokens for the thinking tags."""
    pytest.importorskip("tokenizers")
    files = dict(ByteTokenizer().files())
    content = json.loads(str(files["tokenizer.json"]))
    if not tags:
        content["added_tokens"] = [
            x for x in content["added_tokens"] if x["content"] not in (THINK_OPEN, THINK_CLOSE)
        ]
    return files | {"tokenizer.json": json.dumps(content)}


def space_in_front_files() -> dict[str, str]:
    """Files of a tokenizer like that of Llama 2.

    Its pieces have "▁" for a space, and it encodes characters without a piece as bytes. It puts
    <bos> and a space before a text.
    """
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, normalizers, processors

    pieces = ["<unk>", *SPECIALS[1:3], *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += [*"abcdQ:+=123456", "▁a", "▁2", "▁=", "▁+", "▁5"]
    ids = {piece: i for i, piece in enumerate(pieces)}
    merges = [("▁", piece[1:]) for piece in pieces if piece[0] == "▁" and len(piece) > 1]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<bos>", "<eos>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", ids["<bos>"])]
    )
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"}
    return {"tokenizer.json": tokenizer.to_str(), "tokenizer_config.json": json.dumps(config)}


def bpe_files() -> dict[str, str]:
    """Files of a byte-level BPE tokenizer whose pieces begin with a space. Its BOS is <bos>."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<bos>", "<eos>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["1 + 1 = 2", "Q: 5 6", "a b c d 2 2 2 = = 5 5 5"] * 9, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 0)]
    )
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {"bos_token": "<bos>", "eos_token": "<eos>"}
    return {"tokenizer.json": tokenizer.to_str(), "tokenizer_config.json": json.dumps(config)}


def folder_of(folder: Path, kind: str) -> str:
    """Write a tokenizer of a kind to a folder. Tokenizers of all kinds put <bos> before a text."""
    kinds = {"bytes": byte_files, "bpe": bpe_files, "space in front": space_in_front_files}
    for name, content in kinds[kind]().items():
        (folder / name).write_text(content)
    return str(folder)


def network(**changes: Any) -> ModelConfig:
    """Config of a model with one layer and enough rows for the byte tokenizer."""
    shape = {"vocab_size": 320, "num_layers": 1, "num_heads": 2, "ffn_size": 32}
    return tiny.model_config(**shape | {"rope": Rope(1e4)} | changes)


def write(folder: Path, seed: int = 0, files: Any = None, **changes: Any) -> Path:
    """Write a Qwen3 model with random parameters; `changes` are arguments of `network`."""
    model, family = network(**changes), hf.BY_NAME["qwen3"]
    config = hf.write_config(family, model) | token_ids(ByteTokenizer())
    huggingface.write_folder(
        folder,
        tiny.params(model, seed),
        hf.tensors(family, model),
        config | {"max_position_embeddings": 512},
        dtype="float32",
        files=byte_files() if files is None else files,
        record={},
    )
    return folder


def config_json(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """Read all tensors of a folder by name."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: x for path in files for name, x in load_file(path).items()}


def assert_same_bits(found: Any, expected: Any) -> None:
    """Assert that two trees of arrays are bit-identical."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def below(folder: Path) -> dict[str, bytes]:
    """Read all files in a folder and its subfolders, including hidden files."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
