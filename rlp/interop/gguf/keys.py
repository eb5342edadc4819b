"""Read the metadata of a GGUF file: every key is used, known to have no effect, or refused.

The rule is the same as for config.json. The package `gguf` lists the keys that describe
architectures; such a key that is not used here and has a value that switches something on is
refused by name. Other keys are ignored.
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
# Architecture keys without effect on the supported architectures.
INERT = frozenset(
    (
        *("vocab_size", "tensor_data_layout", "pooling_type", "decoder_start_token_id"),
        *("attention.layer_norm_epsilon", "rope.scaling.finetuned"),
    )
)
# Values of other keys that have no effect; for keys that are not listed, these are 0, false and "".
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
    """The keys of an architecture, without its name as a prefix."""

    def __init__(self, header: Header, architecture: str):
        self._header, self._architecture = header, architecture
        start = f"{architecture}."
        self._values = {
            key.removeprefix(start): value
            for key, value in header.metadata.items()
            if key.startswith(start)
        }
        self._unused = set(self._values)

    def take(self, key: str, kind: str, *default: Any) -> Any:
        """Return the value of a key, which must be one of `KINDS`; a list must have equal values.

        Raises:
          UserError: If the key is missing and has no default, or its value is invalid.
        """
        self._unused.discard(key)
        if key not in self._values:
            if not default:
                raise self.refusal(f"key {self._architecture}.{key} is missing")
            return default[0]
        value = self._values[key]
        if type(value) is list and value:
            if any(x != value[0] for x in value):
                raise self.refusal(f"{self.shown(key)} differs between layers")
            value = value[0]
        if not KINDS[kind](value):
            raise self.refusal(f"{self.shown(key)} is not {kind}")
        return _shortest(value)

    def take_any(self, key: str) -> Any:
        """Return the value of a key without checks; None if it is missing."""
        self._unused.discard(key)
        return self._values.get(key)

    def shown(self, key: str) -> str:
        """Return "key=value" for messages."""
        value = repr(_shortest(self._values[key]))
        return f"{self._architecture}.{key}={value if len(value) <= 60 else value[:60] + '…'}"

    def refusal(self, reason: str) -> UserError:
        """Return the error for a file that cannot be converted exactly."""
        return UserError(f"{self._header.path}: {reason}; use the model in the Hugging Face format")

    def finish(self) -> list[str]:
        """Raise UserError if unused keys would change the computation.

        Returns:
          The full names of the other unused keys.
        """
        known = _architecture_keys(self._header)
        unused = sorted(self._unused - INERT)
        on = [key for key in unused if key in known and self._values[key] not in _off(key)]
        if on:
            values = ", ".join(self.shown(key) for key in on)
            raise self.refusal(f"{values} changes the computation and is not supported")
        return [f"{self._architecture}.{key}" for key in unused if key not in known]


def _shortest(value: Any) -> Any:
    """Round a float32 to its shortest decimals: 1e-05 instead of 9.999999747378752e-06."""
    is_single = type(value) is float and float(np.float32(value)) == value
    return float(str(np.float32(value))) if is_single else value


def _off(key: str) -> tuple[Any, ...]:
    return OFF.get(key, (0, 0.0, False, ""))


def _architecture_keys(header: Header) -> set[str]:
    """Return all architecture keys that the installed package knows."""
    groups = [x for x in vars(library(header.path).Keys).values() if isinstance(x, type)]
    texts = [text for group in groups for text in vars(group).values() if isinstance(text, str)]
    start = "{arch}."
    return {text.removeprefix(start) for text in texts if text.startswith(start)}
