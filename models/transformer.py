"""The decoder: embedding, layers, final norm, logits.

Parameters are a plain nested dict of arrays, so that theta, theta_old and phi are three such dicts
through one network: `bind(config, params)` gives what to call. The layers of each kind are stacked
on a leading axis (`models.blocks`); they are scanned, so that compile time does not grow with
depth, or run as straight code where the backend wants that (`models.backend`). What attends to what
is the business of `models.tree` and of the kinds of layers (`models.layers`).
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from models.backend import choices
from models.blocks import init_blocks, taken_apart
from models.config import ModelConfig
from models.layers.linear import INIT_STDDEV, Linear
from models.layers.norm import RMSNorm, rms_norm
from models.sharding import in_use, place

Params = dict[str, Any]  # nested dict of float32 arrays


@flax.struct.dataclass
class Transformer:
    """Parameters of the network, in use (see `models.sharding`), and the maps at its two ends."""

    config: ModelConfig = flax.struct.field(pytree_node=False)
    table: jax.Array  # [V, D], the embedding
    blocks: Any  # parameters of the layers, in stacks, or a list of layers
    scale: jax.Array  # [D], of the final norm
    reader: jax.Array  # [D, V], what logits are read with

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Token ids [...] to the residual stream [..., D] in the compute dtype."""
        found = place(self.table[tokens].astype(self.config.dtype), "rows")
        if self.config.scale_embedding:
            return found * jnp.asarray(self.config.hidden_size**0.5, found.dtype)
        return found

    def norm(self, x: jax.Array) -> jax.Array:
        """The residual stream [..., D] to the final hidden states."""
        scale = 1 + self.scale if self.config.zero_centered_norm else self.scale
        return rms_norm(x, scale, self.config.norm_epsilon)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Final hidden states [..., D] to float32 logits [..., V]."""
        weights = self.reader.astype(hidden.dtype)
        logits = jnp.matmul(hidden, weights, preferred_element_type=jnp.float32)
        cap = self.config.logit_softcap
        return cap * jnp.tanh(logits / cap) if cap else logits


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Fresh parameters: normal with standard deviation 0.02, norms at one, biases at zero."""
    embed, blocks, head = jax.random.split(key, 3)
    shape = (config.vocab_size, config.hidden_size)
    params = {
        "embedding": INIT_STDDEV * jax.random.normal(embed, shape),
        "blocks": init_blocks(config, blocks),
        "norm": _pure(RMSNorm(config.hidden_size, config)),
    }
    if not config.tie_embeddings:
        params["head"] = _pure(Linear(shape[1], shape[0], head))
    return params


def _pure(module: nnx.Module) -> Params:
    return nnx.to_pure_dict(nnx.split(module)[1])


def bind(config: ModelConfig, params: Params) -> Transformer:
    """The network of `config` with these parameters. Cheap; call it inside a jitted function, and
    outside of loops: where the backend wants straight code, the layers are taken apart here."""
    table, blocks = in_use(params["embedding"], "embedding"), params["blocks"]
    straight = config.num_layers <= choices().unrolled_layers
    tied = config.tie_embeddings
    return Transformer(
        config=config,
        table=table,
        blocks=taken_apart(config, blocks) if straight else blocks,
        scale=params["norm"]["scale"],
        reader=table.T if tied else in_use(params["head"]["kernel"], "head/kernel"),
    )


def shapes(config: ModelConfig) -> Params:
    """Shapes and dtypes of the parameters, without making them."""
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


@functools.cache
def count_parameters(config: ModelConfig) -> int:
    """Number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(config)))
