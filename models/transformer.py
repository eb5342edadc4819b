"""The decoder: embedding, layers, final norm, logits.

Parameters are a plain nested dict of arrays, so that theta, theta_old and phi are three such dicts
for one network: `bind(config, params)` returns a network to call. The layers of each kind are
stacked on a leading axis (`models.blocks`). They are scanned, so that compile time does not grow
with depth, or unrolled if that suits the backend (`models.backend`). `models.tree` and the kinds of
layers (`models.layers`) define which tokens attend to which.
"""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from models.backend import choices
from models.blocks import init_blocks, unstack
from models.config import ModelConfig
from models.layers.linear import INIT_STDDEV, Linear, kernel_gradient
from models.layers.norm import RMSNorm, rms_norm
from models.products import operands, product
from models.sharding import constrain, in_use

Params = dict[str, Any]  # nested dict of float32 arrays


@flax.struct.dataclass
class Transformer:
    """The network with its parameters, gathered for use (see `models.sharding`).

    Its methods are the maps at both ends; `models.tree` runs the layers in between.
    """

    config: ModelConfig = flax.struct.field(pytree_node=False)
    table: jax.Array  # [V, D], the embedding
    blocks: Any  # parameters of the layers: stacks, or a list of layers
    scale: jax.Array  # [D], scale of the final norm
    head: jax.Array  # the output projection: [D, V], or the embedding [V, D] if they are tied

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Embed token ids [...] as the residual stream [..., D] in the compute dtype."""
        x = constrain(self.table[tokens].astype(self.config.dtype), "rows")
        if self.config.scale_embedding:
            return x * jnp.asarray(self.config.hidden_size**0.5, x.dtype)
        return x

    def norm(self, x: jax.Array) -> jax.Array:
        """Apply the final norm to the residual stream [..., D]."""
        scale = 1 + self.scale if self.config.zero_centered_norm else self.scale
        return rms_norm(x, scale, self.config.norm_epsilon)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Map final hidden states [..., D] to float32 logits [..., V]."""
        return project(self.config, self.head, hidden)


def project(config: ModelConfig, head: jax.Array, hidden: jax.Array) -> jax.Array:
    """Map final hidden states [..., D] to float32 logits [..., V] with `Transformer.head`.

    A tied embedding is read as it is: a transposed copy would take as long as hundreds of rows.
    """
    logits = _logits(hidden, head.astype(hidden.dtype), config.tie_embeddings)
    cap = config.logit_softcap
    return cap * jnp.tanh(logits / cap) if cap else logits


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _logits(hidden: jax.Array, head: jax.Array, tied: bool) -> jax.Array:
    """Compute hidden [..., D] @ head [D, V], or [V, D] if tied, in float32.

    Like all other gradients, that of the logits is rounded to the dtype of the products that it
    enters; products of two dtypes would be computed in float32.
    """
    axes = (((hidden.ndim - 1,), (1 if tied else 0,)), ((), ()))
    return jax.lax.dot_general(*operands(hidden, head), axes, preferred_element_type=jnp.float32)


def _logits_backward(tied: bool, residuals: tuple, cotangent: jax.Array) -> tuple:
    hidden, head = residuals
    cotangent = cotangent.astype(hidden.dtype)
    if tied:
        return product(cotangent, head), kernel_gradient(cotangent, hidden)
    return product(cotangent, head.T), kernel_gradient(hidden, cotangent)


_logits.defvjp(
    lambda hidden, head, tied: (_logits(hidden, head, tied), (hidden, head)), _logits_backward
)


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Initialize float32 parameters: N(0, 0.02²) weights, norms that multiply by 1, zero biases."""
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
    """Return the network of `config` with these parameters.

    Call it inside a jitted function, but outside of loops: it gathers the embedding, and unstacks
    the layers if they are unrolled.
    """
    table, blocks = in_use(params["embedding"], "embedding"), params["blocks"]
    tied = config.tie_embeddings
    return Transformer(
        config=config,
        table=table,
        blocks=unstack(config, blocks) if is_unrolled(config) else blocks,
        scale=params["norm"]["scale"],
        head=table if tied else in_use(params["head"]["kernel"], "head/kernel"),
    )


def is_unrolled(config: ModelConfig) -> bool:
    """Return whether the layers are unrolled in all passes (`Choices.unrolled_layers`)."""
    return config.num_layers <= choices().unrolled_layers


def decodes_unrolled(config: ModelConfig) -> bool:
    """Return whether the layers are unrolled while decoding (`Choices.unrolled_decoding`)."""
    return is_unrolled(config) or config.num_layers <= choices().unrolled_decoding


def unrolled(model: Transformer) -> Transformer:
    """Return the network with the parameters of its layers as a list, which unrolls them."""
    if isinstance(model.blocks, list):
        return model
    return dataclasses.replace(model, blocks=unstack(model.config, model.blocks))


def shapes(config: ModelConfig) -> Params:
    """Return shapes and dtypes of the parameters without allocating them."""
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


@functools.cache
def count_parameters(config: ModelConfig) -> int:
    """Return the number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(config)))
