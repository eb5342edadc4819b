"""The jitted functions that generate text: read prompts, then choose tokens on all their branches.

    unrolled   the layers as decoding reads them, if it does not read those of the parameters
    read       prefills B prompts, once for all N texts that continue each of them
    begin      makes room for the texts
    decode     chooses up to `steps` tokens of every open text
    put        replaces some prompts, and the texts after them, by others
    resized    makes room for more rows, longer prompts and longer texts

A slot holds one token of every text, as for thoughts, but in any order: the tokens of a text lie in
the slots that were written while it was open, and its positions say in which order. A text that
begins later than others in its batch therefore uses the slots that are free by then.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models import cache as caches
from models.cache import Cache, map_rows
from models.config import ModelConfig
from models.sharding import constrain
from models.transformer import Params, Transformer, bind, decodes_unrolled, unrolled
from models.tree import Branches, extend
from rlp.data.batch import Array
from rlp.engine.decoding import decoding_loop, for_decoding, next_tokens
from rlp.engine.sampling import Sampler
from rlp.evaluation.generation import reading
from rlp.evaluation.generation.reading import Prompts


@flax.struct.dataclass
class Texts:
    """N texts after each of B prompts, so far.

    Attributes:
      branches: their tokens, [B, N, slots].
      cache: of these slots.
      hidden: [B, N, D], final hidden state of the last token of each text or its prompt.
    """

    branches: Branches
    cache: Cache
    hidden: jax.Array


@flax.struct.dataclass
class Choosing:
    """How the tokens of texts are chosen, and where texts end; arrays [B, N, …] of numpy or JAX.

    Attributes:
      open: bool, the texts that go on.
      taken: int32, tokens of each text so far.
      limit: int32, the most tokens of each text.
      ends: [B, N, E] int32, ids that end a text; -1 for none.
      key: [B, N, 2] uint32, data of a PRNG key; its number i draws token i of the text.
      sampler: None if all texts take the likeliest tokens.
    """

    open: Array
    taken: Array
    limit: Array
    ends: Array
    key: Array
    sampler: Sampler | None


@flax.struct.dataclass
class Chosen:
    """The tokens that a call of `decode` has chosen.

    Attributes:
      tokens: [B, N, steps] int32, those of open texts first; then undefined.
      logprobs: [B, N, steps] nats, of the whole distribution at the text's temperature, or at 1 if
        that is 0.
      taken: [B, N] int32, tokens of each text so far.
      open: [B, N] bool, the texts that go on.
    """

    tokens: jax.Array
    logprobs: jax.Array
    taken: jax.Array
    open: jax.Array


@dataclasses.dataclass(frozen=True)
class TextPrograms:
    """The functions of one network.

    Attributes:
      model: config of the network.
      banned: ids that are never chosen.
    """

    model: ModelConfig
    banned: tuple[int, ...]

    def unrolled(self, params: Params) -> list[Any] | None:
        """Return the layers as `decode` reads them, a copy; None if it reads those of `params`."""
        return self._unrolled(params) if decodes_unrolled(self.model) else None

    @functools.cached_property
    def _unrolled(self) -> Callable[[Params], Any]:
        return jax.jit(lambda params: unrolled(bind(self.model, params)).blocks)

    @functools.cached_property
    def read(self) -> Callable[..., Prompts]:
        """`read(params, tokens [B, T], length [B], shared=0, shards=1)` prefills prompts; see
        `reading.read`."""

        @functools.partial(jax.jit, static_argnames=("shared", "shards"))
        def read(
            params: Params, tokens: Array, length: Array, *, shared: int = 0, shards: int = 1
        ) -> Prompts:
            model = bind(self.model, params)
            rows = jnp.asarray(tokens), jnp.asarray(length)
            prompts = reading.read(model, *rows, shared, shards)
            _, cache = for_decoding(model, prompts.cache)
            return dataclasses.replace(prompts, cache=cache)

        return read

    @functools.cached_property
    def begin(self) -> Callable[..., Texts]:
        """`begin(prompts, count=N, slots=…)` returns texts without tokens, with room for some."""
        return jax.jit(self._begin, static_argnames=("count", "slots"))

    def _begin(self, prompts: Prompts, *, count: int, slots: int) -> Texts:
        end = jnp.repeat(prompts.trunk.forks.position, count, axis=1)  # type: ignore[union-attr]
        empty = lambda dtype: jnp.zeros((*end.shape, slots), dtype)
        branches = Branches(
            empty(jnp.int32), empty(jnp.int32), empty(bool), segment=jnp.ones_like(end), fork=end
        )
        branches = jax.tree.map(lambda x: constrain(x, "rows"), branches)
        cache = caches.begin(self.model, prompts.trunk, prompts.cache, branches, slots)
        hidden = jnp.repeat(prompts.hidden[:, None], count, axis=1)
        return Texts(branches, cache, constrain(hidden, "rows"))

    @functools.cached_property
    def resized(self) -> Callable[..., tuple[Prompts, Texts]]:
        """`resized(prompts, texts, rows=…, length=…, slots=…)` returns a larger batch.

        It has more rows (copies of the last one), room for longer prompts and for more slots.
        """

        @functools.partial(jax.jit, static_argnames=("rows", "length", "slots"))
        def resized(
            prompts: Prompts, texts: Texts, *, rows: int, length: int, slots: int
        ) -> tuple[Prompts, Texts]:
            branches = texts.branches
            more = slots - branches.tokens.shape[-1]
            pad = lambda x: jnp.pad(x, [(0, 0), (0, 0), (0, more)])
            branches = dataclasses.replace(
                branches,
                tokens=pad(branches.tokens),
                position=pad(branches.position),
                live=pad(branches.live),
            )
            cache = caches.grown(self.model, texts.cache, slots)
            prompts = self._lengthened(prompts, length)
            texts = dataclasses.replace(texts, branches=branches, cache=cache)
            count = len(branches.tokens)
            if rows == count:
                return prompts, texts
            index = jnp.minimum(jnp.arange(rows), count - 1)

            def more_rows(x: jax.Array, axis: int) -> jax.Array:
                return constrain(jnp.take(x, index, axis=axis), *[None] * axis, "rows")

            return _on_rows(more_rows, prompts), _on_rows(more_rows, texts)

        return resized

    def _lengthened(self, prompts: Prompts, length: int) -> Prompts:
        """Return prompts with room for `length` tokens each."""
        trunk = prompts.trunk
        more = length - trunk.tokens.shape[1]
        if not more:
            return prompts
        pad = lambda x: jnp.pad(x, [(0, 0), (0, more)])
        trunk = dataclasses.replace(
            trunk,
            tokens=pad(trunk.tokens),
            segment=pad(trunk.segment),
            position=jnp.broadcast_to(jnp.arange(length)[None, :], (len(trunk.tokens), length)),
        )
        cache = caches.lengthened(self.model, prompts.cache, length)
        return dataclasses.replace(prompts, trunk=trunk, cache=cache)

    @functools.cached_property
    def put(self) -> Callable[[Prompts, Texts, Prompts, Array], tuple[Prompts, Texts]]:
        """`put(prompts, texts, others, rows)` replaces rows by other prompts, whose texts begin.

        The others may be shorter. `rows` has an index for each of them; one that is B or larger
        puts it nowhere. The first two arguments are donated.
        """

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def put(
            prompts: Prompts, texts: Texts, others: Prompts, rows: jax.Array
        ) -> tuple[Prompts, Texts]:
            count, slots = texts.branches.tokens.shape[1:]
            others = self._lengthened(others, prompts.trunk.tokens.shape[1])
            begun = self._begin(others, count=count, slots=slots)
            write = lambda x, axis, y: _replaced(x, rows, y, axis)
            return _on_rows(write, prompts, others), _on_rows(write, texts, begun)

        return put

    @functools.cached_property
    def decode(self) -> Callable[..., tuple[Texts, Chosen]]:
        """`decode(params, blocks, prompts, texts, choosing, slot, steps=…)` chooses tokens.

        They are written to the slots from `slot` on, of which no open text may use any yet. It ends
        early if no text is open any more. `params` and `blocks` are the parameters and what
        `unrolled` returns for them; `texts` is donated.
        """

        @functools.partial(jax.jit, static_argnames="steps", donate_argnames="texts")
        def decode(
            params: Params,
            blocks: list[Any] | None,
            prompts: Prompts,
            texts: Texts,
            choosing: Choosing,
            slot: jax.Array,
            *,
            steps: int,
        ) -> tuple[Texts, Chosen]:
            model = bind(self.model, params)
            if blocks is not None:
                model = dataclasses.replace(model, blocks=blocks)
            choosing = jax.tree.map(lambda x: constrain(x, "rows"), choosing)
            take = functools.partial(self._step, model, prompts, choosing, slot)
            shape = (*choosing.open.shape, steps)
            nothing = jnp.zeros(shape, jnp.int32), jnp.zeros(shape)
            state = (
                jnp.int32(0),
                texts,
                Chosen(*nothing, jnp.asarray(choosing.taken), jnp.asarray(choosing.open)),
            )
            if steps == 1:
                _, texts, chosen = take(state)
            else:
                running = lambda state: (state[0] < steps) & state[2].open.any()
                _, texts, chosen = decoding_loop(running, take, state)
            return texts, jax.tree.map(constrain, chosen)  # whole on every device, for every host

        return decode

    def _step(
        self,
        model: Transformer,
        prompts: Prompts,
        choosing: Choosing,
        slot: jax.Array,
        state: tuple[jax.Array, Texts, Chosen],
    ) -> tuple[jax.Array, Texts, Chosen]:
        """Choose a token of every open text, and run it through the network."""
        number, texts, chosen = state
        sampler = 0.0 if choosing.sampler is None else choosing.sampler
        uniform = _uniforms(choosing.key, chosen.taken)
        token, logprob = next_tokens(model, texts.hidden, uniform, self.banned, sampler)
        ended = (token[..., None] == choosing.ends).any(axis=-1)
        taken = chosen.taken + chosen.open
        still_open = chosen.open & ~ended & (taken < choosing.limit)
        put = lambda x, new, at: jax.lax.dynamic_update_index_in_dim(x, new, at, axis=2)
        branches, at = texts.branches, slot + number
        branches = dataclasses.replace(
            branches,
            tokens=put(branches.tokens, token, at),
            position=put(branches.position, branches.fork + chosen.taken, at),
            live=put(branches.live, still_open, at),
        )
        trunk, cache = prompts.trunk, prompts.cache
        hidden, cache = extend(model, trunk, cache, branches, texts.cache, at, 1)
        chosen = Chosen(
            tokens=put(chosen.tokens, token, number),
            logprobs=put(chosen.logprobs, logprob, number),
            taken=taken,
            open=still_open,
        )
        return number + 1, Texts(branches, cache, hidden[:, :, 0]), chosen


@functools.cache  # so that all texts of a network share its compiled programs
def text_programs(model: ModelConfig, banned: tuple[int, ...]) -> TextPrograms:
    """Return the functions that generate text with a network, without the ids `banned`."""
    return TextPrograms(model, banned)


def _uniforms(keys: Array, numbers: jax.Array) -> jax.Array:
    """Return a number in [0, 1) per text, [B, N], that its key [B, N, 2] has for this number."""

    def draw(key: jax.Array, number: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.wrap_key_data(key), number), (1,))

    return jax.vmap(jax.vmap(draw))(jnp.asarray(keys), numbers)[..., 0]


def _on_rows(change: Callable, *batches: Any) -> Any:
    """Apply `change(array, axis of the rows, *arrays of the others)` to prompts or texts."""
    bare = [dataclasses.replace(batch, cache=None) for batch in batches]
    result = jax.tree.map(lambda x, *y: change(x, 0, *y), *bare)
    write = lambda x, axes, *y: change(x, axes[0], *y)
    cache = map_rows(write, *(batch.cache for batch in batches))
    return dataclasses.replace(result, cache=cache)


def _replaced(x: jax.Array, rows: jax.Array, new: jax.Array, axis: int) -> jax.Array:
    """Return x with `rows` of an axis replaced; an index beyond it is left out."""
    place = (slice(None),) * axis + (rows,)
    return x.at[place].set(new, mode="drop")
