"""The next-token loss of documents.

The weights of its tokens are known before it is computed, so its gradient in the hidden states and
in the output projection is computed along with the loss, chunk by chunk. A backward pass through
`token_scores` would compute all logits a second time.
"""

import functools

import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.sharding import constrain
from models.transformer import Transformer, project
from models.tree import Trunk
from rlp.engine.scoring import in_chunks, scores_of_logits


def text_loss(model: Transformer, trunk: Trunk, hidden: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the weighted sum of the negative log-likelihoods of document tokens, in nats.

    Args:
      model: computes logits from hidden states.
      trunk: the documents, [B, T].
      hidden: their final hidden states, [B, T, D].
      weights: [B, T] float32 of each predicted token; the first token of a row has none.
    """
    arrays = hidden[:, :-1], trunk.tokens[:, 1:], weights[:, 1:]
    return _summed(model.config, model.head, *in_chunks(model.config.vocab_size, arrays))


def _of_chunk(
    config: ModelConfig,
    targets: jax.Array,
    weights: jax.Array,
    head: jax.Array,
    hidden: jax.Array,
) -> jax.Array:
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    logits = constrain(project(config, head, flat(hidden)), "rows", "vocab")
    logprob = scores_of_logits(False, logits, flat(targets)).logprob
    weights = flat(weights)
    return -jnp.sum(jnp.where(weights != 0, logprob * weights, 0.0))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(
    config: ModelConfig, head: jax.Array, hidden: jax.Array, targets: jax.Array, weights: jax.Array
) -> jax.Array:
    """Return the sum over chunks of hidden states, targets and weights, [chunks, B, S, …]."""

    def run(chunk: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        hidden, targets, weights = chunk
        return _of_chunk(config, targets, weights, head, hidden)

    return jax.lax.map(run, (hidden, targets, weights)).sum()


def _with_gradient(
    config: ModelConfig, head: jax.Array, hidden: jax.Array, targets: jax.Array, weights: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Return the sum, and its gradients in the head and in the hidden states."""

    def add(sums: tuple, chunk: tuple) -> tuple:
        hidden, targets, weights = chunk
        of_chunk = functools.partial(_of_chunk, config, targets, weights)
        value, slopes = jax.value_and_grad(of_chunk, argnums=(0, 1))(head, hidden)
        return (sums[0] + value, sums[1] + slopes[0]), slopes[1]

    zeros = jnp.zeros((), jnp.float32), jnp.zeros_like(head)
    results: tuple = jax.lax.scan(add, zeros, (hidden, targets, weights))
    (value, of_head), of_hidden = results
    return value, (of_head, of_hidden)


def _backward(
    config: ModelConfig, gradients: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    head, hidden = ((cotangent * x).astype(x.dtype) for x in gradients)
    return head, hidden, None, None


_summed.defvjp(_with_gradient, _backward)
