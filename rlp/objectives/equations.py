"""The arithmetic of RLP, equation by equation (arXiv 2510.01265). Arrays in, arrays out.

    evidence            S(c) = log p(x_t … x_{t+H-1} | …)                nats
    information gain    r(c) = S_pred(c) - S_ema                         eq. 3
    advantage           A_i = G/(G-1) (r_i - mean_j r_j)                 eq. 4
    surrogate           -mean_i 1/|c_i| sum_u min(rho A, clip(rho) A)    eq. 5
                        ... with one ratio for a thought                 GSPO, arXiv 2507.18071
                        ... and rho held at c where A < 0                dual clip, arXiv 1912.09729
    KL term             beta mean_i 1/|c_i| sum_u k3                     section 4's ablation

The reward is a constant of the update: nothing here that makes A carries a gradient.
"""

import math

import jax
import jax.numpy as jnp

RATIOS = ("token", "sequence")
HIDDEN = -1e30  # nats, of what does not count; finite, so that differences are numbers


def horizon_weights(horizon: int, weighting: str, discount: float) -> jax.Array:
    """Weight of each of the H target tokens in the evidence, [H]. H = 1 is the paper's."""
    if weighting == "sum":
        return jnp.ones((horizon,))
    if weighting == "mean":
        return jnp.full((horizon,), 1.0 / horizon)
    if weighting == "discount":
        return discount ** jnp.arange(horizon, dtype=jnp.float32)
    raise ValueError(f"rlp.horizon_weighting={weighting!r}; use one of ['sum', 'mean', 'discount']")


def evidence(target_logprobs: jax.Array, weights: jax.Array) -> jax.Array:
    """S: weighted log-likelihood of the target, in nats. [..., H] and [H] give [...]."""
    return target_logprobs @ weights


def information_gain(reasoned: jax.Array, baseline: jax.Array) -> jax.Array:
    """r = S_pred - S_ema in nats, eq. 3. Reasoned [B, K, G], baseline [B, K]; gives [B, K, G]."""
    return jax.lax.stop_gradient(reasoned - baseline[..., None])


def rewards(gain: jax.Array, closed: jax.Array, unclosed: str, penalty: float) -> jax.Array:
    """The gain, less `penalty` nats for a thought that never closed when unclosed="penalty"."""
    return gain - penalty * ~closed if unclosed == "penalty" else gain


def counted_thoughts(closed: jax.Array, unclosed: str) -> jax.Array:
    """Thoughts that are in their group's mean and carry loss: with "mask", those that closed."""
    return closed if unclosed == "mask" else jnp.ones_like(closed)


def group_advantages(rewards: jax.Array, counted: jax.Array) -> jax.Array:
    """A_i = n/(n-1) (r_i - mean_j r_j) over the counted thoughts of each group, eq. 4.

    This equals leave-one-out: r_i less the mean of the others. There is no division by a standard
    deviation. A thought that is not counted has advantage 0 and is in nobody's mean; so has a lone
    counted one. A group of one has no others: its advantage is its reward, the gain over phi.

    Args:
      rewards: [B, K, G] in nats.
      counted: [B, K, G] bool; all true except for unclosed="mask".
    """
    if rewards.shape[-1] == 1:
        return jnp.where(counted, rewards, 0.0)
    number = counted.sum(axis=-1, keepdims=True)
    mean = jnp.where(counted, rewards, 0.0).sum(axis=-1, keepdims=True) / jnp.maximum(number, 1)
    scale = number / jnp.maximum(number - 1, 1)
    return jnp.where(counted & (number > 1), scale * (rewards - mean), 0.0)


def standardized_advantages(rewards: jax.Array, counted: jax.Array) -> jax.Array:
    """A_i = (r_i - mean_j r_j) / std_j r_j over the counted thoughts of each group (GRPO, arXiv
    2402.03300, section 4.1); 0 where all rewards are the same, nan where one is not finite.
    Arguments as of `group_advantages`.
    """
    number = jnp.maximum(counted.sum(axis=-1, keepdims=True), 1)
    mean = lambda x: jnp.where(counted, x, 0.0).sum(axis=-1, keepdims=True) / number
    centred = jnp.where(counted, rewards - mean(rewards), 0.0)
    deviation = jnp.sqrt(mean(centred**2))
    scale = 1e-6 * (1.0 + jnp.abs(mean(rewards)))  # below it, a difference is rounding
    return jnp.where(deviation <= scale, 0.0, centred / jnp.maximum(deviation, scale))


def jensen_advantages(evidence: jax.Array, counted: jax.Array) -> jax.Array:
    """A_i = n (log mean_j p_j - log mean_{j != i} p_j) over the n counted thoughts of each group.

    The gradient of E log mean_j p(y|c_j), a tighter bound on log p(y) than E log p(y|c), is that of
    sum_i A_i / n · log pi(c_i) and of sum_i p_i / sum_j p_j · log p(y|c_i); the second term of A_i
    lowers the variance and has no bias (JEPO, arXiv 2503.19618, several samples). Both are taken n
    times here, so that n equal thoughts weigh as much as in the other objectives.

    Args:
      evidence: log p_i, [B, K, G] nats.
      counted: [B, K, G] bool; a lone counted thought has advantage 0.
    """
    number = counted.sum(axis=-1, keepdims=True)
    evidence = jnp.where(counted, evidence, HIDDEN)
    others = jnp.where(jnp.eye(evidence.shape[-1], dtype=bool), HIDDEN, evidence[..., None, :])
    mean = lambda x, n: jax.nn.logsumexp(x, axis=-1) - jnp.log(jnp.maximum(n, 1))
    bound = mean(evidence, number[..., 0])[..., None] - mean(others, number - 1)
    return jnp.where(counted & (number > 1), number * bound, 0.0)


ADVANTAGES = {
    "leave_one_out": group_advantages,
    "standardized": standardized_advantages,
    "jensen": jensen_advantages,
}


def planning_advantages(advantages: jax.Array, planning: jax.Array, weight: float) -> jax.Array:
    """A + alpha |A| for planning tokens, A for the others (HICRA, arXiv 2509.03646): they earn more
    where a response is better than its group, and lose less where it is worse.

    Args:
      advantages: [B, N].
      planning: [B, N, L] bool, of every action.
      weight: alpha.

    Returns:
      [B, N, L].
    """
    return advantages[..., None] + weight * jnp.abs(advantages)[..., None] * planning


def action_weights(
    length: jax.Array, counted: jax.Array, limit: int, normalization: str
) -> jax.Array:
    """Weight of every action in the loss, [B, N, L]: mean over thoughts of 1/|c| per token, eq. 5.

    Args:
      length: |c|, sampled tokens of each thought, a sampled closing tag included; [B, N].
      counted: [B, N] bool; thoughts that carry loss. The mean is over all of them regardless, so
        that the weight of a thought does not depend on its neighbours.
      limit: L.
      normalization: "thought" divides by |c|, "limit" by L, which removes the length bias, "none"
        by 1: the log-likelihood of the whole thought, as a likelihood objective has it.

    Raises:
      ValueError: an unknown normalization.
    """
    divisors = {"thought": jnp.maximum(length, 1), "limit": jnp.array(limit), "none": jnp.array(1)}
    if normalization not in divisors:
        raise ValueError(
            f"rlp.length_normalization={normalization!r}; use one of {sorted(divisors)}"
        )
    live = jnp.arange(limit)[None, None, :] < length[..., None]
    per_thought = counted / (divisors[normalization] * length.size)
    return live * per_thought[..., None]


def clipped_surrogate(
    logprobs: jax.Array,
    behaviour_logprobs: jax.Array,
    advantages: jax.Array,
    live: jax.Array,
    clip_low: float,
    clip_high: float,
    clip_dual: float = 0.0,
    ratio: str = "token",
) -> tuple[jax.Array, jax.Array]:
    """The loss of every action in eq. 5, -min(rho A, clip(rho) A), [B, N, L]; and which actions'
    gradient the clip has stopped, [B, N, L] bool.

    With ratio="sequence" a thought has one ratio, which is clipped once, and whose gradient reaches
    all of its actions (GSPO, arXiv 2507.18071, eq. 7):

        s = exp(1/|c| sum_u (log pi_theta - log pi_theta_old))

    Its loss is one for the thought, -min(s A, clip(s) A), [B, N, 1]. Where the weights of its
    actions are equal, as `action_weights` makes them, and s = 1, its gradient is that of
    ratio="token".

    Args:
      logprobs: log pi_theta of every action at the sampling temperature, [B, N, L] nats.
      behaviour_logprobs: log pi_theta_old of the same, as recorded by the sampler.
      advantages: [B, N, 1]; or [B, N, L], for ratio="token" alone.
      live: [B, N, L] bool; the others hold anything.
      clip_low: epsilon_l.
      clip_high: epsilon_h.
      clip_dual: c > 1, for max(min(rho A, clip(rho) A), c A) where A < 0 (dual clip, Ye et al.,
        arXiv 1912.09729, eq. 5); 0 for none.
      ratio: one of `RATIOS`.
    """
    difference = jnp.where(live, logprobs - behaviour_logprobs, 0.0)
    if ratio == "sequence":
        number = jnp.maximum(live.sum(axis=-1, keepdims=True), 1)
        difference = difference.sum(axis=-1, keepdims=True) / number
    a = advantages
    far = jnp.zeros_like(difference, bool)
    if clip_dual:
        # Before exp, so that what is far off has a gradient of 0 and not 0 times infinity.
        most = math.log(clip_dual)
        far = (a < 0) & (difference > most)
        difference = jnp.where(far, most, difference)
    rho = jnp.exp(difference)
    clipped = jnp.clip(rho, 1 - clip_low, 1 + clip_high)
    stopped = live & ((clipped * a < rho * a) | far)
    return -jnp.minimum(rho * a, clipped * a), stopped


def weighted_sum(loss: jax.Array, weights: jax.Array) -> jax.Array:
    """The sum of a loss of every action [B, N, L], or of every thought [B, N, 1].

    Args:
      weights: of the actions, [B, N, L]; a thought has the sum of its actions' weights.
    """
    if loss.shape != weights.shape:
        weights = weights.sum(axis=-1, keepdims=True)
    return jnp.sum(weights * loss)


def reference_kl(logprobs: jax.Array, reference_logprobs: jax.Array, live: jax.Array) -> jax.Array:
    """k3 of every action, an estimate of KL(pi_theta || pi_ref) in nats; [B, N, L], 0 where dead.

        k3 = exp(r) - r - 1,   r = log pi_ref(a) - log pi_theta(a)

    (J. Schulman, "Approximating KL divergence"; GRPO, arXiv 2402.03300, eq. 4.) It is never
    negative, and over actions drawn from pi_theta its mean is that divergence. Its slope in
    log pi_theta is 1 - exp(r), so what it adds to the gradient is, in the mean, the gradient of the
    divergence the other way round, KL(pi_ref || pi_theta).

    Args:
      logprobs: log pi_theta of every action at the sampling temperature, [B, N, L] nats.
      reference_logprobs: log pi_ref of the same.
      live: [B, N, L] bool; the others hold anything.
    """
    ratio = jnp.where(live, jax.lax.stop_gradient(reference_logprobs) - logprobs, 0.0)
    return jnp.expm1(ratio) - ratio


def ema(baseline: jax.Array, policy: jax.Array, decay: float) -> jax.Array:
    """phi <- tau phi + (1 - tau) theta, in float32."""
    return decay * baseline + (1 - decay) * policy
