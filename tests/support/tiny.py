"""Small models, documents and settings for the tests of the method.

The models are float32 on the CPU. Their matrices have a standard deviation of 0.2 and their norm
scales are between 0.5 and 1.5: with the usual 0.02, attention would be nearly uniform, and the
effect of a wrong mask, position or norm would be smaller than rounding errors.
"""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from models.rope import Rope
from models.transformer import Params, init
from rlp.data.batch import Batch
from rlp.engine import gradient as gradients
from rlp.engine import step
from rlp.engine.branches import Vocabulary, vocabulary
from rlp.engine.step import RLPSettings
from tests.support.environment import COMPILER_OPTIONS

# These tests spend most of their time on compilation.
_jit = jax.jit


def jit(function, **options):
    """Compile with little optimization; inside another jitted function, the outer one's options
    hold."""
    if not isinstance(jnp.zeros(()), jax.core.Tracer):
        options["compiler_options"] = COMPILER_OPTIONS
    return _jit(function, **options)


PAD, BOS, EOS, OPEN, CLOSE = range(5)
FIRST_WORD = 5


def model_config(**changes) -> ModelConfig:
    """Return a config with two layers, grouped-query attention, QK norm and tied embeddings."""
    shape = {
        "vocab_size": 24,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "ffn_size": 48,
        "rope": Rope(theta=100.0),
    }
    return ModelConfig(**(shape | changes))


@functools.cache
def params(config: ModelConfig, seed: int = 0, scale: float = 10.0) -> Params:
    """Return parameters `scale` times as large as those of `init`, with norm scales between 0.5 and
    1.5, and biases and offsets between -0.5 and 0.5."""

    def enlarge(path, leaf):
        if path[-1].key in ("scale", "offset", "bias"):
            name = zlib.crc32(jax.tree_util.keystr(path).encode())  # a different key for each leaf
            key = jax.random.fold_in(jax.random.key(seed), name)
            around_one = path[-1].key == "scale" and not config.zero_centered_norm
            return jax.random.uniform(key, leaf.shape, minval=-0.5, maxval=0.5) + around_one
        return leaf * scale

    make = lambda: jax.tree_util.tree_map_with_path(enlarge, init(config, jax.random.key(seed)))
    return jit(make)()


def words(
    config: ModelConfig,
    used: int | None = None,
    think_open: tuple[int, ...] = (OPEN,),
    think_close: tuple[int, ...] = (CLOSE,),
) -> Vocabulary:
    """Return a vocabulary whose ids 0 … 4 are special; by default the last two rows are unused."""
    return vocabulary(
        think_open=think_open,
        think_close=think_close,
        pad=PAD,
        bos=(BOS,),
        eos=EOS,
        separator=EOS,
        used=used or config.vocab_size - 2,
        size=config.vocab_size,
    )


def documents(seed: int, lengths: list[int], limit: int, used: int, forks: int = 1) -> Batch:
    """Return rows with one document each: BOS and random words, padded to `limit` tokens."""
    random = np.random.default_rng(seed)
    tokens = np.full((len(lengths), limit), PAD, np.int32)
    for row, length in enumerate(lengths):
        tokens[row, :length] = [BOS, *random.integers(FIRST_WORD, used, length - 1)]
    inside = np.arange(limit)[None, :] < np.array(lengths)[:, None]
    position = np.broadcast_to(np.arange(limit, dtype=np.int32), tokens.shape)
    drawn = [random.choice(np.arange(1, n - 2), forks, replace=False) for n in lengths]
    return Batch(
        tokens=tokens,
        segment=inside.astype(np.int32),
        position=np.where(inside, position, 0).astype(np.int32),
        index=np.arange(100, 100 + len(lengths), dtype=np.int32),
        forks=np.sort(np.array(drawn, np.int32), axis=-1),
    )


def rows(batch: Batch, chosen) -> Batch:
    """Select rows of a batch."""
    return jax.tree.map(lambda x: x[chosen], batch)


def rlp_settings(**changes) -> RLPSettings:
    """Return settings for small models; unclosed thoughts count like closed ones."""
    numbers = {
        "objective": "rlp",
        "group_size": 4,
        "forks_per_document": 2,
        "thought_length": 4,
        "horizon": 2,
        "temperature": 1.0,
        "hardest_at": 10,
        "prompt": (),
        "bos": 1,
        "ema_decay": 0.9,
        "unclosed": "append",
    }
    return RLPSettings(**(numbers | changes))


@functools.cache
def rollout_stage(config: ModelConfig, settings: RLPSettings, vocab: Vocabulary):
    """Return a jitted function from (params, scorer, batch, key, step) to (rollout, reading), which
    is compiled once for all tests."""
    method = (config, settings, vocab)

    def run(params, scorer, batch, key, at_step):
        reading = step.read_stage(*method, params, scorer, batch, key, at_step)
        return step.rollout_stage(*method, params, reading), reading

    return jit(run)


@functools.cache
def evidence_stage(config: ModelConfig, settings: RLPSettings, vocab: Vocabulary):
    """Return a jitted function from (params, phi, batch, rollout, reading) to the evidence, which
    is compiled once for all tests."""
    method = (config, settings, vocab)

    def run(params, phi, batch, rollout, reading):
        no_think = step.no_think_stage(*method, params, phi, batch, reading)
        return step.evidence_stage(*method, params, reading, no_think, rollout)

    return jit(run)


@functools.cache
def policy_gradient(config: ModelConfig, settings: RLPSettings, vocab: Vocabulary):
    """Return a function to ((loss, metrics), gradient).

    Its arguments are params, rollout, advantages [B, N], counted [B, N], log pi_ref [B, N, L] for a
    KL term, and the weights of the target [B, N].
    """

    def run(params, rollout, advantages, counted, reference, targets):
        value, metrics, gradient = gradients.policy_gradient(
            params, config, settings, vocab,
            rollout, advantages, counted, reference, targets,
            micro_batch=settings.update_micro_batch,
        )  # fmt: skip
        return (value, metrics), gradient

    compiled = jit(run)

    def gradient(params, rollout, advantages, counted, reference=None, targets=None):
        # The loss does not use the caches; without them it is compiled once for all rollouts.
        bare = rollout.replace(branch_cache=None, decoded=None)
        advantages = jnp.asarray(advantages, jnp.float32)
        return compiled(params, bare, advantages, jnp.asarray(counted), reference, targets)

    return gradient


def flat(x: jax.Array) -> jax.Array:
    """[B, K, G] to [B, N]."""
    return x.reshape(x.shape[0], -1)


def relative_error(found: Params, expected: Params) -> float:
    """Return the maximum over all leaves of |found - expected| / |expected| in Euclidean norms."""
    norm = lambda x: float(np.linalg.norm(np.ravel(x).astype(np.float64)))
    error = jax.tree.map(
        lambda a, b: norm(np.asarray(a) - np.asarray(b)) / norm(b), found, expected
    )
    return max(jax.tree.leaves(error))
