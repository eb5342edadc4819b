"""The equations of RLP (arXiv 2510.01265), as functions of arrays.

    evidence            S(c) = log p(x_t … x_{t+H-1} | …)                nats
    information gain    r(c) = S_pred(c) - S_ema                         eq. 3
    advantage           A_i = G/(G-1) (r_i - mean_j r_j)                 eq. 4
    surrogate           -mean_i 1/|c_i| sum_u min(rho A, clip(rho) A)    eq. 5
                        ... with one ratio per thought                   GSPO, arXiv 2507.18071
                        ... with rho bounded by c if A < 0               dual clip, arXiv 1912.09729
    KL term             beta mean_i 1/|c_i| sum_u k3                     ablation in section 4

Axes: B documents, K forks per document, G thoughts per fork, N = K · G, L actions, H target tokens.
Rewards and advantages are constants of the update: they carry no gradient.
"""

import math

import jax
import jax.numpy as jnp

RATIOS = ("token", "sequence")
HIDDEN = -1e30  # nats, for entries that do not count; finite, so that differences are finite


def horizon_weights(present: jax.Array, weighting: str, discount: float) -> jax.Array:
    """Return the weight of each target token in the evidence, [..., H]; the paper has H = 1.

    Args:
      present: [..., H] bool, target tokens that the document has: the first ones. The others have
        weight 0.
      weighting: "sum", "mean" over the tokens that are present, or "discount" for discount^h.
      discount: in (0, 1], for "discount".

    Raises:
      ValueError: If the weighting is unknown.
    """
    ones = present.astype(jnp.float32)
    if weighting == "sum":
        return ones
    if weighting == "mean":
        return ones / jnp.maximum(ones.sum(axis=-1, keepdims=True), 1)
    if weighting == "discount":
        powers = discount ** jnp.arange(present.shape[-1], dtype=jnp.float32)
        return ones * jnp.broadcast_to(powers, ones.shape)
    raise ValueError(f"rlp.horizon_weighting={weighting!r}; use one of ['sum', 'mean', 'discount']")


def evidence(target_logprobs: jax.Array, weights: jax.Array) -> jax.Array:
    """Return S, the weighted log-likelihood of targets, [...] nats; arguments [..., H] each."""
    return (target_logprobs * weights).sum(axis=-1)


def over_thoughts(of_forks: jax.Array, like: jax.Array) -> jax.Array:
    """Return an array [B, K, H] of the targets of forks with axes of size 1 between K and H, so
    that it broadcasts to `like`, [B, K, …, H]."""
    between = (1,) * (like.ndim - of_forks.ndim)
    return of_forks.reshape(*of_forks.shape[:2], *between, of_forks.shape[-1])


def target_mean(values: jax.Array, present: jax.Array) -> jax.Array:
    """Return the mean over the target tokens that the document has, [...].

    Args:
      values: of every target token, [..., H].
      present: [..., H] bool, broadcast to the values.
    """
    present = jnp.broadcast_to(present, values.shape)
    return jnp.where(present, values, 0.0).sum(axis=-1) / jnp.maximum(present.sum(axis=-1), 1)


def information_gain(reasoned: jax.Array, baseline: jax.Array) -> jax.Array:
    """Return r = S_pred - S_ema, [B, K, G] nats, without gradient (eq. 3).

    Args:
      reasoned: S_pred, [B, K, G] nats.
      baseline: S_ema, [B, K] nats.
    """
    return jax.lax.stop_gradient(reasoned - baseline[..., None])


def rewards(
    gain: jax.Array, closed: jax.Array, unclosed: str, penalty: float, floor: float = 0.0
) -> jax.Array:
    """Return the rewards: at least `floor`, and then, if unclosed="penalty", less `penalty` for
    thoughts that did not close.

    Args:
      gain: reward of the objective, [B, K, G] (nats for an information gain).
      closed: [B, K, G] bool.
      unclosed: `rlp.unclosed`.
      penalty: `rlp.unclosed_penalty`, in the unit of the reward.
      floor: `rlp.reward_floor`, below 0, in the unit of the reward; 0 for none.
    """
    bounded = jnp.maximum(gain, floor) if floor else gain
    return bounded - penalty * ~closed if unclosed == "penalty" else bounded


def counted_thoughts(closed: jax.Array, unclosed: str) -> jax.Array:
    """Return which thoughts are in the mean of their group and in the loss, [B, K, G] bool.

    All of them are, except that unclosed="mask" excludes thoughts that did not close.
    """
    return closed if unclosed == "mask" else jnp.ones_like(closed)


def group_advantages(rewards: jax.Array, counted: jax.Array) -> jax.Array:
    """Return A_i = n/(n-1) (r_i - mean_j r_j) over the n counted thoughts of each group (eq. 4).

    This equals leave-one-out: r_i less the mean reward of the others. There is no division by a
    standard deviation. A thought that is not counted has advantage 0 and is in no mean. The only
    counted thought of a group has advantage 0, too; but with G = 1, the advantage is the reward,
    the gain over phi.

    Args:
      rewards: [B, K, G] nats.
      counted: [B, K, G] bool; all True except for unclosed="mask".

    Returns:
      [B, K, G], in the unit of the rewards.
    """
    if rewards.shape[-1] == 1:
        return jnp.where(counted, rewards, 0.0)
    number = counted.sum(axis=-1, keepdims=True)
    mean = jnp.where(counted, rewards, 0.0).sum(axis=-1, keepdims=True) / jnp.maximum(number, 1)
    scale = number / jnp.maximum(number - 1, 1)
    return jnp.where(counted & (number > 1), scale * (rewards - mean), 0.0)


def standardized_advantages(rewards: jax.Array, counted: jax.Array) -> jax.Array:
    """Return A_i = (r_i - mean_j r_j) / std_j r_j over the counted thoughts of each group.

    From GRPO (arXiv 2402.03300, section 4.1). Advantages are 0 if all rewards of a group are equal,
    and nan if one is not finite. Arguments and shapes as in `group_advantages`; without unit.
    """
    mean, deviation = _moments(rewards, counted)
    centered = jnp.where(counted, rewards - mean, 0.0)
    scale = 1e-6 * (1.0 + jnp.abs(mean))  # smaller deviations are rounding errors
    return jnp.where(deviation <= scale, 0.0, centered / jnp.maximum(deviation, scale))


def narrow_groups(rewards: jax.Array, counted: jax.Array, least: float) -> jax.Array:
    """Return the groups whose counted rewards have a standard deviation below `least`, [B, K] bool.

    Their differences say little about their thoughts. DAPO (arXiv 2503.14476, section 3.2) leaves
    out the groups without any, and samples others instead.

    Args:
      rewards: [B, K, G]; a group with one that is not finite is not narrow.
      counted: [B, K, G] bool.
      least: in the unit of the rewards. As in `standardized_advantages`, the deviation is that of
        the group itself: the mean square is over n thoughts, not n - 1.
    """
    return _moments(rewards, counted)[1][..., 0] < least


def _moments(rewards: jax.Array, counted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and standard deviation of the counted rewards of every group, [B, K, 1] each."""
    number = jnp.maximum(counted.sum(axis=-1, keepdims=True), 1)
    mean = lambda x: jnp.where(counted, x, 0.0).sum(axis=-1, keepdims=True) / number
    return mean(rewards), jnp.sqrt(mean((rewards - mean(rewards)) ** 2))


def jensen_advantages(evidence: jax.Array, counted: jax.Array) -> jax.Array:
    """Return A_i = n (log mean_j p_j - log mean_{j != i} p_j) over the n counted thoughts.

    E log mean_j p(y|c_j) is a tighter bound on log p(y) than E log p(y|c). Its gradient is that of
    sum_i A_i / n · log pi(c_i) plus that of sum_i p_i / sum_j p_j · log p(y|c_i). The second term
    of A_i reduces the variance without bias (JEPO, arXiv 2503.19618, several samples). Both
    gradients are multiplied by n here, so that n equal thoughts have the same weight as in the
    other objectives.

    Args:
      evidence: log p_i, [B, K, G] nats.
      counted: [B, K, G] bool; the only counted thought of a group has advantage 0.

    Returns:
      [B, K, G] nats.
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
    """Return A + alpha |A| for planning actions and A for the others, [B, N, L].

    Planning actions gain more if a response is better than its group, and lose less if it is worse
    (HICRA, arXiv 2509.03646).

    Args:
      advantages: [B, N].
      planning: [B, N, L] bool.
      weight: alpha, `rlp.planning_weight`.
    """
    return advantages[..., None] + weight * jnp.abs(advantages)[..., None] * planning


def action_weights(
    length: jax.Array, counted: jax.Array, limit: int, normalization: str
) -> jax.Array:
    """Return the weight of every action in the loss, [B, N, L]: mean_i 1/|c_i| sum_u (eq. 5).

    Args:
      length: [B, N] int32, |c|: sampled tokens of each thought, with a sampled closing tag.
      counted: [B, N] bool, thoughts in the loss. The mean is over all thoughts, counted or not, so
        that the weight of a thought does not depend on the others.
      limit: L.
      normalization: "thought" divides by |c|; "limit" divides by L, which removes the length bias;
        "none" divides by 1, for the log-likelihood of the whole thought.

    Raises:
      ValueError: If the normalization is unknown.
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
    behavior_logprobs: jax.Array,
    advantages: jax.Array,
    live: jax.Array,
    clip_low: float,
    clip_high: float,
    clip_dual: float = 0.0,
    ratio: str = "token",
) -> tuple[jax.Array, jax.Array]:
    """Return the loss of every action, -min(rho A, clip(rho, 1 - eps_l, 1 + eps_h) A) (eq. 5).

    With ratio="sequence", a thought has one ratio, whose gradient reaches all its actions (GSPO,
    arXiv 2507.18071, eq. 7), and one loss, -min(s A, clip(s) A):

        s = exp(1/|c| sum_u (log pi_theta - log pi_theta_old))

    If s = 1 and the weights of its actions are equal, as those of `action_weights` are, its
    gradient equals that of ratio="token".

    Args:
      logprobs: log pi_theta of every action at the sampling temperature, [B, N, L] nats.
      behavior_logprobs: log pi_theta_old of every action, [B, N, L] nats, from the sampler.
      advantages: [B, N, 1]; or [B, N, L], for ratio="token" only.
      live: [B, N, L] bool; at all other actions, inputs may have any finite value.
      clip_low: epsilon_l.
      clip_high: epsilon_h.
      clip_dual: c > 1, for max(min(rho A, clip(rho) A), c A) if A < 0 (dual clip, Ye et al., arXiv
        1912.09729, eq. 5); 0 for none.
      ratio: one of `RATIOS`.

    Returns:
      The losses, [B, N, L], or [B, N, 1] for ratio="sequence"; and the actions whose gradient the
      clip stops, [B, N, L] bool.
    """
    difference = jnp.where(live, logprobs - behavior_logprobs, 0.0)
    if ratio == "sequence":
        number = jnp.maximum(live.sum(axis=-1, keepdims=True), 1)
        difference = difference.sum(axis=-1, keepdims=True) / number
    a = advantages
    bounded = jnp.zeros_like(difference, bool)
    if clip_dual:
        # Before exp, so that a huge ratio has a gradient of 0 and not of 0 times infinity.
        most = math.log(clip_dual)
        bounded = (a < 0) & (difference > most)
        difference = jnp.where(bounded, most, difference)
    rho = jnp.exp(difference)
    clipped = jnp.clip(rho, 1 - clip_low, 1 + clip_high)
    stopped = live & ((clipped * a < rho * a) | bounded)
    return -jnp.minimum(rho * a, clipped * a), stopped


def weighted_sum(loss: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the weighted sum of the losses of actions or thoughts, a scalar.

    Args:
      loss: of every action, [B, N, L], or of every thought, [B, N, 1].
      weights: of the actions, [B, N, L]; the weight of a thought is the sum over its actions.
    """
    if loss.shape != weights.shape:
        weights = weights.sum(axis=-1, keepdims=True)
    return jnp.sum(weights * loss)


def reference_kl(logprobs: jax.Array, reference_logprobs: jax.Array, live: jax.Array) -> jax.Array:
    """Return k3 of every action, an estimate of KL(pi_theta || pi_ref), [B, N, L] nats.

        k3 = exp(r) - r - 1,   r = log pi_ref(a) - log pi_theta(a)

    See J. Schulman, "Approximating KL divergence", and GRPO, arXiv 2402.03300, eq. 4. It is never
    negative, and its mean over actions sampled from pi_theta is KL(pi_theta || pi_ref). Its
    derivative in log pi_theta is 1 - exp(r), so its expected gradient is that of the reverse
    divergence, KL(pi_ref || pi_theta).

    Args:
      logprobs: log pi_theta of every action at the sampling temperature, [B, N, L] nats.
      reference_logprobs: log pi_ref of every action, [B, N, L] nats; carries no gradient.
      live: [B, N, L] bool; k3 is 0 at all other actions, whatever the inputs.
    """
    ratio = jnp.where(live, jax.lax.stop_gradient(reference_logprobs) - logprobs, 0.0)
    return jnp.expm1(ratio) - ratio


def ema(baseline: jax.Array, policy: jax.Array, decay: float) -> jax.Array:
    """Return tau phi + (1 - tau) theta, the update of the baseline, in float32.

    Args:
      baseline: phi.
      policy: theta after the update.
      decay: tau, `rlp.ema_decay`.
    """
    return decay * baseline + (1 - decay) * policy
