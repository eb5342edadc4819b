"""Documents with their forks, read by theta: what thoughts branch off."""

from typing import Any

import flax.struct
import jax

from rlp.engine.branches import Forks
from rlp.engine.rollout import Documents


@flax.struct.dataclass
class ForkedDocuments:
    """Documents with their forks, read by theta and ready for thoughts."""

    documents: Documents
    forks: Forks  # [B, K]
    unselected: jax.Array | None  # [B] nats, mean no-think loss where no fork stands, if known
    keys: jax.Array  # [B] PRNG keys, one per document and step
    step: jax.Array | int  # steps taken before


def some_forks(of_forks: Any, first: jax.Array | int, forks: int) -> Any:
    """`forks` forks of every document from `first` on, of arrays [B, K, …]."""
    cut = lambda x: jax.lax.dynamic_slice_in_dim(x, first, forks, axis=1)
    return jax.tree.map(cut, of_forks)
