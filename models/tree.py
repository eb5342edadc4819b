"""A document is a trunk, a thought is a branch: the forward passes over both, and their caches.

    forward    packed rows of documents, no cache           next-token loss, baseline evidence
    prefill    the same, keeping the trunk's cache          start of a rollout and of an update
    extend     some slots of all branches on the caches     decoding, evidence, and, with all slots
                                                            at once and no cache of their own, the
                                                            update

The trunk's keys and values are computed once per document and never copied per branch. All passes
are differentiable, in the parameters and in the caches they read (`extend` on a branch cache: not
where kernels compute attention), and give the same hidden states for the same tokens, up to
rounding. A gradient through `extend` ends in the trunk's cache; one backward pass of `prefill` then
serves all branches.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from models.attention import attention, planned
from models.backend import choices
from models.config import ModelConfig
from models.mask import Coordinates, Keys, Window
from models.rope import Rotation
from models.sharding import at_rest, in_use, parameters_are_split, place
from models.transformer import Transformer

FAR = 2**30  # a window that holds every text
CACHE_AXES = ("rows", "kv_heads")  # of a layer's cache, in front


@flax.struct.dataclass
class Trunk:
    """Rows of documents, one after the other."""

    tokens: jax.Array  # [B, T] int32
    segment: jax.Array  # [B, T] int32; which document of the row, 0 = padding
    position: jax.Array  # [B, T] int32; tokens from the start of the document

    @property
    def at(self) -> Coordinates:
        """Coordinates of the tokens, [B, T]."""
        return Coordinates.of_trunk(self.segment, self.position)


@flax.struct.dataclass
class Branches:
    """W tokens on each of N branches of every row; slots that are not live are seen by nobody."""

    tokens: jax.Array  # [B, N, W] int32
    position: jax.Array  # [B, N, W] int32; the first token of a branch has its fork's position
    live: jax.Array  # [B, N, W] bool
    segment: jax.Array  # [B, N] int32; which document of the row the branch left
    fork: jax.Array  # [B, N] int32; the branch sees trunk positions below this one

    @property
    def at(self) -> Coordinates:
        """Coordinates of the slots, [B, N, W]; dead ones have segment 0."""
        shape = self.tokens.shape
        spread = lambda x: jnp.broadcast_to(x[:, :, None], shape)
        number = jnp.arange(1, shape[1] + 1, dtype=jnp.int32)[None, :]
        return Coordinates(
            segment=jnp.where(self.live, spread(self.segment), 0),
            branch=spread(jnp.broadcast_to(number, shape[:2])),
            position=self.position,
            fork=spread(self.fork),
        )

    def slots(self, start: jax.Array | int, count: int) -> "Branches":
        """The `count` slots from `start` on; `start` may be traced."""
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, count, axis=2)
        return dataclasses.replace(
            self, tokens=cut(self.tokens), position=cut(self.position), live=cut(self.live)
        )


@flax.struct.dataclass
class Cache:
    """Keys and values of all layers. Memory grows with the tokens it holds, not with who reads.

    One array for all layers, stacked on a leading axis, or a list with one for each, as the
    network's blocks are. Of one layer: a trunk's [B, kv_heads, T, head_dim], or the branches'
    [B, kv_heads, N, W, head_dim]. `layer` says which one of a stack is meant, where one is.
    """

    key: Any
    value: Any
    layer: jax.Array | None = None

    @property
    def slots(self) -> int:
        """For how many tokens there is room."""
        return jax.tree.leaves(self.key)[0].shape[-2]

    def grown(self, slots: int) -> "Cache":
        """With room for so many tokens, or a few more."""
        more = _room(slots) - self.slots
        pad = lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, more), (0, 0)])
        return jax.tree.map(pad, self)


def _room(slots: int) -> int:
    """Slots of a cache for so many tokens."""
    return -(-slots // choices().cache_slots) * choices().cache_slots


def empty_branch_cache(model: Transformer, batch: int, branches: int, slots: int) -> Cache:
    """Room for `slots` tokens, or a few more, on each of `branches` branches of `batch` rows."""
    c = model.config
    shape = (batch, c.num_kv_heads, branches, _room(slots), c.head_dim)
    zeros = lambda *lead: place(
        jnp.zeros((*lead, *shape), c.dtype), *[None] * len(lead), *CACHE_AXES
    )
    if isinstance(model.blocks, nnx.List):
        each = lambda: [zeros() for _ in range(c.num_layers)]
        return Cache(key=each(), value=each())
    return Cache(key=zeros(c.num_layers), value=zeros(c.num_layers))


def forward(model: Transformer, trunk: Trunk) -> jax.Array:
    """Final hidden states [B, T, D] of packed rows."""
    return _trunk_pass(model, trunk, keep=False)[0]


def prefill(model: Transformer, trunk: Trunk) -> tuple[jax.Array, Cache]:
    """Final hidden states [B, T, D] of packed rows, and their cache."""
    return _trunk_pass(model, trunk, keep=True)


def _trunk_pass(model: Transformer, trunk: Trunk, keep: bool) -> tuple[jax.Array, Any]:
    at = trunk.at
    one_group = jax.tree.map(lambda x: x[:, None], at)

    def attend(q, k, v, _, keep_new, reach):
        k, v = (place(x.swapaxes(1, 2), *CACHE_AXES) for x in (k, v))
        mixed = attention(
            q[:, None],
            one_group,
            Keys(k, v, at),
            scale=model.config.attention_scale,
            in_order=True,
            implementation=model.config.attention,
            **reach,
        )
        return mixed[:, 0], keep_new(Cache(key=k, value=v))[1] if keep else None

    see = _reaches(model.config, one_group, at, None)
    hidden, kept = _through_blocks(model, trunk.tokens, trunk.position, attend, see)
    return model.norm(hidden), kept


def extend(
    model: Transformer,
    trunk: Trunk,
    trunk_cache: Cache,
    branches: Branches,
    branch_cache: Cache | None = None,
    start: jax.Array | int = 0,
    count: int | None = None,
) -> tuple[jax.Array, Cache]:
    """Runs slots start … start+count-1 of every branch on the caches.

    Args:
      model: the network that filled the caches.
      trunk: the rows whose cache is `trunk_cache`.
      trunk_cache: keys and values of the trunk, read and not changed.
      branches: W slots; those before `start` must have been run, `live` says which count.
      branch_cache: keys and values of the slots run so far, with room for these; None to run all
        slots at once.
      start: first slot, may be traced.
      count: number of slots, static; None runs all.

    Returns:
      Final hidden states [B, N, count, D] and the branch cache with these slots filled.
    """
    batch, groups, slots = branches.tokens.shape
    count = slots if count is None else count
    run = branches if branch_cache is None else branches.slots(start, count)
    trunk_at, run_at = trunk.at, run.at
    own_at = run_at
    if branch_cache is not None:
        own_at = _padded(branches.at, branch_cache.slots)
    flat = lambda x: x.reshape(batch, groups * count, *x.shape[3:])

    def attend(q, k, v, trunk_layer, keep, reach):
        group = lambda x: x.reshape(batch, groups, count, *x.shape[2:])
        heads_first = lambda x: place(group(x).transpose(0, 3, 1, 2, 4), *CACHE_AXES)
        own, kept = keep(Cache(key=heads_first(k), value=heads_first(v)))
        mixed = attention(
            group(q),
            run_at,
            Keys(trunk_layer.key, trunk_layer.value, trunk_at, trunk_layer.layer),
            Keys(own.key, own.value, own_at, own.layer),
            scale=model.config.attention_scale,
            implementation=model.config.attention,
            **reach,
        )
        return flat(mixed), kept

    see = _reaches(model.config, run_at, trunk_at, own_at)
    x, kept = _through_blocks(
        model, flat(run.tokens), flat(run.position), attend, see, trunk_cache, branch_cache, start
    )
    return model.norm(x).reshape(batch, groups, count, -1), kept


def _padded(at: Coordinates, slots: int) -> Coordinates:
    """The first slots of branches, [B, N, slots]; those that are not there are seen by nobody."""
    more = max(0, slots - at.segment.shape[-1])
    return jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 0), (0, more)])[..., :slots], at)


def _through_blocks(
    model: Transformer,
    tokens: jax.Array,
    position: jax.Array,
    attend: Callable,
    reaches: dict[bool, Any],
    read: Cache | None = None,
    written: Cache | None = None,
    start: jax.Array | int = 0,
) -> tuple[jax.Array, Any]:
    """The tokens through all blocks.

    Args:
      model: the network.
      tokens: [B, S] ids.
      position: [B, S].
      attend: `attend(q, k, v, read, keep, reach)` of one layer gives the mixed values and what it
        keeps; `keep(cache of the new tokens)` gives the cache to attend to and that which is to be
        kept.
      reaches: of local layers (True) and of the others, where there are any.
      read: a cache that is only read, or None.
      written: a cache into which the new tokens are written, or None to keep theirs alone.
      start: slot of the first of them in `written`.

    Returns:
      Hidden states [B, S, D] before the final norm, and what was kept, of all layers.
    """
    x, kind = model.embed(tokens), _kinds(model.config, position, reaches)

    def block(
        graph: nnx.GraphDef, x: jax.Array, params: Any, layer: Any, keep: Callable, local: Any
    ) -> Any:
        rotation, reach = kind(local)
        module = nnx.merge(graph, in_use(nnx.to_pure_dict(params), "blocks", x.dtype))
        x, kept = module(
            place(x, "rows"), rotation, lambda q, k, v: attend(q, k, v, layer, keep, reach)
        )
        return place(x, "rows"), kept

    through = _unrolled if isinstance(model.blocks, nnx.List) else _scanned
    return through(model, block, x, read, written, start)


def _reaches(
    config: ModelConfig, at: Coordinates, shared: Coordinates, own: Coordinates | None
) -> dict[bool, Any]:
    """What attention is told of who sees whom, for layers that are local and for those that are
    not, where there are any."""
    sizes = config.num_heads, config.num_kv_heads, config.head_dim, config.dtype

    def reach(window: Window) -> dict[str, Any]:
        plan = planned(at, shared, own, *sizes, window=window, implementation=config.attention)
        return {"window": window, "plan": plan}

    windows = {local: config.sliding_window if local else None for local in set(config.is_local)}
    if len(windows) == 2:
        windows[False] = FAR  # of the same type, so that a scan can choose
    return {local: reach(window) for local, window in windows.items()}


def _kinds(config: ModelConfig, position: jax.Array, reaches: dict[bool, Any]) -> Callable:
    """What local layers have of their own: `local`, a bool or a traced one, to rotation and reach.

    Where all layers are of one kind, `local` is not asked.
    """
    of = lambda local: Rotation.at(position, config.rope, config.head_dim, local=local)
    kinds = {local: (of(local), reach) for local, reach in reaches.items()}
    if len(kinds) == 1:
        return lambda local: next(iter(kinds.values()))

    def choose(local: Any) -> tuple[Rotation, dict[str, Any]]:
        if isinstance(local, bool):
            return kinds[local]
        return jax.tree.map(
            lambda far, near: jnp.where(local, near, far), kinds[False], kinds[True]
        )

    return choose


def _alone(new: Cache) -> tuple[Cache, Cache]:
    return new, new


def _unrolled(
    model: Transformer,
    block: Callable,
    x: jax.Array,
    read: Cache | None,
    written: Cache | None,
    start: jax.Array | int,
) -> tuple[jax.Array, Any]:
    """One block after the other, as straight code; caches are lists."""

    def run(
        graph: nnx.GraphDef, local: bool, x: jax.Array, params: Any, layer: Any, own: Any
    ) -> Any:
        put = lambda new: (_write(own, new, start),) * 2
        return block(graph, x, params, layer, _alone if own is None else put, local)

    blocks: Any = model.blocks
    kept = []
    for i, module in enumerate(blocks):
        graph, params = nnx.split(module)
        of_layer = functools.partial(jax.tree.map, operator.itemgetter(i), is_leaf=_is_list)
        of_kind = functools.partial(run, graph, model.config.is_local[i])
        layer = _rematerialised(of_kind, model.config.remat, scanned=False)
        x, new = layer(x, params, of_layer(read), of_layer(written))
        kept.append(new)
    return x, jax.tree.map(lambda *each: list(each), *kept)


def _scanned(
    model: Transformer,
    block: Callable,
    x: jax.Array,
    read: Cache | None,
    written: Cache | None,
    start: jax.Array | int,
) -> tuple[jax.Array, Any]:
    """A scan over the stacked blocks; caches are stacked.

    A cache that is written is carried and changed in place: as an output of the scan it would be
    copied whole. Attention is given stacks and the number of the layer, and need not copy one out.
    """
    graph, params = nnx.split(model.blocks)

    def fresh(x: jax.Array, layer: tuple) -> Any:
        params, local, read = layer
        return block(graph, x, params, read, _alone, local)

    def further(carry: tuple, layer: tuple) -> Any:
        x, cache = carry
        params, local, index = layer
        of_layer = lambda stack: dataclasses.replace(stack, layer=index)

        def put(new: Cache) -> tuple[Cache, Cache]:
            whole = _write(cache, jax.tree.map(lambda y: y[None], new), start, index)
            return of_layer(whole), whole

        return block(graph, x, params, of_layer(read), put, local), None

    local = jnp.asarray(model.config.is_local)
    if written is None:
        layer = _rematerialised(fresh, model.config.remat, scanned=True)
        return jax.lax.scan(layer, x, (params, local, read))
    layers = jnp.arange(model.config.num_layers)
    return jax.lax.scan(further, (x, written), (params, local, layers))[0]


def _is_list(x: Any) -> bool:
    return isinstance(x, list)


def _write(
    cache: Cache, new: Cache, start: jax.Array | int, layer: jax.Array | None = None
) -> Cache:
    """The cache with the new tokens from slot `start` on, of one layer or of `layer` in a stack."""

    def put(x: jax.Array, y: jax.Array) -> jax.Array:
        place = [0 if layer is None else layer, *[0] * (x.ndim - 3), start, 0]
        return jax.lax.dynamic_update_slice(x, y, place)

    return jax.tree.map(put, cache, new)


def _rematerialised(block: Callable, policy: str, *, scanned: bool) -> Callable:
    """The block with its activations kept ("none"), or computed again in the backward pass.

    Gathered parameters are never kept: those of all layers would be the whole network. Outside of
    a scan the compiler must be kept from merging the second computation with the first.
    """
    saveable: Callable | None = at_rest
    if policy == "none" and not parameters_are_split():
        return block
    if policy != "none":
        dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        saveable = dots if policy == "dots" else None
    return jax.checkpoint(block, policy=saveable, prevent_cse=not scanned)
