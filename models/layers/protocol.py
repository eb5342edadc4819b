"""The protocol of a kind of layer: its parameters, its caches, its passes, and its cost.

The network is a residual stream: each kind of each layer adds x = x + kind(norm(x)). A kind has two
passes. The first runs whole documents, the second runs slots of all branches that leave them. What
the second needs from the first is the *trunk cache* of a layer, computed once per document and
never copied per branch; what the next slots of a branch need is its *branch cache*. Both are
pytrees of floats whose contents only the kind knows: attention caches keys and values of every
token, a recurrence caches its state at the forks. Where no cache is kept, both passes can run as
one (`on_rows_and_slots`).

Every array of a branch cache is [B, heads, N, …] (rows, an axis that `tensor` may split, branches),
so that other code can move the branches of a document without knowing what the arrays contain. For
the same reason the first axis of every array of a trunk cache is that of rows.
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

from models.backend import choices
from models.mask import Coordinates

if TYPE_CHECKING:
    from models.config import ModelConfig
    from models.tree import Branches, Trunk


@dataclasses.dataclass(frozen=True)
class Rows:
    """The pass over documents: all tokens of all rows.

    Attributes:
      trunk: the rows.
      at: coordinates of their tokens, [B, T].
    """

    trunk: Trunk
    at: Coordinates


@dataclasses.dataclass(frozen=True)
class Slots:
    """The pass over branches: `count` slots of all branches, on the caches.

    Attributes:
      trunk: the rows that the branches leave.
      branches: all W slots of all branches.
      run: the slots that run now; the input of a kind is [B, N · count, D].
      start: the first of them; may be traced.
      room: capacity of the branch cache in slots; None if there is no branch cache and the branches
        run from their first slot.
      trunk_at: coordinates of the trunk, [B, T].
      run_at: coordinates of the slots that run now, [B, N, count].
      branch_at: coordinates of the branch cache, [B, N, room], or `run_at` if there is none.
    """

    trunk: Trunk
    branches: Branches
    run: Branches
    start: jax.Array | int
    room: int | None
    trunk_at: Coordinates
    run_at: Coordinates
    branch_at: Coordinates


@flax.struct.dataclass
class LayerCache:
    """The cache of one layer.

    Attributes:
      arrays: arrays of the layer, or stacks of those of all layers of its kind.
      index: index of the layer in the stacks; None for arrays of the layer alone.
    """

    arrays: Any
    index: jax.Array | None = None

    def of_layer(self) -> Any:
        """Return the arrays of this layer alone."""
        if self.index is None:
            return self.arrays
        return jax.tree.map(lambda x: x[self.index], self.arrays)

    def written(self, new: Any, start: jax.Array | int = 0) -> LayerCache:
        """Return the cache with new arrays of this layer written into it.

        Args:
          new: arrays as large as those of the layer, or smaller along one axis.
          start: where they begin along that axis; may be traced.
        """

        def put(x: jax.Array, y: jax.Array) -> jax.Array:
            lead = 0 if self.index is None else 1
            sizes = zip(x.shape[lead:], y.shape, strict=True)
            inside = [start if part < whole else 0 for whole, part in sizes]
            position: list[Any] = [self.index] * lead + inside
            y = y.reshape([1] * lead + list(y.shape))
            kept = [axis for axis, size in enumerate(x.shape) if size > 1 or choices().unit_axes]
            bare = lambda z: z.reshape([z.shape[axis] for axis in kept])
            position = [position[axis] for axis in kept]
            return jax.lax.dynamic_update_slice(bare(x), bare(y), position).reshape(x.shape)

        return dataclasses.replace(self, arrays=jax.tree.map(put, self.arrays, new))


def at_branches(trunk: Trunk, branches: Branches, at_forks: jax.Array) -> jax.Array:
    """Select for every branch what was cached at its fork.

    This is a product with a one-hot matrix: on a GPU, the gradient of a gather would be summed in
    any order, and two runs would differ in their bits.

    Args:
      trunk: rows whose `forks` include those of all branches.
      branches: N branches of every row.
      at_forks: what was cached at each fork, [B, heads, K, …].

    Returns:
      [B, heads, N, …].

    Raises:
      ValueError: If the trunk has no forks.
    """
    if trunk.forks is None:
        raise ValueError("layers with a state need `Trunk.forks`; prefill the trunk with the forks")
    position, segment = trunk.forks.position[:, None], trunk.forks.segment[:, None]
    here = (position == branches.fork[..., None]) & (segment == branches.segment[..., None])
    first = jax.nn.one_hot(jnp.argmax(here, axis=-1), here.shape[-1], dtype=at_forks.dtype)
    return jnp.einsum("bnk,bhk...->bhn...", first, at_forks, precision=jax.lax.Precision.HIGHEST)


@dataclasses.dataclass(frozen=True)
class TrunkTokens:
    """The tokens of a pass over documents, for counting costs.

    Attributes:
      rows: number of documents or packed rows.
      length: tokens of each row.
      forks: number of forks of each row.
    """

    rows: int
    length: int
    forks: int = 0

    @property
    def count(self) -> int:
        """Number of tokens of all rows."""
        return self.rows * self.length


@dataclasses.dataclass(frozen=True)
class BranchTokens:
    """The tokens of a pass over branches, for counting costs.

    Attributes:
      count: number of tokens of all branches, equally many in each of `slots`.
      slots: the slots that run.
      trunk: tokens of a trunk.
      room: slots of a branch, including those that are not written yet.
    """

    count: int
    slots: range
    trunk: int
    room: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of some tokens in one layer of a kind. A multiply-add is 2 FLOPs.

    Attributes:
      linear: FLOPs of the products with weights in the forward pass.
      mixing: FLOPs between tokens (scores, scans) in the forward pass.
      again: FLOPs of the mixing that its backward pass always recomputes.
      last: part of `linear`: the last product, which a rematerialized layer does not recompute,
        because no gradient needs its output.
      cached: part of `linear` and `mixing` that the trunk or branch cache needs even if the output
        is unused.
      final: part of `mixing`, for what is known after the last token. Only a branch cache needs it,
        and a training pass has none.
      moved: numbers in the compute dtype that products with weights read and write.
      scratch: float32 numbers that the mixing writes to memory and reads again.
    """

    linear: int = 0
    mixing: int = 0
    again: int = 0
    last: int = 0
    cached: int = 0
    final: int = 0
    moved: int = 0
    scratch: int = 0


class LayerKind(abc.ABC):
    """One kind of layer, for instance attention. Kinds contain no arrays and are hashable.

    Kinds with the same `name` have the same code and the same shapes of parameters and caches, so
    that one scan can run over them; they may differ only in what they prepare.
    """

    name: ClassVar[str]  # name of its parameters, "blocks/<name>/…", and of its caches
    axes: ClassVar[Mapping[str, tuple[str | None, ...]]]  # logical axes of each parameter, by path

    @abc.abstractmethod
    def init(self, config: ModelConfig, key: jax.Array) -> nnx.Module:
        """Initialize the parameters of one layer, float32.

        Parameters named `scale` or `offset` stay float32 in use. Those and parameters named `bias`
        have no weight decay.
        """

    def check(self, config: ModelConfig, tensor: int) -> None:
        """Check that the kind supports a config and a mesh with `tensor` devices per row.

        Raises:
          ValueError: If it does not; the message names the field.
        """
        del config, tensor

    # The pass over documents.

    def prepare_rows(self, config: ModelConfig, rows: Rows) -> Any:
        """Compute what all layers of the kind need for the rows, once for a pass; a pytree."""
        del config, rows

    @abc.abstractmethod
    def on_rows(
        self, config: ModelConfig, layer: Any, x: jax.Array, rows: Rows, prepared: Any
    ) -> tuple[jax.Array, Any]:
        """Run the layer on normalized x [B, T, D].

        Returns:
          The output, in the shape and dtype of x, and the trunk cache.
        """

    # The pass over branches.

    def prepare_slots(self, config: ModelConfig, slots: Slots) -> Any:
        """Compute what all layers of the kind need for the slots, once for a pass; a pytree."""
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
        """Run the layer on normalized x [B, N · count, D] with the caches.

        Returns:
          The output, in the shape and dtype of x, and the branch cache with these slots. If
          `branch_cache` is None, the branches start with these slots, and None is returned.
        """

    # Both at once.

    def on_rows_and_slots(
        self,
        config: ModelConfig,
        layer: Any,
        x: jax.Array,
        rows: Rows,
        slots: Slots,
        prepared: tuple[Any, Any],
    ) -> jax.Array:
        """Run the layer on documents and on all slots of their branches, without keeping caches.

        A kind may override this to compute both in one product.

        Args:
          x: normalized input, [B, T + N · W, D]: documents, then branches.
          prepared: from `prepare_rows` and `prepare_slots`.

        Returns:
          The output, in the shape and dtype of x: that of `on_rows`, and of `on_slots` on its
          trunk cache.
        """
        length = rows.at.segment.shape[1]
        y, cache = self.on_rows(config, layer, x[:, :length], rows, prepared[0])
        z, _ = self.on_slots(
            config, layer, x[:, length:], slots, prepared[1], LayerCache(cache), None
        )
        return jnp.concatenate([y, z], axis=1)

    # The caches.

    def trunk_cache(self, config: ModelConfig, rows: int, length: int, forks: int) -> Any:
        """Return the shapes of one layer's trunk cache: `jax.ShapeDtypeStruct`s in the pytree that
        `on_rows` returns for rows of `length` tokens with `forks` forks."""
        del config, rows, length, forks

    def branch_cache(self, config: ModelConfig, rows: int, branches: int, slots: int) -> Any:
        """Return the shapes of one layer's branch cache, [B, heads, N, …] each."""
        del config, rows, branches, slots

    def begin(
        self, config: ModelConfig, trunk: Trunk, trunk_cache: LayerCache, branches: Branches,
        slots: int,
    ) -> Any:  # fmt: skip
        """Create the branch cache of branches that have not run any slot yet: zeros, unless the
        branches of the kind start from something in the trunk cache."""
        del trunk, trunk_cache
        rows, number = branches.fork.shape
        shapes = self.branch_cache(config, rows, number, slots)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    joins = False  # whether the kind has `joined`

    def joined(self, config: ModelConfig, trunk_cache: Any, branch_cache: Any) -> Any:
        """Return one layer's trunk cache of B · N documents of T + S tokens, those of a row and of
        a branch, from that of B rows of T tokens and that of N branches of S slots after each."""
        raise NotImplementedError(f"{self.name} cannot join caches")

    # The cost.

    @abc.abstractmethod
    def cost(self, config: ModelConfig, tokens: TrunkTokens | BranchTokens) -> Cost:
        """Return the cost of these tokens in one layer."""

    def traffic(
        self, config: ModelConfig, trunk_bytes: float, branch_bytes: float, decoding: bool
    ) -> float:
        """Return the bytes of its caches that a pass over all branches reads and writes.

        Args:
          config: config of the network.
          trunk_bytes: bytes of the kind's trunk caches.
          branch_bytes: bytes of the kind's branch caches, with capacity for all slots.
          decoding: a single slot runs, on average with half of the capacity filled.
        """
        del config, decoding
        return trunk_bytes + branch_bytes
