"""Convert tensors of GGUF files to the names and layout of the Hugging Face format."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rlp.interop.gguf.header import Entry, Header, numbers

ONCE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
LAYERED = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Gemma has norms before and after attention and feed-forward, so ffn_norm has another name there.
GEMMA_LAYERED = LAYERED | {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
ROPE_FACTORS = "rope_freqs.weight"
# Rotary frequencies, which rope_theta determines.
IGNORED = re.compile(r"blk\.\d+\.attn_rot_embd\.weight")


def hugging_face_name(name: str, architecture: str) -> str | None:
    """Return the name of a tensor in the Hugging Face format; None if it has none."""
    if match := LAYER.fullmatch(name):
        names = GEMMA_LAYERED if architecture == "gemma3" else LAYERED
        layer, part, end = match.groups()
        return f"model.layers.{layer}.{names[part]}.{end}" if part in names else None
    part, _, end = name.rpartition(".")
    return f"{ONCE[part]}.{end}" if part in ONCE else None


class Weights:
    """The tensors of a model, with the interface of an open safetensors file.

    Tensors are read and dequantized to float32 one at a time.
    """

    def __init__(self, header: Header):
        self._architecture = header.metadata["general.architecture"]
        self._metadata = header.metadata
        named = ((hugging_face_name(n, self._architecture), x) for n, x in header.tensors.items())
        self._entries = {name: entry for name, entry in named if name is not None}

    def keys(self) -> list[str]:
        """Return the names of the tensors in the Hugging Face format."""
        return list(self._entries)

    def get_tensor(self, name: str) -> np.ndarray:
        """Return a tensor in float32, in the layout of the Hugging Face format."""
        entry = self._entries[name]
        x = numbers(entry)
        for change in _changes(entry.name, self._architecture, self._metadata):
            x = change(x)
        return x

    def get_slice(self, name: str) -> "Slice":
        """Return shape and dtype of a tensor without reading it."""
        return Slice(self, name, self._entries[name])


class Slice:
    """A tensor that is read on demand."""

    def __init__(self, weights: Weights, name: str, entry: Entry):
        self._weights, self._name, self._entry = weights, name, entry

    def get_shape(self) -> list[int]:
        """Return the shape in the Hugging Face format."""
        return list(self._entry.shape)

    def get_dtype(self) -> str:
        """Return the dtype after reading, as named by safetensors."""
        return "F32"

    def __getitem__(self, part: slice) -> np.ndarray:
        return self._weights.get_tensor(self._name)[part]


def _changes(
    name: str, architecture: str, metadata: Any
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """Yield functions that undo the changes of GGUF converters, as transformers does."""
    if architecture == "llama" and (match := re.search(r"\.attn_([qk])\.", name)):
        heads = metadata["llama.attention.head_count"]
        if match[1] == "k":
            heads = metadata.get("llama.attention.head_count_kv", heads)
        yield lambda x: _halves(x, heads if type(heads) is int else heads[0])
    if architecture == "gemma3" and name.endswith("norm.weight"):
        yield lambda x: x - np.float32(1)  # Hugging Face stores scale - 1


def _halves(x: np.ndarray, heads: int) -> np.ndarray:
    """Permute the rows of queries or keys from rotary pairs of adjacent rows to pairs of rows in
    the two halves of a head."""
    return x.reshape(heads, -1, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)
