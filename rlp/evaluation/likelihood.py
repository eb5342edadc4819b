"""The log-likelihood of a text after a prompt, without a thought."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from models.transformer import Params, bind
from models.tree import Trunk
from rlp.engine.branches import Vocabulary
from rlp.engine.method import Method
from rlp.engine.scoring import document_scores
from rlp.evaluation.generation.single import padded_row


def log_likelihood(
    method: Method,
    params: Params,
    prompt: Sequence[int],
    target: Sequence[int],
) -> float:
    """Return log p(target | prompt) in nats, at temperature 1, without ids banned in documents.

    Args:
      method: its network and vocabulary are used.
      params: of the network.
      prompt: at least one token id.
      target: token ids of the text after the prompt.
    """
    row = padded_row([*prompt, *target])
    position = np.arange(row.tokens.shape[1])
    scored = (position >= len(prompt)) & (position < len(prompt) + len(target))
    return float(_scorer(method.model, method.vocabulary)(params, row, jnp.asarray(scored)[None]))


@functools.cache
def _scorer(
    model: ModelConfig, vocabulary: Vocabulary
) -> Callable[[Params, Trunk, jax.Array], jax.Array]:
    """Return a jitted function that sums the log-probabilities of the `scored` tokens [1, T]."""

    @jax.jit
    def score(params: Params, row: Trunk, scored: jax.Array) -> jax.Array:
        logprob = document_scores(bind(model, params), row, vocabulary).logprob
        return jnp.where(scored, logprob, 0.0).sum()

    return score
