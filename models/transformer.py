"""The decoder: embedding, stacked blocks, final norm, logits.

Parameters are a plain nested dict of arrays, so that theta, theta_old and phi are three such dicts
through one graph: `bind(config, params)` gives the module to call. The blocks are stacked on a
leading axis; they are scanned, so that compile time does not grow with depth, or unrolled where the
backend wants that (`models.backend`). What attends to what, and what is cached, is the business of
`models.tree`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.backend import choices
from models.config import ModelConfig
from models.layers import INIT_STDDEV, Block, Linear, RMSNorm
from models.sharding import in_use, place

Params = dict[str, Any]  # nested dict of float32 arrays


class Transformer(nnx.Module):
    """Parameters of the network and the maps at its two ends."""

    # In use (see `models.sharding`), set by `bind`.
    table: jax.Array  # [V, D], the embedding
    reader: jax.Array  # [D, V], what logits are read with

    def __init__(self, config: ModelConfig, key: jax.Array):
        embed, blocks, head = jax.random.split(key, 3)
        shape = (config.vocab_size, config.hidden_size)
        self.config = config
        self.embedding = nnx.Param(INIT_STDDEV * jax.random.normal(embed, shape))
        self.blocks = jax.vmap(lambda k: Block(config, k))(
            jax.random.split(blocks, config.num_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config)
        self.head = None if config.tie_embeddings else Linear(shape[1], shape[0], head)

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Token ids [...] to the residual stream [..., D] in the compute dtype."""
        found = place(self.table[tokens].astype(self.config.dtype), "rows")
        if self.config.scale_embedding:
            return found * jnp.asarray(self.config.hidden_size**0.5, found.dtype)
        return found

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Normalised hidden states [..., D] to float32 logits [..., V]."""
        weights = self.reader.astype(hidden.dtype)
        logits = jnp.matmul(hidden, weights, preferred_element_type=jnp.float32)
        cap = self.config.logit_softcap
        return cap * jnp.tanh(logits / cap) if cap else logits


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Fresh parameters: normal with standard deviation 0.02, norms at one, biases at zero."""
    return nnx.to_pure_dict(nnx.split(Transformer(config, key))[1])


@functools.cache
def _graph(config: ModelConfig) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: Transformer(config, jax.random.key(0))))[0]


def bind(config: ModelConfig, params: Params) -> Transformer:
    """The network of `config` with these parameters. Cheap; call it inside a jitted function, and
    outside of loops: where the backend wants straight code, the blocks are taken apart here."""
    model = nnx.merge(_graph(config), params)
    model.table = in_use(params["embedding"], "embedding")
    tied = config.tie_embeddings
    model.reader = model.table.T if tied else in_use(params["head"]["kernel"], "head/kernel")
    if config.num_layers <= choices().unrolled_layers:
        graph, stacked = nnx.split(model.blocks)
        layer = lambda i: nnx.merge(graph, jax.tree.map(lambda x: x[i], stacked))
        model.blocks = nnx.List([layer(i) for i in range(config.num_layers)])
    return model


def shapes(config: ModelConfig) -> Params:
    """Shapes and dtypes of the parameters, without making them."""
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


@functools.cache
def count_parameters(config: ModelConfig) -> int:
    """Number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(config)))
