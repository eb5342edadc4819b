"""Documents that theta has prefilled, with their forks: the input of the rollout."""

from typing import Any

import flax.struct
import jax

from rlp.engine.branches import Forks
from rlp.engine.rollout import Documents


@flax.struct.dataclass
class ForkedDocuments:
    """Documents that theta has prefilled, with their forks."""

    documents: Documents
    forks: Forks  # [B, K]
    unselected: jax.Array | None  # [B] nats, mean no-think loss at allowed positions without fork
    keys: jax.Array  # [B] PRNG keys, one per document and step
    step: jax.Array | int  # number of steps before this one
    in_band: jax.Array | None  # [B, K] bool: forks that count; None but for rlp.positions="band"


def some_forks(of_forks: Any, first: jax.Array | int, forks: int) -> Any:
    """Slice arrays [B, K, …] to `forks` forks from index `first` on, [B, forks, …]."""
    cut = lambda x: jax.lax.dynamic_slice_in_dim(x, first, forks, axis=1)
    return jax.tree.map(cut, of_forks)
