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
from rlp.evaluation.generation import row_of


def log_likelihood(
    method: Method,
    params: Params,
    prompt: Sequence[int],
    target: Sequence[int],
) -> float:
    """log p(target | prompt) in nats, at temperature 1, over the tokens that text can hold.

    Args:
      method: its network, and the ids that text cannot hold.
      params: of the network.
      prompt: ids of the text before, at least one.
      target: ids of the text after it.
    """
    row = row_of([*prompt, *target])
    place = np.arange(row.tokens.shape[1])
    scored = (place >= len(prompt)) & (place < len(prompt) + len(target))
    return float(_scorer(method.model, method.vocabulary)(params, row, jnp.asarray(scored)[None]))


@functools.cache
def _scorer(
    model: ModelConfig, vocabulary: Vocabulary
) -> Callable[[Params, Trunk, jax.Array], jax.Array]:
    """The sum of the log-probabilities of some places [1, T] of a row, compiled."""

    @jax.jit
    def score(params: Params, row: Trunk, scored: jax.Array) -> jax.Array:
        logprob = document_scores(bind(model, params), row, vocabulary).logprob
        return jnp.where(scored, logprob, 0.0).sum()

    return score
