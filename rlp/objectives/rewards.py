"""What thoughts are worth, one function per objective; and how much of the target is learnt.

c is a thought, y its target of H tokens, p(y|c) the probability of y after it and p(y) without one;
weights of the horizon (`rlp.horizon_weighting`) are part of S = log p(y|c).
"""

import jax
import jax.numpy as jnp

from rlp.objectives.equations import information_gain
from rlp.objectives.outcome import Outcome


def gain(outcome: Outcome) -> jax.Array:
    """r = S_pred - S_ema, nats (RLP, arXiv 2510.01265, eq. 3)."""
    return information_gain(outcome.reasoned, outcome.baseline)


def match(outcome: Outcome) -> jax.Array:
    """r = 1 if the prediction after the thought is what follows (RPT, arXiv 2506.08007)."""
    return outcome.matches.astype(jnp.float32)


def evidence(outcome: Outcome) -> jax.Array:
    """r = log p(y|c), nats (LaTRO, arXiv 2411.04282; JEPO, arXiv 2503.19618)."""
    return outcome.reasoned


def probability(outcome: Outcome) -> jax.Array:
    """r = p(y|c) (VeriFree, arXiv 2505.21493)."""
    return jnp.exp(outcome.reasoned)


def probability_gain(outcome: Outcome) -> jax.Array:
    """r = mean over the target's tokens of p(token|c), less the same without a thought, clipped to
    [0, 1] (RLPR, arXiv 2506.18254)."""
    mean = lambda logprobs: jnp.exp(logprobs).mean(axis=-1)
    with_thought, without = mean(outcome.logprobs), mean(outcome.baseline_logprobs)
    return jnp.clip(with_thought - without[..., None], 0.0, 1.0)


def reasoning_perplexity(outcome: Outcome) -> jax.Array:
    """r = -P, the reasoning perplexity P = exp(-log p(y|c) / (H N)) with N = max(1, 1 + log |c|)
    (NOVER, arXiv 2505.16022)."""
    length = jnp.maximum(outcome.length, 1).astype(jnp.float32)
    return -jnp.exp(-outcome.logprobs.mean(axis=-1) / jnp.maximum(1.0, 1.0 + jnp.log(length)))


def noise(outcome: Outcome) -> jax.Array:
    """r is a number in [0, 1) that knows nothing of the thought."""
    return outcome.uniform


def permuted_gain(outcome: Outcome) -> jax.Array:
    """r is the gain of a thought of the same group, each thought's given to one of them."""
    order = jnp.argsort(outcome.uniform, axis=-1)
    return jnp.take_along_axis(gain(outcome), order, axis=-1)


def gain_elsewhere(outcome: Outcome) -> jax.Array:
    """r = log p(y'|c), nats, of the text y' at another place of the document."""
    return outcome.elsewhere


def gain_in_another(outcome: Outcome) -> jax.Array:
    """r = log p(y'|x', c), nats: the thought is put into another document x' and scored by the text
    y' that follows there."""
    return outcome.in_another


def length(outcome: Outcome) -> jax.Array:
    """r = |c| / L."""
    return outcome.length / outcome.limit


def closed(outcome: Outcome) -> jax.Array:
    """r = 1 if the thought closed by itself."""
    return outcome.closed.astype(jnp.float32)


def correct(outcome: Outcome) -> jax.Array:
    """r = 1 if the response gives the right answer, else 0; or the number that a verifier gives
    (RLVR)."""
    return outcome.answers.reward


def agrees(outcome: Outcome) -> jax.Array:
    """r = 1 if the response gives the answer of the majority of its group (TTRL, arXiv
    2504.16084)."""
    return outcome.answers.agrees.astype(jnp.float32)


def calibrated(outcome: Outcome) -> jax.Array:
    """r = z - (q - z)², z = 1 if the answer is right, else 0, and q the stated confidence (RLCR,
    arXiv 2507.16806). A response that states none is given the worst q."""
    right = outcome.answers.correct.astype(jnp.float32)
    stated = outcome.answers.confidence
    return right - (jnp.where(jnp.isnan(stated), 1 - right, stated) - right) ** 2


def all_of_it(outcome: Outcome, counted: jax.Array) -> jax.Array:
    """The target is learnt after every thought alike."""
    return counted.astype(outcome.reasoned.dtype)


def by_probability(outcome: Outcome, counted: jax.Array) -> jax.Array:
    """w = p(y|c): with A for the thought, the gradient of E_c p(y|c) (VeriFree)."""
    return jnp.where(counted, probability(outcome), 0.0)


def by_posterior(outcome: Outcome, counted: jax.Array) -> jax.Array:
    """w_i = n p(y|c_i) / sum_j p(y|c_j) over the n counted thoughts of a group (JEPO)."""
    scores = jnp.where(counted, outcome.reasoned, -jnp.inf)
    number = counted.sum(axis=-1, keepdims=True)
    return jnp.where(counted, number * jax.nn.softmax(scores, axis=-1, where=counted), 0.0)
