"""What a kind of layer is: its parameters, its caches, its passes, and what it costs.

The network is a residual stream, x = x + kind(norm(x)), over and over. A kind sees two passes. In
the first, documents run whole; in the second, slots of all branches that left them. What the first
leaves behind for the second is the *trunk cache* of a layer, computed once per document and never
copied per branch; what a branch itself leaves for its next slots is its *branch cache*. Both are
pytrees of floats whose content only the kind knows: attention keeps keys and values of every token,
a recurrence keeps its state where branches leave.

Every array of a branch cache is [B, heads, N, …] (rows, an axis that `tensor` may split, branches),
so that the branches of a document can be moved without knowing what the arrays hold.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from models.mask import Coordinates

if TYPE_CHECKING:
    from models.config import ModelConfig
    from models.tree import Branches, Trunk


@dataclasses.dataclass(frozen=True)
class Rows:
    """The pass over documents: all tokens of all rows."""

    trunk: Trunk
    at: Coordinates  # [B, T]


@dataclasses.dataclass(frozen=True)
class Slots:
    """The pass over branches: `count` slots of all of them, on the caches.

    Attributes:
      trunk: the rows that the branches left.
      branches: all W slots of all branches.
      run: the slots that run now; x of a kind is [B, N · count, D].
      start: the first of them, which may be traced.
      room: slots that the branch cache has room for; None where there is no branch cache, and the
        branches run from their first slot.
      trunk_at: [B, T].
      run_at: [B, N, count].
      own_at: [B, N, room], or `run_at` where there is no branch cache.
    """

    trunk: Trunk
    branches: Branches
    run: Branches
    start: jax.Array | int
    room: int | None
    trunk_at: Coordinates
    run_at: Coordinates
    own_at: Coordinates


@flax.struct.dataclass
class LayerCache:
    """What is cached of one layer: its arrays, or those of all layers of its kind in a stack, on a
    leading axis, and its place there."""

    arrays: Any
    index: jax.Array | None = None

    def of_layer(self) -> Any:
        """The arrays of this layer alone."""
        if self.index is None:
            return self.arrays
        return jax.tree.map(lambda x: x[self.index], self.arrays)

    def written(self, new: Any, start: jax.Array | int = 0, axis: int = -2) -> LayerCache:
        """With the arrays `new` of this layer from `start` on along `axis`, counted from the end;
        the default replaces what is as large as `new`."""

        def put(x: jax.Array, y: jax.Array) -> jax.Array:
            place: list[Any] = [0] * x.ndim
            place[axis] = start
            if self.index is not None:
                place[0], y = self.index, y[None]
            return jax.lax.dynamic_update_slice(x, y, place)

        return dataclasses.replace(self, arrays=jax.tree.map(put, self.arrays, new))


def at_branches(trunk: Trunk, branches: Branches, kept: jax.Array) -> jax.Array:
    """What was kept at the forks of a trunk, for every branch that leaves there.

    A product with ones and zeros: the gradient of a gather would be added up in any order on a GPU,
    and two runs would not have the same bits.

    Args:
      trunk: with the forks of all branches among its own.
      branches: N of every row.
      kept: [B, heads, K, …], at each fork.

    Returns:
      [B, heads, N, …].

    Raises:
      ValueError: the trunk has no forks.
    """
    if trunk.forks is None:
        raise ValueError("layers with a state need `Trunk.forks`: where branches will leave")
    position, segment = trunk.forks.position[:, None], trunk.forks.segment[:, None]
    here = (position == branches.fork[..., None]) & (segment == branches.segment[..., None])
    first = jax.nn.one_hot(jnp.argmax(here, axis=-1), here.shape[-1], dtype=kept.dtype)
    return jnp.einsum("bnk,bhk...->bhn...", first, kept, precision=jax.lax.Precision.HIGHEST)


@dataclasses.dataclass(frozen=True)
class TrunkTokens:
    """Tokens of a pass over documents, to be counted.

    Attributes:
      rows: documents or packed rows.
      length: tokens of each.
      forks: places of each row where branches leave; 0 where none do.
    """

    rows: int
    length: int
    forks: int = 0

    @property
    def count(self) -> int:
        """Tokens of all rows."""
        return self.rows * self.length


@dataclasses.dataclass(frozen=True)
class BranchTokens:
    """Tokens of a pass over branches, to be counted.

    Attributes:
      count: tokens of all branches, as many in each of `slots`.
      slots: that run.
      trunk: tokens of a trunk.
      room: slots of a branch, those that are not written yet included.
    """

    count: int
    slots: range
    trunk: int
    room: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """What some tokens cost in one layer of a kind. A multiply-add is 2 FLOPs.

    Attributes:
      linear: FLOPs of the products with weights, forward.
      mixing: FLOPs between tokens (scores, scans), forward.
      again: FLOPs of the mixing that its backward pass always computes again.
      last: of `linear`, the last product, which no gradient needs again where the layer ends.
      cached: of `linear`, what the trunk or branch cache needs even if nobody reads the output.
      moved: numbers, in the compute dtype, that products with weights read and write.
      scratch: float32 numbers that the mixing writes to memory and reads again.
    """

    linear: int = 0
    mixing: int = 0
    again: int = 0
    last: int = 0
    cached: int = 0
    moved: int = 0
    scratch: int = 0


class LayerKind(abc.ABC):
    """One kind of layer, for instance attention. Kinds hold no arrays and are hashable.

    Kinds with the same `name` share their parameters' and caches' shape and code, so that a scan
    may run over them; all that differs between them is what they prepare.
    """

    name: ClassVar[str]  # of its parameters, "blocks/<name>/…", and caches
    axes: ClassVar[Mapping[str, tuple[str | None, ...]]]  # logical axes of each parameter, by path

    @abc.abstractmethod
    def init(self, config: ModelConfig, key: jax.Array) -> nnx.Module:
        """The parameters of one layer, float32. One that is called `scale` stays float32 in use;
        neither it nor one called `bias` has weight decay."""

    def check(self, config: ModelConfig, tensor: int) -> None:
        """Refuses a config or a mesh with `tensor` devices per row.

        Raises:
          ValueError: the kind cannot serve, naming the field.
        """
        del config, tensor

    # The pass over documents.

    def prepare_rows(self, config: ModelConfig, rows: Rows) -> Any:
        """What all layers of the kind need to know of the rows: a pytree, made once for a pass."""
        del config, rows

    @abc.abstractmethod
    def on_rows(
        self, config: ModelConfig, layer: Any, x: jax.Array, rows: Rows, prepared: Any
    ) -> tuple[jax.Array, Any]:
        """The layer on normalised x [B, T, D]: its output, in the same shape and dtype, and its
        trunk cache."""

    # The pass over branches.

    def prepare_slots(self, config: ModelConfig, slots: Slots) -> Any:
        """As `prepare_rows`, of the slots."""
        del config, slots

    @abc.abstractmethod
    def on_slots(
        self,
        config: ModelConfig,
        layer: Any,
        x: jax.Array,
        slots: Slots,
        prepared: Any,
        trunk_cache: LayerCache,
        branch_cache: LayerCache | None,
    ) -> tuple[jax.Array, LayerCache | None]:
        """The layer on normalised x [B, N · count, D], given the caches: its output, and the branch
        cache with these slots. Without one the branches begin here, and None is returned."""

    # The caches.

    def trunk_cache(self, config: ModelConfig, rows: int, length: int, forks: int) -> Any:
        """Shapes of one layer's trunk cache: `jax.ShapeDtypeStruct`s in the pytree that `on_rows`
        returns for rows of so many tokens, with so many places where branches leave."""
        del config, rows, length, forks

    def branch_cache(self, config: ModelConfig, rows: int, branches: int, slots: int) -> Any:
        """Shapes of one layer's branch cache, [B, heads, N, …] each."""
        del config, rows, branches, slots

    def begin(
        self, config: ModelConfig, trunk: Trunk, trunk_cache: LayerCache, branches: Branches,
        slots: int,
    ) -> Any:  # fmt: skip
        """The branch cache of branches that have run no slot yet: zeros, unless the kind's
        branches begin from something in the trunk cache."""
        del trunk, trunk_cache
        rows, number = branches.fork.shape
        shapes = self.branch_cache(config, rows, number, slots)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    # What it costs.

    @abc.abstractmethod
    def cost(self, config: ModelConfig, tokens: TrunkTokens | BranchTokens) -> Cost:
        """What these tokens cost in one layer."""

    def traffic(
        self, config: ModelConfig, trunk_bytes: float, branch_bytes: float, decoding: bool
    ) -> float:
        """Bytes of its caches that a pass over all branches reads and writes.

        Args:
          trunk_bytes: of its trunk caches.
          branch_bytes: of its branch caches, room for all slots.
          decoding: one slot runs, on average with half of the room filled.
        """
        del config, decoding
        return trunk_bytes + branch_bytes
