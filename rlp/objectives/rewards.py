"""Rewards and target weights of the objectives; each function returns [B, K, G].

c is a thought, y its target of H tokens (fewer at the end of a document), p(y|c) the probability of
y after the thought, and p(y) without one. S = log p(y|c) includes the weights of
`rlp.horizon_weighting`.
"""

import jax
import jax.numpy as jnp

from rlp.objectives.equations import information_gain, target_mean
from rlp.objectives.outcome import Outcome


def gain(outcome: Outcome) -> jax.Array:
    """Return r = S_pred - S_ema, nats (RLP, arXiv 2510.01265, eq. 3)."""
    return information_gain(outcome.reasoned, outcome.baseline)


def match(outcome: Outcome) -> jax.Array:
    """Return r = 1 if the predicted token matches the text, else 0 (RPT, arXiv 2506.08007)."""
    return outcome.matches.astype(jnp.float32)


def evidence(outcome: Outcome) -> jax.Array:
    """Return r = log p(y|c), nats (LaTRO, arXiv 2411.04282; JEPO, arXiv 2503.19618)."""
    return outcome.reasoned


def probability(outcome: Outcome) -> jax.Array:
    """Return r = p(y|c) (VeriFree, arXiv 2505.21493)."""
    return jnp.exp(outcome.reasoned)


def probability_gain(outcome: Outcome) -> jax.Array:
    """Return r = clip(mean_h p(y_h|c) - mean_h p(y_h), 0, 1) (RLPR, arXiv 2506.18254)."""
    mean = lambda logprobs: target_mean(jnp.exp(logprobs), outcome.present[:, :, None])
    with_thought, without = mean(outcome.logprobs), mean(outcome.baseline_logprobs[:, :, None])
    return jnp.clip(with_thought - without, 0.0, 1.0)


def reasoning_perplexity(outcome: Outcome) -> jax.Array:
    """Return r = -exp(-log p(y|c) / (H N)), N = max(1, 1 + log |c|): the negative reasoning
    perplexity (NOVER, arXiv 2505.16022)."""
    length = jnp.maximum(outcome.length, 1).astype(jnp.float32)
    mean = target_mean(outcome.logprobs, outcome.present[:, :, None])
    return -jnp.exp(-mean / jnp.maximum(1.0, 1.0 + jnp.log(length)))


def noise(outcome: Outcome) -> jax.Array:
    """Return a uniform random number in [0, 1), independent of the thought."""
    return outcome.uniform


def permuted_gain(outcome: Outcome) -> jax.Array:
    """Return the gains, randomly permuted within each group, nats."""
    order = jnp.argsort(outcome.uniform, axis=-1)
    return jnp.take_along_axis(gain(outcome), order, axis=-1)


def gain_elsewhere(outcome: Outcome) -> jax.Array:
    """Return r = log p(y'|c), nats, for text y' at another position of the document."""
    return outcome.elsewhere


def gain_in_another(outcome: Outcome) -> jax.Array:
    """Return r = log p(y'|x', c), nats: the evidence of the target y' of another document x', into
    which the thought is moved."""
    return outcome.in_another


def length(outcome: Outcome) -> jax.Array:
    """Return r = |c| / L."""
    return outcome.length / outcome.limit


def closed(outcome: Outcome) -> jax.Array:
    """Return r = 1 if the thought closed by itself, else 0."""
    return outcome.closed.astype(jnp.float32)


def correct(outcome: Outcome) -> jax.Array:
    """Return r = 1 if the answer is correct, else 0; or the number that the verifier returns
    (RLVR)."""
    return outcome.answers.reward


def agrees(outcome: Outcome) -> jax.Array:
    """Return r = 1 if the answer equals the majority answer of the group, else 0 (TTRL, arXiv
    2504.16084)."""
    return outcome.answers.agrees.astype(jnp.float32)


def calibrated(outcome: Outcome) -> jax.Array:
    """Return r = z - (q - z)², z = 1 if the answer is correct, else 0, and q the stated confidence
    (RLCR, arXiv 2507.16806). A response that states none has the worst q, 1 - z."""
    right = outcome.answers.correct.astype(jnp.float32)
    stated = outcome.answers.confidence
    return right - (jnp.where(jnp.isnan(stated), 1 - right, stated) - right) ** 2


def by_count(outcome: Outcome, counted: jax.Array) -> jax.Array:
    """Return w = 1: all counted thoughts have the same weight (LaTRO)."""
    return counted.astype(outcome.reasoned.dtype)


def by_probability(outcome: Outcome, counted: jax.Array) -> jax.Array:
    """Return w = p(y|c): together with A for the thought, the gradient of E_c p(y|c) (VeriFree)."""
    return jnp.where(counted, probability(outcome), 0.0)


def by_posterior(outcome: Outcome, counted: jax.Array) -> jax.Array:
    """Return w_i = n p(y|c_i) / sum_j p(y|c_j) over the n counted thoughts of a group (JEPO)."""
    scores = jnp.where(counted, outcome.reasoned, -jnp.inf)
    number = counted.sum(axis=-1, keepdims=True)
    return jnp.where(counted, number * jax.nn.softmax(scores, axis=-1, where=counted), 0.0)
