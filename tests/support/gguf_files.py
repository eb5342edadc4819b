"""Write tiny random models as GGUF files with the package `gguf`, like its converters do."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WIDTH, FFN, HEADS, KV_HEADS, WINDOW = 256, 512, 2, 1, 8  # rows are multiples of 256 numbers
HEAD_DIM = {"gemma3": 256}  # for families whose default in transformers is not 128
LAYERS = {"gemma3": 6}  # five local layers and a global one
# Quantizations that the package cannot write: bytes of a block, and float16 scales by their offset,
# for which random bits give weights of a typical size.
RAW = {
    "Q2_K": (84, {80: 5e-3, 82: 7.5e-3}),
    "Q3_K": (110, {108: 1.5e-3}),
    "Q4_K": (144, {0: 4e-4, 2: 3e-3}),
    "Q5_K": (176, {0: 2e-4, 2: 3e-3}),
    "Q6_K": (210, {208: 6e-5}),
}
MIXED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16", *RAW)
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def package() -> Any:
    """Return the package `gguf`; skip the test if it is not installed."""
    return pytest.importorskip("gguf")


def tokens(count: int = 300) -> dict[str, Any]:
    """Return the metadata of a byte-level tokenizer with a single merge."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = [*bytes_to_unicode().values(), "he"]
    special = ["<s>", "</s>", "<|end_of_turn|>"]
    words = [*special, *letters]
    padding = [f"[PAD{i}]" for i in range(len(words), count)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": words + padding,
        "tokenizer.ggml.token_type": [3] * 3 + [1] * len(letters) + [5] * len(padding),
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.eot_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
    }


def network(architecture: str) -> dict[str, Any]:
    """Return the metadata of a model of this architecture."""
    head_dim = HEAD_DIM.get(architecture, 128)
    values = {
        "block_count": LAYERS.get(architecture, 2),
        "context_length": 512,
        "embedding_length": WIDTH,
        "feed_forward_length": FFN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6 if architecture == "gemma3" else 1e4,
    }
    if architecture == "gemma3":
        values["attention.sliding_window"] = WINDOW
    if architecture == "llama":
        values["rope.dimension_count"] = head_dim
    start = {"general.architecture": architecture, "general.name": "tiny"}
    return start | {f"{architecture}.{key}": value for key, value in values.items()}


def tensors(
    architecture: str, rows: int = 300, *, tied: bool = True, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return random tensors in the Hugging Face format."""
    random = np.random.default_rng(seed)
    head_dim = HEAD_DIM.get(architecture, 128)
    q, kv = HEADS * head_dim, KV_HEADS * head_dim
    shapes = {"model.embed_tokens.weight": (rows, WIDTH), "model.norm.weight": (WIDTH,)}
    if not tied:
        shapes["lm_head.weight"] = (rows, WIDTH)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if architecture == "gemma3":
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for layer in range(LAYERS.get(architecture, 2)):
        start = f"model.layers.{layer}."
        shapes |= {f"{start}{name}.weight": (WIDTH,) for name in norms}
        for name, out, into in (
            *(("self_attn.q_proj", q, WIDTH), ("self_attn.k_proj", kv, WIDTH)),
            *(("self_attn.v_proj", kv, WIDTH), ("self_attn.o_proj", WIDTH, q)),
            *(("mlp.gate_proj", FFN, WIDTH), ("mlp.up_proj", FFN, WIDTH)),
            ("mlp.down_proj", WIDTH, FFN),
        ):
            shapes[f"{start}{name}.weight"] = (out, into)
            if architecture == "qwen2" and name[-6:-5] in "qkv":
                shapes[f"{start}{name}.bias"] = (out,)
        if architecture in ("qwen3", "gemma3"):
            shapes |= {f"{start}self_attn.{x}_norm.weight": (head_dim,) for x in "qk"}
    mean = 0.0 if architecture == "gemma3" else 1.0
    return {
        name: (
            random.normal(mean, 0.3, shape)
            if "norm" in name
            else random.normal(0, 2 * shape[-1] ** -0.5 if len(shape) > 1 else 0.5, shape)
        ).astype(np.float32)
        for name, shape in shapes.items()
    }


def write(
    path: Path,
    architecture: str,
    values: Mapping[str, np.ndarray] | None = None,
    changes: Mapping[str, Any] | None = None,
    *,
    kinds: Sequence[str] = ("F32",),
    extra: Mapping[str, np.ndarray] | None = None,
    split: int = 0,
) -> Path:
    """Writes a model.

    Args:
      path: of the file.
      architecture: as in `general.architecture`.
      values: tensors in the Hugging Face format; `tensors(architecture)` by default.
      changes: metadata beside that of `network` and `tokens`, or instead of it; None leaves out.
      kinds: of its matrices, in turn; vectors are float32.
      extra: further tensors, by their names in the file.
      split: most tensors of a part; 0 for one file.
    """
    gguf = package()
    options = {"split_max_tensors": split} if split else {}
    writer = gguf.GGUFWriter(path, architecture, **options)
    metadata = network(architecture) | tokens() | dict(changes or {})
    for key, value in metadata.items():
        if key != "general.architecture" and value is not None:
            _add(gguf, writer, key, value)
    values = tensors(architecture) if values is None else values
    number = 0
    for name, x in values.items():
        gguf_name, stored = converted(architecture, name, x)
        kind = "F32"
        if x.ndim == 2:
            kind, number = kinds[number % len(kinds)], number + 1
        _write(gguf, writer, gguf_name, stored, kind)
    for name, x in (extra or {}).items():
        writer.add_tensor(name, x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def converted(architecture: str, name: str, x: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the GGUF name and the GGUF layout of a tensor."""
    start, part, end = "", *name.rsplit(".", 1)
    if part.startswith("model.layers."):
        layer, part = part.removeprefix("model.layers.").split(".", 1)
        start = f"blk.{layer}."
    if architecture == "gemma3" and "norm" in part:
        x = x + np.float32(1)
    if architecture == "llama" and part in ("self_attn.q_proj", "self_attn.k_proj"):
        heads = HEADS if "q_proj" in part else KV_HEADS
        x = x.reshape(heads, 2, -1, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)
    others = {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    }
    if architecture != "gemma3":
        others = {"post_attention_layernorm": "ffn_norm"}
    return f"{start}{(NAMES | others)[part]}.{end}", x


def _write(gguf: Any, writer: Any, name: str, x: np.ndarray, kind: str) -> None:
    number = gguf.GGMLQuantizationType[kind]
    if kind in RAW:
        size, scales = RAW[kind]
        blocks = np.random.default_rng(len(name)).integers(
            0, 256, (x.shape[0], x.shape[1] // 256, size), np.uint8
        )
        for offset, scale in scales.items():
            blocks[..., offset : offset + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
        writer.add_tensor(name, blocks.reshape(x.shape[0], -1), raw_dtype=number)
    elif kind in ("F32", "F16"):
        writer.add_tensor(name, x.astype({"F32": np.float32, "F16": np.float16}[kind]))
    else:
        writer.add_tensor(name, gguf.quants.quantize(x, number), raw_dtype=number)


def _add(gguf: Any, writer: Any, key: str, value: Any) -> None:
    kinds = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING", list: "ARRAY"}
    writer.add_key_value(key, value, gguf.GGUFValueType[kinds[type(value)]])


def config_of(folder: Path) -> dict[str, Any]:
    """Read the config.json of a folder."""
    return json.loads((folder / "config.json").read_text())
