"""Rewards and advantages of every objective by hand, and the gradients that they estimate."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlp.engine.advantages import assign_credit
from rlp.objectives import equations, rewards
from rlp.objectives.registry import OBJECTIVES, find
from rlp.runtime.errors import UserError
from tests.support.outcomes import NONE, answers, outcome

exp = math.exp
BY_HAND = {
    "rlp": [1.0, 0.25, -3.5],
    "rpt": [1, 0, 1],
    "latro": [-1.5, -2.25, -6.0],
    "jepo": [-1.5, -2.25, -6.0],
    "verifree": [exp(-1.5), exp(-2.25), exp(-6.0)],
    "rlpr": [
        (exp(-0.5) + exp(-1.0) - exp(-1.0) - exp(-1.5)) / 2,
        (exp(-2.0) + exp(-0.25) - exp(-1.0) - exp(-1.5)) / 2,
        0.0,  # worse than without a thought
    ],
    "nover": [
        -exp(0.75 / 1),
        -exp(1.125 / (1 + math.log(3))),
        -exp(3.0 / (1 + math.log(8))),
    ],
    "rlvr": [1, 0, 0],
    "ttrl": [0, 1, 1],
    "rlcr": [1 - 0.25**2, -(0.5**2), -1],
    "hicra": [1, 0, 0],
    "random_reward": [0.7, 0.1, 0.4],
    "permuted_reward": [0.25, -3.5, 1.0],  # in the order of the uniform numbers
    "shuffled_target": [-1.0, -2.0, -4.0],
    "other_document": [-3.0, -0.5, -2.0],
    "length_reward": [1 / 8, 3 / 8, 1],
    "format_reward": [1, 1, 0],
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_rewards_by_hand(name):
    assert set(BY_HAND) == set(OBJECTIVES)
    actual = OBJECTIVES[name].reward(outcome())
    np.testing.assert_allclose(actual[0, 0], BY_HAND[name], rtol=1e-6)


def test_a_stated_confidence_is_worth_most_where_it_is_true():
    """z - (q - z)²: 1 and -1 at the ends; a response without a confidence has the worst q."""
    stated = [0.0, 0.25, 0.5, 1.0, NONE]
    right = rewards.calibrated(outcome(readings={"answers": answers([1] * 5, confidence=stated)}))
    wrong = rewards.calibrated(outcome(readings={"answers": answers([0] * 5, confidence=stated)}))
    np.testing.assert_allclose(right[0, 0], [0, 0.4375, 0.75, 1, 0], atol=1e-7)
    np.testing.assert_allclose(wrong[0, 0], [0, -0.0625, -0.25, -1, -1], atol=1e-7)
    # If a share p of the answers is correct, q = p has the highest expected reward.
    q = np.linspace(0, 1, 101)
    many = lambda z: rewards.calibrated(
        outcome(readings={"answers": answers([z] * 101, confidence=q)})
    )[0, 0]
    for share in (0.0, 0.2, 0.63, 1.0):
        earned = share * np.asarray(many(1)) + (1 - share) * np.asarray(many(0))
        assert q[earned.argmax()] == pytest.approx(share)


def test_rewards_are_constants_of_the_update():
    for name, objective in OBJECTIVES.items():
        if "baseline" in objective.reads or name == "rlp":
            gain = lambda x, objective=objective: objective.reward(outcome(reasoned=x)).sum()
            assert not jax.grad(gain)(outcome().reasoned).any(), name


def test_thoughts_of_narrow_groups_count_for_nothing():
    """Three groups, whose rewards have standard deviations of 0, 0.3 and 3; the floor is what
    narrows the last one."""
    gains = jnp.array([[[1.0, 1.0, 1.0, 1.0], [0.2, 0.8, 0.8, 0.2], [3.0, -3.0, 3.0, -3.0]]])
    closed = jnp.ones((1, 3, 4), bool)
    given = outcome(reasoned=gains, baseline=jnp.zeros((1, 3)), closed=closed)

    def credit(**limits):
        return assign_credit(find("latro"), given, unclosed="mask", unclosed_penalty=0.0, **limits)

    free = credit()
    assert free.narrow is None
    assert free.counted.all()
    for least, narrow in ((0.2, [1, 0, 0]), (0.31, [1, 1, 0]), (3.1, [1, 1, 1])):
        found = credit(min_reward_std=least)
        assert found.narrow.tolist() == [[bool(x) for x in narrow]]
        kept = ~found.narrow[..., None]
        assert np.array_equal(found.counted, jnp.broadcast_to(kept, (1, 3, 4)))
        assert np.array_equal(found.advantages, jnp.where(kept, free.advantages, 0.0))
        assert np.array_equal(found.target_weights, jnp.where(kept, free.target_weights, 0.0))
    assert credit(min_reward_std=2.0, reward_floor=-0.5).narrow.tolist() == [[True, True, True]]


def test_standardized_advantages_by_hand():
    r = jnp.array([[[1.0, 2.0, 6.0, 50.0]]])
    counted = jnp.array([[[True, True, True, False]]])
    actual = equations.standardized_advantages(r, counted)[0, 0]
    deviation = math.sqrt((4 + 1 + 9) / 3)
    np.testing.assert_allclose(
        actual, [-2 / deviation, -1 / deviation, 3 / deviation, 0], rtol=1e-6
    )
    same = jnp.full((1, 1, 4), 0.1)
    assert not equations.standardized_advantages(same, counted).any()  # not a ratio of rounding


def test_jensen_advantages_by_hand():
    p = np.array([0.5, 0.1, 0.2])
    counted = jnp.array([[[True, True, True, False]]])
    actual = equations.jensen_advantages(jnp.log(jnp.array([[[*p, 0.9]]])), counted)[0, 0]
    expected = [3 * (math.log(p.mean()) - math.log(np.delete(p, i).mean())) for i in range(3)]
    np.testing.assert_allclose(actual, [*expected, 0], rtol=1e-5)
    lone = jnp.array([[[True, False, False, False]]])
    assert not equations.jensen_advantages(jnp.zeros((1, 1, 4)), lone).any()


def test_the_target_is_learnt_by_weights():
    counted = jnp.array([[[True, True, False]]])
    p = np.exp([-1.5, -2.25])
    weights = lambda name: OBJECTIVES[name].target_weights(outcome(), counted)[0, 0]
    np.testing.assert_allclose(weights("latro"), [1, 1, 0])
    np.testing.assert_allclose(weights("verifree"), [*p, 0], rtol=1e-6)
    np.testing.assert_allclose(weights("jepo"), [*(2 * p / p.sum()), 0], rtol=1e-6)


# The quantity that a likelihood objective maximizes, of a group's log p(y|c_i).
MAXIMISED = {
    "latro": lambda logp: logp.mean(),
    "verifree": lambda logp: jnp.exp(logp).mean(),
    "jepo": lambda logp: jax.nn.logsumexp(logp) - math.log(len(logp)),
}


@pytest.mark.parametrize("name", MAXIMISED)
def test_the_estimate_is_the_gradient_over_all_groups(name):
    """Four thoughts with probabilities softmax(a), p(y|c) = sigmoid(b_c): over all 64 groups of
    three, the mean of A log pi + w log p has the gradient of the mean of the objective."""
    random = np.random.default_rng(0)
    a, b = (jnp.asarray(random.normal(size=4), jnp.float32) for _ in range(2))
    groups = jnp.array(list(itertools.product(range(4), repeat=3)))
    share = lambda a: jnp.exp(jax.nn.log_softmax(a)[groups].sum(axis=1))
    logp = lambda b: jax.nn.log_sigmoid(b)[groups]

    def exact(a, b):
        return share(a) @ jax.vmap(MAXIMISED[name])(logp(b))

    objective, counted = OBJECTIVES[name], jnp.ones((1, 64, 3), bool)
    actual = outcome(reasoned=logp(b)[None], baseline=jnp.zeros((1, 64)))
    advantages = objective.advantages(objective.reward(actual), counted)[0]
    weights = objective.target_weights(actual, counted)[0]

    def estimated(x, y):
        terms = advantages * jax.nn.log_softmax(x)[groups] + weights * logp(y)
        return share(a) @ terms.mean(axis=1)

    expected = jax.grad(exact, argnums=(0, 1))(a, b)
    for x, y in zip(jax.grad(estimated, argnums=(0, 1))(a, b), expected, strict=True):
        assert np.abs(y).max() > 0.01
        np.testing.assert_allclose(x, y, atol=1e-6)


def test_an_objective_of_ones_own_is_found_by_its_module(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(
        "from rlp.objectives import Objective\n"
        "MINE = Objective(formula='r = L', source='mine', reward=lambda outcome: outcome.limit)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert find("my_rewards:MINE").reward(outcome()) == 8


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rpl", "objective='rpl' is unknown; use one of next_token, rlp, rpt"),
        ("rlp.nowhere:X", "cannot be imported: No module named 'rlp.nowhere'"),
        ("rlp.objectives:NONE", "cannot be imported"),
        ("rlp.objectives:equations", "is not a rlp.objectives.Objective"),
    ],
)
def test_what_is_no_objective_is_refused(name, said):
    with pytest.raises(UserError, match=said):
        find(name)


def test_nobody_reads_what_he_does_not_declare():
    """An outcome has only the readings that the objective declares."""
    for name, objective in OBJECTIVES.items():
        everything = outcome().readings
        declared = {key: everything[key] for key in objective.reads if key in everything}
        assert objective.reward(outcome(readings=declared)).shape == (1, 1, 3), name
        for left_out in declared:
            less = {key: value for key, value in declared.items() if key != left_out}
            with pytest.raises(UserError) as refused:
                objective.reward(outcome(readings=less, objective=name))
            assert f"objective={name!r} reads outcome.{left_out}" in str(refused.value)
            assert f'reads=("{left_out}",)' in str(refused.value)


def test_a_field_that_is_misspelt_is_named():
    with pytest.raises(UserError, match=r"did you mean outcome\.length\?"):
        outcome().lenght  # noqa: B018
