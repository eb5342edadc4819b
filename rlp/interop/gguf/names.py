"""Tensors of GGUF files under the names and in the layout of the Hugging Face format."""

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
# With norms around attention and feed-forward, that before the latter has another name there.
AROUND = LAYERED | {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
ROPE_FACTORS = "rope_freqs.weight"
UNREAD = re.compile(r"blk\.\d+\.attn_rot_embd\.weight")  # rotary frequencies, as rope_theta says


def hugging_face_name(name: str, architecture: str) -> str | None:
    """The name of a tensor in the Hugging Face format; None if there is none."""
    if found := LAYER.fullmatch(name):
        names = AROUND if architecture == "gemma3" else LAYERED
        layer, part, end = found.groups()
        return f"model.layers.{layer}.{names[part]}.{end}" if part in names else None
    part, _, end = name.rpartition(".")
    return f"{ONCE[part]}.{end}" if part in ONCE else None


class Weights:
    """The tensors of a model, asked for as those of an open safetensors file are.

    They are read and dequantized one at a time, into float32.
    """

    def __init__(self, header: Header):
        self._architecture = header.metadata["general.architecture"]
        self._metadata = header.metadata
        named = ((hugging_face_name(n, self._architecture), x) for n, x in header.tensors.items())
        self._entries = {name: entry for name, entry in named if name is not None}

    def keys(self) -> list[str]:
        """Names in the Hugging Face format."""
        return list(self._entries)

    def get_tensor(self, name: str) -> np.ndarray:
        """A tensor in float32, laid out as in the Hugging Face format."""
        entry = self._entries[name]
        x = numbers(entry)
        for change in _changes(entry.name, self._architecture, self._metadata):
            x = change(x)
        return x

    def get_slice(self, name: str) -> "Slice":
        """What is known of a tensor before it is read."""
        return Slice(self, name, self._entries[name])


class Slice:
    """A tensor that is yet to be read."""

    def __init__(self, weights: Weights, name: str, entry: Entry):
        self._weights, self._name, self._entry = weights, name, entry

    def get_shape(self) -> list[int]:
        """Its shape in the Hugging Face format."""
        return list(self._entry.shape)

    def get_dtype(self) -> str:
        """What it is read as, in the words of safetensors."""
        return "F32"

    def __getitem__(self, part: slice) -> np.ndarray:
        return self._weights.get_tensor(self._name)[part]


def _changes(
    name: str, architecture: str, metadata: Any
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """What undoes the changes that converters to GGUF make, as transformers does."""
    if architecture == "llama" and (found := re.search(r"\.attn_([qk])\.", name)):
        heads = metadata["llama.attention.head_count"]
        if found[1] == "k":
            heads = metadata.get("llama.attention.head_count_kv", heads)
        yield lambda x: _halves(x, heads if type(heads) is int else heads[0])
    if architecture == "gemma3" and name.endswith("norm.weight"):
        yield lambda x: x - np.float32(1)  # Hugging Face stores scale - 1


def _halves(x: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys, of which pairs turn together, so that halves of a head do."""
    return x.reshape(heads, -1, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)
