"""The equations of the paper against values computed by hand or in plain loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.objectives import equations
from tests.support import naive

nats = st.floats(-20, 20, width=32)
GROUP = 5


@settings(deadline=None, max_examples=60)  # the first example compiles
@given(st.lists(st.tuples(nats, st.booleans()), min_size=GROUP, max_size=GROUP))
def test_advantages_are_leave_one_out(group):
    rewards, counted = map(list, zip(*group, strict=True))
    actual = equations.group_advantages(jnp.array([[rewards]]), jnp.array([[counted]]))[0, 0]
    expected = naive.leave_one_out(rewards, counted)
    # Sums of five numbers of at most 20: some roundings of 20 * 2**-23 each, scaled by 5/4.
    np.testing.assert_allclose(actual, expected, atol=2e-5)
    assert not np.any(np.asarray(actual)[~np.array(counted)])


@settings(deadline=None, max_examples=60)  # the first example compiles
@given(st.lists(nats, min_size=GROUP, max_size=GROUP))
def test_advantages_are_equation_4(rewards):
    actual = equations.group_advantages(jnp.array([[rewards]]), jnp.ones((1, 1, GROUP), bool))[0, 0]
    r = np.array(rewards, np.float64)
    np.testing.assert_allclose(actual, GROUP / (GROUP - 1) * (r - r.mean()), atol=2e-5)
    assert abs(float(actual.sum())) < 1e-4


def test_a_group_of_one_is_judged_by_its_gain():
    rewards = jnp.array([[[1.5]], [[-2.0]]])
    counted = jnp.array([[[True]], [[False]]])
    assert equations.group_advantages(rewards, counted).ravel().tolist() == [1.5, 0.0]


def test_a_lone_counted_thought_teaches_nothing():
    counted = jnp.array([[[True, False, False], [False, False, False]]])
    rewards = jnp.array([[[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]])
    assert not equations.group_advantages(rewards, counted).any()


def test_gain_is_a_constant_of_the_update():
    # Eq. 3: no gradient through either term.
    gain = lambda s: equations.information_gain(s, s[..., 0] - 1).sum()
    reasoned = jnp.array([[[1.0, 4.0]]])
    assert equations.information_gain(reasoned, jnp.array([[0.5]])).tolist() == [[[0.5, 3.5]]]
    assert not jax.grad(gain)(reasoned).any()


def test_penalty_falls_on_unclosed_thoughts_only():
    gain, closed = jnp.array([[[1.0, 2.0]]]), jnp.array([[[True, False]]])
    assert equations.rewards(gain, closed, "penalty", 0.75).tolist() == [[[1.0, 1.25]]]
    for unclosed in ("mask", "append"):
        assert equations.rewards(gain, closed, unclosed, 0.75).tolist() == gain.tolist()


def test_the_floor_bounds_the_reward_before_the_penalty():
    gain, closed = jnp.array([[[1.0, -2.0, -9.0]]]), jnp.array([[[False, True, False]]])
    for unclosed in ("mask", "append"):
        floored = equations.rewards(gain, closed, unclosed, 0.75, -4.0)
        assert floored.tolist() == [[[1.0, -2.0, -4.0]]]
    assert equations.rewards(gain, closed, "penalty", 0.75, -4.0).tolist() == [[[0.25, -2, -4.75]]]
    assert jnp.isnan(equations.rewards(gain * jnp.nan, closed, "append", 0.0, -4.0)).all()


@settings(deadline=None, max_examples=60)  # the first example compiles
@given(st.lists(st.tuples(nats, st.booleans()), min_size=GROUP, max_size=GROUP))
def test_a_group_is_narrow_by_the_deviation_of_its_counted_rewards(group):
    rewards, counted = map(np.array, zip(*group, strict=True))
    deviation = np.std(rewards[counted]) if counted.any() else 0.0
    narrow = lambda least: bool(
        equations.narrow_groups(jnp.array([[rewards]], jnp.float32), jnp.array([[counted]]), least)
    )
    assert narrow(deviation + 1e-4)
    assert not narrow(max(deviation - 1e-4, 0.0))


def test_horizon_weights():
    there = lambda count, size=4: jnp.arange(size) < count
    weights = lambda name: equations.horizon_weights(there(4), name, 0.5).tolist()
    assert weights("sum") == [1, 1, 1, 1]
    assert weights("mean") == [0.25] * 4
    assert weights("discount") == [1, 0.5, 0.25, 0.125]
    for name in ("sum", "mean", "discount"):  # H = 1 is the paper's, whatever the weighting
        assert equations.horizon_weights(there(1, 1), name, 0.5).tolist() == [1]
        # Tokens that are not there change nothing.
        short = equations.horizon_weights(there(2), name, 0.5).tolist()
        assert short == [*equations.horizon_weights(there(2, 2), name, 0.5).tolist(), 0, 0]
        assert equations.horizon_weights(there(0), name, 0.5).tolist() == [0] * 4
    with pytest.raises(ValueError, match="horizon_weighting='median'.*'discount'"):
        equations.horizon_weights(there(4), "median", 0.5)
    logprobs = jnp.array([-1.0, -2.0, -3.0, -4.0])
    assert float(equations.evidence(logprobs, jnp.array(weights("discount")))) == -3.25


@settings(deadline=None, max_examples=60)  # the first example compiles
@given(
    st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=6, max_size=6),
    st.sampled_from(["thought", "limit"]),
)
def test_weights_of_actions_are_a_mean_over_thoughts(thoughts, normalization):
    length, counted = map(np.array, zip(*thoughts, strict=True))
    grid = lambda x: jnp.asarray(x.reshape(2, 3))
    actual = np.asarray(equations.action_weights(grid(length), grid(counted), 6, normalization))
    for n, weights in enumerate(actual.reshape(6, 6)):
        each = 1 / (6 * (length[n] if normalization == "thought" else 6)) if counted[n] else 0
        expected = np.where(np.arange(6) < length[n], each, 0)
        np.testing.assert_allclose(weights, expected, rtol=1e-6)


def surrogate(logprobs, behavior, advantages, weights, low=0.2, high=0.3, **options):
    advantages = advantages if advantages.ndim == 3 else advantages[..., None]
    inputs = (logprobs, behavior, advantages, weights > 0, low, high)
    loss, stopped = equations.clipped_surrogate(*inputs, **options)
    return equations.weighted_sum(loss, weights), stopped


def test_on_policy_surrogate_is_the_policy_gradient():
    # One update per rollout: rho = 1, the clip is inert and the gradient is -w A grad log pi.
    random = np.random.default_rng(0)
    logprobs = jnp.asarray(random.normal(size=(2, 3, 4)), jnp.float32)
    weights = jnp.asarray(random.random((2, 3, 4)), jnp.float32)
    advantages = jnp.asarray(random.normal(size=(2, 3)), jnp.float32)
    (loss, stopped), slope = jax.value_and_grad(surrogate, has_aux=True)(
        logprobs, logprobs, advantages, weights
    )
    np.testing.assert_allclose(slope, -weights * advantages[..., None], rtol=1e-6)
    assert loss == pytest.approx(-float((weights * advantages[..., None]).sum()), rel=1e-5)
    assert not stopped.any()


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "moves"),
    [
        (1.1, 2.0, 2.2, True),
        (1.5, 2.0, 2.6, False),  # clipped to 1 + 0.3
        (0.5, 2.0, 1.0, True),  # a good thought that lost probability is still pulled back
        (0.9, -2.0, -1.8, True),
        (0.5, -2.0, -1.6, False),  # clipped to 1 - 0.2
        (1.5, -2.0, -3.0, True),
    ],
)
def test_clip(ratio, advantage, value, moves):
    behavior = jnp.full((1, 1, 1), -1.0)
    (loss, stopped), slope = jax.value_and_grad(surrogate, has_aux=True)(
        behavior + np.log(ratio), behavior, jnp.full((1, 1), advantage), jnp.ones((1, 1, 1))
    )
    assert loss == pytest.approx(-value, rel=1e-5)
    assert slope.item() == pytest.approx(-value if moves else 0.0, rel=1e-5)
    assert stopped.all() == stopped.any() == (not moves)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "moves"),
    [
        (5.0, -2.0, -6.0, False),  # clipped to c A, with c = 3
        (2.5, -2.0, -5.0, True),
        (0.5, -2.0, -1.6, False),  # by the other clip
        (5.0, 2.0, 2.6, False),
        (0.1, 2.0, 0.2, True),
    ],
)
def test_dual_clip(ratio, advantage, value, moves):
    behavior = jnp.full((1, 1, 1), -9.0)
    run = functools.partial(surrogate, clip_dual=3.0)
    (loss, stopped), slope = jax.value_and_grad(run, has_aux=True)(
        behavior + np.log(ratio), behavior, jnp.full((1, 1), advantage), jnp.ones((1, 1, 1))
    )
    assert loss == pytest.approx(-value, rel=1e-5)
    assert slope.item() == pytest.approx(-ratio * advantage if moves else 0.0, rel=1e-5)
    assert stopped.all() == stopped.any() == (not moves)


@pytest.mark.parametrize("ratio", equations.RATIOS)
def test_dual_clip_bounds_what_a_bad_thought_can_cost(ratio):
    """The loss is bounded even if the ratio overflows; without the dual clip it is infinite."""
    behavior, weights = jnp.array([[[-200.0, -3.0]]]), jnp.array([[[0.25, 0.25]]])
    inputs = (jnp.array([[[-1.0, -2.0]]]), behavior, jnp.array([[-2.0]]), weights)
    loss, _ = surrogate(*inputs, ratio=ratio)
    assert np.isinf(loss)
    run = functools.partial(surrogate, clip_dual=3.0, ratio=ratio)
    (loss, stopped), slope = jax.value_and_grad(run, has_aux=True)(*inputs)
    second = 0.25 * 2 * np.e if ratio == "token" else 0.25 * 2 * 3
    assert loss == pytest.approx(0.25 * 2 * 3 + second, rel=1e-5)
    assert stopped.tolist() == [[[True, ratio == "sequence"]]]
    np.testing.assert_allclose(slope, [[[0, second if ratio == "token" else 0]]], rtol=1e-5)


def test_a_sequence_has_one_ratio():
    """By hand: token ratios 4 and 1/4 are both clipped, but their geometric mean is 1."""
    logprobs = jnp.log(jnp.array([[[0.8, 0.1], [0.8, 0.4]]]))
    behavior = jnp.log(jnp.array([[[0.2, 0.4], [0.2, 0.4]]]))
    weights = jnp.array([[[0.25, 0.25], [0.125, 0.125]]])
    run = functools.partial(surrogate, ratio="sequence")
    (loss, stopped), slope = jax.value_and_grad(run, has_aux=True)(
        logprobs, behavior, jnp.array([[2.0, -2.0]]), weights
    )
    # That of the other thought is sqrt(4 · 1) = 2.
    assert loss == pytest.approx(-0.5 * 2 + 0.25 * 2 * 2, abs=1e-6)
    np.testing.assert_allclose(slope, [[[-0.5, -0.5], [0.5, 0.5]]], rtol=1e-5)
    assert not stopped.any()
    _, stopped = surrogate(logprobs, behavior, jnp.array([[-2.0, 2.0]]), weights, ratio="sequence")
    assert stopped.tolist() == [[[False, False], [True, True]]]


def plain_surrogate(logprobs, behavior, advantages, weights, low, high, dual, ratio):
    """The surrogate in loops, without logarithms: the loss, and whether the gradient of every
    action is not stopped."""
    loss, stopped = 0.0, np.zeros(weights.shape, bool)
    for n, a in np.ndenumerate(advantages):
        live = [u for u in range(weights.shape[-1]) if weights[n][u] > 0]
        differences = [logprobs[n][u] - behavior[n][u] for u in live]
        for u, difference in zip(live, differences, strict=True):
            if ratio == "sequence":
                difference = sum(differences) / len(live)
            rho = np.exp(difference)
            value = min(rho * a, min(max(rho, 1 - low), 1 + high) * a)
            if dual and a < 0:
                value = max(value, dual * a)
            loss -= weights[n][u] * value
            stopped[n][u] = value != rho * a
    return loss, stopped


@pytest.mark.parametrize("dual", [0.0, 1.2, 1.6])  # below and above 1 + epsilon_h
@pytest.mark.parametrize("ratio", equations.RATIOS)
def test_the_surrogate_is_its_equation_in_loops(ratio, dual):
    random = np.random.default_rng(3)
    length, counted = random.integers(1, 6, (3, 8)), random.random((3, 8)) < 0.8
    weights = equations.action_weights(jnp.array(length), jnp.array(counted), 5, "thought")
    behavior = random.normal(-2, 1, (3, 8, 5))
    logprobs = behavior + random.normal(0, 0.7, behavior.shape)
    advantages = random.normal(size=(3, 8))
    inputs = (logprobs, behavior, advantages)
    run = functools.partial(surrogate, clip_dual=dual, ratio=ratio)
    (loss, stopped), slope = jax.value_and_grad(run, has_aux=True)(
        *(jnp.asarray(x, jnp.float32) for x in inputs), weights
    )
    wide = np.asarray(weights, np.float64)
    by_hand = lambda x: plain_surrogate(x, *inputs[1:], wide, 0.2, 0.3, dual, ratio)
    expected, expected_stopped = by_hand(logprobs)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert np.array_equal(stopped, expected_stopped)
    live, slope = wide > 0, np.asarray(slope)
    assert 0.1 < np.asarray(stopped)[live].mean() < 0.9
    for at in np.ndindex(logprobs.shape):
        up, down = logprobs.copy(), logprobs.copy()
        up[at], down[at] = up[at] + 1e-5, down[at] - 1e-5
        difference = (by_hand(up)[0] - by_hand(down)[0]) / 2e-5
        # Sums of float32 numbers below 0.1; the second order of the difference is far below.
        assert slope[at] == pytest.approx(difference, rel=1e-4, abs=1e-7)
        assert live[at] or slope[at] == 0


@functools.cache
def slope_of(**options):
    run = functools.partial(surrogate, **options)
    return jax.jit(jax.value_and_grad(run, has_aux=True))


@settings(deadline=None, max_examples=20)  # the first examples compile
@given(
    st.lists(st.tuples(nats, st.integers(1, 6), st.booleans()), min_size=6, max_size=6),
    st.sampled_from(["thought", "limit", "none"]),
)
def test_on_policy_all_surrogates_have_one_gradient(thoughts, normalization):
    advantages, length, counted = (np.array(x).reshape(2, 3) for x in zip(*thoughts, strict=True))
    weights = equations.action_weights(jnp.asarray(length), counted, 6, normalization)
    logprobs = np.linspace(-3, -1, 36, dtype=np.float32).reshape(2, 3, 6)
    expected = -np.asarray(weights) * advantages[..., None]
    for ratio in equations.RATIOS:
        for dual in (0.0, 1.5):
            run = slope_of(ratio=ratio, clip_dual=dual)
            (_, stopped), slope = run(logprobs, logprobs, advantages.astype(np.float32), weights)
            # Products below 1e-37 are flushed to 0.
            np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-37)
            assert not np.any(stopped)


def test_actions_without_weight_are_nowhere():
    # Dead slots may have any value, even infinity.
    logprobs = jnp.array([[[-1.0, -jnp.inf, 90.0]]])
    behavior = jnp.array([[[-3.0, 0.0, -90.0]]])
    weights = jnp.array([[[1.0, 0.0, 0.0]]])
    for options in ({}, {"ratio": "sequence"}, {"clip_dual": 3.0}):
        run = functools.partial(surrogate, **options)
        (loss, stopped), slope = jax.value_and_grad(run, has_aux=True)(
            logprobs, behavior, jnp.full((1, 1), 2.0), weights
        )
        assert loss == pytest.approx(-2.6)
        assert stopped.sum() == 1  # of the one action that counts
        assert slope.tolist() == [[[0, 0, 0]]]


# ---- advantages of single actions


def test_planning_advantages_by_hand():
    """Planning actions gain more in good responses and lose less in bad ones; others do not
    change."""
    advantages = jnp.array([[2.0, -2.0, 0.0]])
    planning = jnp.array([[[True, False], [True, False], [True, True]]])
    actual = equations.planning_advantages(advantages, planning, 0.25)
    assert actual.tolist() == [[[2.5, 2.0], [-1.5, -2.0], [0, 0]]]
    assert equations.planning_advantages(advantages, planning, 0.0).tolist() == [
        [[2, 2], [-2, -2], [0, 0]]
    ]


@pytest.mark.parametrize("dual", [0.0, 1.2])
def test_advantages_of_actions_that_are_the_same_are_those_of_their_thought(dual):
    random = np.random.default_rng(7)
    behavior, noise, advantages = (
        jnp.asarray(random.normal(size=shape), jnp.float32) for shape in 2 * [(3, 8, 5)] + [(3, 8)]
    )
    length, counted = random.integers(1, 6, (3, 8)), random.random((3, 8)) < 0.8
    weights = equations.action_weights(jnp.array(length), jnp.array(counted), 5, "thought")
    run = jax.value_and_grad(functools.partial(surrogate, clip_dual=dual), has_aux=True)
    wide = jnp.broadcast_to(advantages[..., None], behavior.shape)
    one = run(behavior + 0.7 * noise, behavior, advantages, weights)
    other = run(behavior + 0.7 * noise, behavior, wide, weights)
    (loss, stopped), slope = one
    assert np.asarray(stopped).any()
    assert np.abs(slope).max() > 0
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)


def test_every_action_moves_by_its_own_advantage():
    """By hand, for two thoughts: -w min(rho A, clip(rho) A), with slope -w rho A if not stopped.

    The clip works by the action's own sign: a thought whose actions have both is clipped above
    where A > 0 and below where A < 0."""
    ratios = jnp.array([[[1.0, 1.5, 0.5], [1.5, 0.5, 2.0]]])
    advantages = jnp.array([[[2.0, 3.0, -1.0], [-1.0, 4.0, 0.0]]])
    weights = jnp.array([[[0.1, 0.2, 0.3], [0.4, 0.5, 0.0]]])
    behavior = jnp.full((1, 2, 3), -2.0)
    (loss, stopped), slope = jax.value_and_grad(surrogate, has_aux=True)(
        behavior + jnp.log(ratios), behavior, advantages, weights
    )
    values = [[2.0, 1.3 * 3.0, 0.8 * -1.0], [1.5 * -1.0, 0.5 * 4.0, 0.0]]
    assert loss == pytest.approx(-float(np.sum(np.array(values) * weights[0])), rel=1e-5)
    assert stopped.tolist() == [[[False, True, True], [False, False, False]]]
    expected = [[-0.1 * 2.0, 0, 0], [0.4 * 1.5, -0.5 * 0.5 * 4.0, 0]]
    np.testing.assert_allclose(slope[0], expected, rtol=1e-5)
    on_policy = jax.grad(lambda x: surrogate(x, behavior, advantages, weights)[0])(behavior)
    np.testing.assert_allclose(on_policy, -weights * advantages, rtol=1e-6)


# ---- the KL term


def test_k3_by_hand():
    actual = equations.reference_kl(
        jnp.log(jnp.array([0.5, 0.25, 0.5, 0.125])), jnp.log(jnp.array([0.5, 0.5, 0.25, 0.5])),
        jnp.ones(4, bool),
    )  # fmt: skip
    by_hand = [0, 2 - np.log(2) - 1, 0.5 + np.log(2) - 1, 4 - np.log(4) - 1]
    np.testing.assert_allclose(actual, by_hand, rtol=1e-6)


def test_k3_of_dead_actions_is_nothing():
    # Dead slots may have any value, even infinity.
    policy, reference = jnp.array([-1.0, -jnp.inf, -1e30]), jnp.array([-2.0, -1.0, -1.0])
    live = jnp.array([True, False, False])
    total = lambda *args: equations.reference_kl(*args, live).sum()
    value, (slope, none) = jax.value_and_grad(total, argnums=(0, 1))(policy, reference)
    assert value == pytest.approx(np.exp(-1), rel=1e-6)
    np.testing.assert_allclose(slope, [1 - np.exp(-1), 0, 0], rtol=1e-6)
    assert not none.any()  # the reference carries no gradient


def test_k3_near_the_reference_is_half_a_square():
    # Here exp(r) - r - 1 would be dominated by rounding.
    actual = equations.reference_kl(jnp.array([-1e-3]), jnp.zeros(1), jnp.ones(1, bool))
    assert actual.item() == pytest.approx(1e-6 / 2 + 1e-9 / 6, rel=1e-3)


def test_k3_over_what_the_policy_draws_is_the_divergence():
    """By enumeration; its gradient is that of the reverse divergence."""
    random = np.random.default_rng(1)
    theta, phi = jnp.asarray(random.normal(size=(2, 7)), jnp.float32)
    policy, reference = jax.nn.log_softmax(theta), jax.nn.log_softmax(phi)

    def drawn(theta):  # the probabilities of the samples are constants
        actual = equations.reference_kl(jax.nn.log_softmax(theta), reference, jnp.ones(7, bool))
        return jnp.sum(jnp.exp(policy) * actual)

    kl = lambda p, q: jnp.sum(jnp.exp(p) * (p - q))
    value, slope = jax.value_and_grad(drawn)(theta)
    assert value == pytest.approx(float(kl(policy, reference)), rel=1e-5)
    assert value != pytest.approx(float(kl(reference, policy)), rel=1e-2)
    expected = jax.grad(lambda theta: kl(reference, jax.nn.log_softmax(theta)))(theta)
    np.testing.assert_allclose(slope, expected, atol=1e-6)


def test_ema():
    actual = equations.ema(jnp.array([1.0, 2.0]), jnp.array([3.0, -2.0]), 0.75)
    assert actual.tolist() == [1.5, 1.0]
