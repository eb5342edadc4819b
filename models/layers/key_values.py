"""Keys and values, and the form in which branches hold them while their slots are written."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax.numpy as jnp

from models.backend import choices


@flax.struct.dataclass
class KeyValues:
    """Keys and values of a trunk or of branches, [..., slots, head_dim]: arrays, or their
    ShapeDtypeStructs."""

    key: Any
    value: Any

    def held(self) -> KeyValues:
        """Return them in the form of a branch cache; `read` is the inverse."""
        if not self.by_dimension:
            return self
        return KeyValues(jnp.swapaxes(self.key, -1, -2), self.value)

    read = held  # the inverse of swapping two axes is the same

    @property
    def by_dimension(self) -> bool:
        """Whether a branch cache holds the keys as [..., head_dim, slots]
        (`Choices.keys_by_dimension`)."""
        return choices().keys_by_dimension and self.key.dtype == jnp.float32
