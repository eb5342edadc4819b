"""Metadata of a GGUF file in reading: every key is used, known to change nothing, or refused.

The rule is that of config.json. The package `gguf` lists the keys that describe networks; one of
these which nobody has asked for, with a value that switches something on, is refused by name. Any
other key changes nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rlp.interop.gguf.header import Header, library
from rlp.runtime.errors import UserError

KINDS: dict[str, Callable[[Any], bool]] = {
    "a whole number above 0": lambda x: type(x) is int and x > 0,
    "a whole number": lambda x: type(x) is int and x >= 0,
    "a number": lambda x: type(x) in (int, float),
    "a text": lambda x: type(x) is str,
}
COUNT, INDEX, NUMBER, TEXT = KINDS
# Keys of networks that change nothing in those which are read here.
INERT = frozenset(
    (
        *("vocab_size", "tensor_data_layout", "pooling_type", "decoder_start_token_id"),
        *("attention.layer_norm_epsilon", "rope.scaling.finetuned"),
    )
)
# Values of other keys that switch nothing on; of those that are not here, 0, false and "" do not.
OFF: Mapping[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "logit_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "expert_weights_scale": (0.0, 1.0),
    "attention.output_scale": (0.0, 1.0),
    "rope.scaling.attn_factor": (0.0, 1.0),
    "rope.scaling.alpha": (0.0, 1.0),
    "rope.scaling.yarn_attn_factor": (0.0, 1.0),
    "rope.scaling.yarn_ext_factor": (-1.0, 1.0),
}


class Keys:
    """The keys of an architecture, without its name in front."""

    def __init__(self, header: Header, architecture: str):
        self._header, self._architecture = header, architecture
        start = f"{architecture}."
        self._values = {
            key.removeprefix(start): value
            for key, value in header.metadata.items()
            if key.startswith(start)
        }
        self._left = set(self._values)

    def take(self, key: str, kind: str, *default: Any) -> Any:
        """The value of a key, of one of `KINDS`; where it is a list, one that all layers have."""
        self._left.discard(key)
        if key not in self._values:
            if not default:
                raise self.refusal(f"it lacks {self._architecture}.{key}")
            return default[0]
        value = self._values[key]
        if type(value) is list and value:
            if any(x != value[0] for x in value):
                raise self.refusal(f"{self.told(key)} differs between layers")
            value = value[0]
        if not KINDS[kind](value):
            raise self.refusal(f"{self.told(key)} is not {kind}")
        return _shortest(value)

    def take_any(self, key: str) -> Any:
        """The value of a key as it is; None if there is none."""
        self._left.discard(key)
        return self._values.get(key)

    def told(self, key: str) -> str:
        """A key and its value, as a message shows them."""
        value = repr(_shortest(self._values[key]))
        return f"{self._architecture}.{key}={value if len(value) <= 60 else value[:60] + '…'}"

    def refusal(self, reason: str) -> UserError:
        """The error for a file that cannot be read as it is meant."""
        return UserError(
            f"{self._header.path}: {reason}; take the model in the Hugging Face format"
        )

    def finish(self) -> list[str]:
        """Refuses the keys that are left and change the network.

        Returns:
          The others that are left, in full.
        """
        known = _keys_of_networks(self._header)
        left = sorted(self._left - INERT)
        on = [key for key in left if key in known and self._values[key] not in _off(key)]
        if on:
            told = ", ".join(self.told(key) for key in on)
            raise self.refusal(f"{told} would be computed differently here")
        return [f"{self._architecture}.{key}" for key in left if key not in known]


def _shortest(value: Any) -> Any:
    """A float32 in its shortest decimals: 1e-05, not 9.999999747378752e-06; others as they are."""
    is_single = type(value) is float and float(np.float32(value)) == value
    return float(str(np.float32(value))) if is_single else value


def _off(key: str) -> tuple[Any, ...]:
    return OFF.get(key, (0, 0.0, False, ""))


def _keys_of_networks(header: Header) -> set[str]:
    """All keys of architectures that the installed package knows."""
    groups = [x for x in vars(library(header.path).Keys).values() if isinstance(x, type)]
    texts = [text for group in groups for text in vars(group).values() if isinstance(text, str)]
    start = "{arch}."
    return {text.removeprefix(start) for text in texts if text.startswith(start)}
