"""The paper's propositions and the policy gradient, for a model whose thoughts can be enumerated.

Three words and the closing tag, at most three actions: 3 + 9 + 27 = 39 thoughts. Their
probabilities and evidence are computed one by one on naive rows; the code under test samples,
scores and differentiates.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.transformer import bind
from rlp.engine.branches import document_trunk
from rlp.engine.scoring import document_scores
from rlp.objectives import equations
from tests.support import naive, tiny
from tests.support.tiny import BOS, CLOSE

CONFIG = tiny.model_config(vocab_size=9)
WORDS = tiny.words(CONFIG, used=8)
TOKENS = (5, 6, 7)  # words, of documents and of thoughts
LIMIT = 3
PARAMS = tiny.params(CONFIG, 2)
PHI = tiny.params(CONFIG, 3)
TEXT = [BOS, 5, 7, 7, 6, 5]
FORK = 4
SETTINGS = tiny.rlp_settings(
    group_size=4, forks_per_document=1, thought_length=LIMIT, horizon=1, positions="given",
    temperature=0.8,
)  # fmt: skip
KEY = jax.random.key(11)


def every_thought() -> list[list[int]]:
    """Return all thoughts that can be sampled: words until the closing tag or the limit."""
    closed = [
        [*line, CLOSE] for n in range(1, LIMIT) for line in itertools.product(TOKENS, repeat=n)
    ]
    return closed + [list(line) for line in itertools.product(TOKENS, repeat=LIMIT)]


def copies(text: list[int], count: int, first_index: int = 0, fork: int = FORK):
    """Return the same document as several records of a stream."""
    one = tiny.documents(0, [len(text)], len(text), 8)
    many = jax.tree.map(lambda x: np.repeat(np.asarray(x), count, axis=0), one)
    return many.replace(
        tokens=np.repeat(np.array([text], np.int32), count, axis=0),
        forks=np.full((count, 1), fork, np.int32),
        index=np.arange(first_index, first_index + count, dtype=np.int32),
    )


def written(text=TEXT, fork=FORK, thoughts=None) -> naive.Rows:
    thoughts = every_thought() if thoughts is None else thoughts
    rows = [naive.Branch(text, fork, thought, 1) for thought in thoughts]
    return naive.write_out(rows, WORDS, LIMIT, 12)


def log_policy(params, rows, temperature=SETTINGS.temperature):
    """log pi(c) of every row's thought."""
    return naive.action_logprobs(params, rows, CONFIG, WORDS, temperature).sum(axis=1)


def traced_log_policy(params, rows):
    """Compute `log_policy` inside a compiled function, to be differentiated."""
    return naive.traced_action_logprobs(params, rows, CONFIG, WORDS, SETTINGS.temperature).sum(
        axis=1
    )


def shares(params, rows) -> np.ndarray:
    """pi(c) of every row's thought."""
    return np.exp(np.asarray(log_policy(params, rows), np.float64))


def tables(params, tokens, length) -> np.ndarray:
    """log p(· | prefix) at every position, [R, S, V] nats."""
    found = naive.predictions(params, tokens, length, config=CONFIG, banned=WORDS.not_in_documents)
    return np.asarray(found, np.float64)


def predictions(params, rows) -> np.ndarray:
    """log p(· | x_<t, c) of every row, [R, V] nats."""
    found = tables(params, rows.tokens, rows.length)
    return found[np.arange(len(found)), rows.target_at[:, 0] - 1]


def without_thought(params, text: list[int], fork: int) -> np.ndarray:
    """log p(· | x_<t), [V] nats."""
    return tables(params, np.array([text]), np.array([len(text)]))[0, fork - 1]


def stages(batch, params=PARAMS, phi=PHI, settings=SETTINGS, at_step=0):
    rollout_stage = tiny.rollout_stage(CONFIG, settings, WORDS)
    rollout, reading = rollout_stage(params, params, batch, KEY, jnp.int32(at_step))
    evidence = tiny.evidence_stage(CONFIG, settings, WORDS)(params, phi, batch, rollout, reading)
    return rollout, evidence


def test_every_thought_is_listed():
    thoughts = every_thought()
    assert len(thoughts) == 3 + 9 + 27
    share = shares(PARAMS, written())
    assert share.sum() == pytest.approx(1, abs=1e-5)
    rollout, _ = stages(copies(TEXT, 64))
    t = rollout.thoughts
    for b, g in np.ndindex(64, 4):
        assert np.asarray(t.actions[b, g, : t.length[b, g]]).tolist() in thoughts


def test_the_kl_term_is_the_divergence_of_whole_thoughts():
    """Over all thoughts, the sum of k3 is the mean of log pi - log pi_ref, token by token."""
    rows = written()
    scored = lambda params: naive.action_logprobs(params, rows, CONFIG, WORDS, SETTINGS.temperature)
    k3 = equations.reference_kl(scored(PARAMS), scored(PHI), jnp.asarray(rows.action_at) > 0)
    share = shares(PARAMS, rows)
    divergence = share @ np.asarray(log_policy(PARAMS, rows) - log_policy(PHI, rows))
    assert divergence > 0.1
    assert share @ np.asarray(k3).sum(axis=1) == pytest.approx(divergence, rel=1e-4)


def test_proposition_1():
    """Over the data, the expected reward of a thought is CE(p*, p_phi) - CE(p*, p_theta(.|c))."""
    share = dict(zip([*TOKENS, tiny.EOS], [0.5, 0.1, 0.15, 0.25], strict=True))  # p*
    texts = [[*TEXT[:FORK], token] for token in share]
    batch = jax.tree.map(lambda *x: np.concatenate(x), *(copies(text, 1, 77) for text in texts))
    rollout, evidence = stages(batch)
    actions = np.asarray(rollout.thoughts.actions)
    assert (actions == actions[:1]).all()  # thoughts do not see the target
    expected_reward = np.tensordot(list(share.values()), np.asarray(evidence.rewards)[:, 0], axes=1)

    length = np.asarray(rollout.thoughts.length)[0]
    thoughts = [actions[0, g, : length[g]].tolist() for g in range(4)]
    entropy = lambda logp: -sum(p * logp[..., token] for token, p in share.items())
    with_thought = entropy(predictions(PARAMS, written(texts[0], FORK, thoughts)))
    baseline = entropy(without_thought(PHI, texts[0], FORK))
    assert np.ptp(with_thought) > 0.01
    np.testing.assert_allclose(expected_reward, baseline - with_thought, atol=2e-5)


def test_proposition_2():
    """The mean evidence is at most the log of the mean probability (Jensen)."""
    rows = written()
    share = shares(PARAMS, rows)
    evidence = predictions(PARAMS, rows)[np.arange(39), rows.target[:, 0]]
    mean, marginal = share @ evidence, np.log(share @ np.exp(evidence))
    assert mean < marginal - 0.01
    # The mean reward that training reports is this lower bound, within its standard error.
    _, found = stages(copies(TEXT, 512))
    sampled = np.asarray(found.reasoned, np.float64).ravel()
    error = sampled.std() / len(sampled) ** 0.5
    assert abs(sampled.mean() - mean) < 4 * error
    baseline = without_thought(PHI, TEXT, FORK)[TEXT[FORK]]
    reward = np.asarray(found.rewards, np.float64).mean()
    assert reward == pytest.approx(sampled.mean() - baseline, abs=1e-4)
    assert reward < marginal - baseline


def test_proposition_2_is_tight_when_thoughts_do_not_matter():
    # Without attention the token after the closing tag cannot depend on what was thought.
    deaf = jax.tree.map(lambda x: x, PARAMS)
    o = deaf["blocks"]["attention"]["o"]
    deaf["blocks"]["attention"]["o"] = jax.tree.map(jnp.zeros_like, o)
    rows = written()
    share = shares(deaf, rows)
    evidence = predictions(deaf, rows)[np.arange(39), rows.target[:, 0]]
    assert share @ evidence == pytest.approx(np.log(share @ np.exp(evidence)), abs=1e-6)
    _, found = stages(copies(TEXT, 512), params=deaf)
    assert np.ptp(found.reasoned) < 1e-5
    assert np.abs(found.advantages).max() < 1e-5  # and nothing is learned


def test_proposition_3():
    """Averaged over positions, the expected reward is the cross-entropy improvement per token.

    Over all 27 texts of three words after <bos>, with a random p*. The baseline side is the
    next-token loss on the texts; the thinking side enumerates all thoughts.
    """
    random = np.random.default_rng(0)
    texts = [[BOS, *line] for line in itertools.product(TOKENS, repeat=3)]
    p_star = random.dirichlet(np.ones(27))
    forks = (1, 2, 3)
    settings = dataclasses.replace(SETTINGS, forks_per_document=3, group_size=8)
    every = jax.tree.map(
        lambda *x: np.concatenate(x), *(copies(t, 1, i) for i, t in enumerate(texts))
    )
    every = every.replace(forks=np.tile(np.array(forks, np.int32), (27, 1)))

    def loss(params):
        scores = document_scores(bind(CONFIG, params), document_trunk(every), WORDS)
        return -scores.logprob.sum(axis=-1) / 3

    baseline = p_star @ np.asarray(tiny.jit(loss)(PHI), np.float64)
    rollout_evidence = [stages(every, settings=settings, at_step=i)[1] for i in range(30)]
    rewards = np.stack([e.rewards for e in rollout_evidence]).astype(np.float64)  # [M, 27, 3, 8]
    listed = [naive.Branch(t, f, c, 1) for t in texts for f in forks for c in every_thought()]
    rows = naive.write_out(listed, WORDS, LIMIT, 12)
    share = shares(PARAMS, rows).reshape(27, 3, 39)
    evidence = predictions(PARAMS, rows)[np.arange(len(listed)), rows.target[:, 0]]
    expected_evidence = (share * evidence.reshape(27, 3, 39)).sum(axis=-1)
    thinking = -p_star @ expected_evidence.mean(axis=-1)
    by_position = rewards.mean(axis=(0, 3))
    # Exactly: enumerated evidence minus the baseline evidence that the code under test reports.
    reported = np.asarray(rollout_evidence[0].baseline, np.float64)  # [27, 3]
    exact = p_star @ (expected_evidence - reported).mean(axis=-1)
    assert exact == pytest.approx(baseline - thinking, abs=1e-5)
    # And the mean reward of sampled thoughts, within its standard error.
    sampled = p_star @ by_position.mean(axis=-1)
    variance = rewards.var(axis=(0, 3)) / (30 * 8)
    error = np.sqrt((p_star[:, None] ** 2 * variance / 9).sum())
    assert abs(sampled - exact) < 4 * error
    assert error < 0.05


# ---- the gradient


@functools.cache
def enumerated_gradient(normalization: str):
    """Compute the expectation of eq. 5 over groups: -sum_c p(c) w(c) (r(c) - E r) grad log p(c).

    Leave-one-out is unbiased: the other thoughts of a group are independent of this one, and their
    mean reward is E r. With w = 1/|c| the term with E r does not vanish, since 1/|c| depends on c.
    With w = 1/L it vanishes, and the result is the gradient of -E r / L.
    """
    rows = written()
    length = (rows.action_at > 0).sum(axis=1)
    divisor = length if normalization == "thought" else np.full_like(length, LIMIT)
    reward = predictions(PARAMS, rows)[np.arange(39), rows.target[:, 0]]

    @tiny.jit
    @jax.grad
    def gradient(params):
        logp = traced_log_policy(params, rows)
        share = jax.lax.stop_gradient(jnp.exp(logp))
        centred = jnp.asarray(reward, jnp.float32) - share @ jnp.asarray(reward, jnp.float32)
        return -jnp.sum(share * centred / divisor * logp)

    return gradient(PARAMS)


def test_enumeration_is_the_gradient_of_the_mean_reward():
    # With w = 1/L: -grad E[r] / L, from the sum over thoughts with r held constant.
    rows = written()
    reward = jnp.asarray(predictions(PARAMS, rows)[np.arange(39), rows.target[:, 0]], jnp.float32)
    objective = lambda params: -jnp.exp(traced_log_policy(params, rows)) @ reward / LIMIT
    direct = tiny.jit(jax.grad(objective))(PARAMS)
    assert tiny.relative_error(enumerated_gradient("limit"), direct) < 1e-3


@pytest.mark.parametrize("normalization", ["thought", "limit"])
def test_monte_carlo_gradient_is_the_exact_one(normalization):
    settings = dataclasses.replace(SETTINGS, length_normalization=normalization)
    exact = enumerated_gradient(normalization)
    names = jax.tree.leaves(exact)
    norm = float(np.sqrt(sum(float(jnp.sum(x**2)) for x in names)))
    random = np.random.default_rng(1)
    # Directions: the exact gradient, scaled so that the expected value is 1, and random ones.
    noise = [
        [
            random.normal(size=x.shape).astype(np.float32) * float(jnp.linalg.norm(x.ravel()))
            for x in names
        ]
        for _ in range(6)
    ]
    directions = [[np.asarray(x) / norm**2 for x in names], *noise]
    project = tiny.jit(
        lambda tree: jnp.stack(
            [
                sum(jnp.vdot(x, d) for x, d in zip(jax.tree.leaves(tree), way, strict=True))
                for way in directions
            ]
        )
    )
    gradient = tiny.policy_gradient(CONFIG, settings, WORDS)
    found = []
    for i in range(60):
        # The rollout and evidence do not depend on the normalization.
        rollout, evidence = stages(copies(TEXT, 64, 64 * i), at_step=i)
        _, sampled = gradient(
            PARAMS, rollout, *map(tiny.flat, (evidence.advantages, evidence.counted))
        )
        found.append(np.asarray(project(sampled), np.float64))
    found = np.array(found)
    error = found.std(axis=0, ddof=1) / len(found) ** 0.5
    right = np.asarray(project(exact), np.float64)
    assert right[0] == pytest.approx(1, abs=1e-4)
    assert (np.abs(found.mean(axis=0) - right) < 4 * error).all()
    assert error[0] < 0.05  # a gradient that is off by a quarter would fail


def test_a_random_reward_has_no_gradient_in_the_mean():
    """With random rewards, the mean gradient over draws is 0 in any direction, within its standard
    error; with the gain of the same thoughts it is not."""
    settings = dataclasses.replace(SETTINGS, objective="random_reward")
    gradient = tiny.policy_gradient(CONFIG, SETTINGS, WORDS)
    random = np.random.default_rng(2)
    directions = [random.normal(size=x.shape).astype(np.float32) for x in jax.tree.leaves(PARAMS)]
    exact = jax.tree.leaves(enumerated_gradient("thought"))
    found: dict[str, list] = {"random_reward": [], "rlp": []}
    for i in range(40):
        rollout, evidence = stages(copies(TEXT, 32, 32 * i), settings=settings, at_step=i)
        gains = equations.group_advantages(evidence.gain, evidence.counted)
        for name, advantages in (("random_reward", evidence.advantages), ("rlp", gains)):
            _, sampled = gradient(PARAMS, rollout, *map(tiny.flat, (advantages, evidence.counted)))
            leaves = jax.tree.leaves(sampled)
            along = [np.vdot(x, d) for x, d in zip(leaves, directions, strict=True)]
            norm = [np.vdot(x, y) for x, y in zip(leaves, exact, strict=True)]
            found[name].append([sum(along), sum(norm)])
    error = lambda x: np.std(x, axis=0, ddof=1) / len(x) ** 0.5
    mean = np.mean(found["random_reward"], axis=0)
    assert (np.abs(mean) < 4 * error(found["random_reward"])).all()
    assert np.mean(found["rlp"], axis=0)[1] > 8 * error(found["rlp"])[1]


def test_advantages_are_leave_one_out():
    _, evidence = stages(copies(TEXT, 16))
    for group, found in zip(evidence.rewards[:, 0], evidence.advantages[:, 0], strict=True):
        expected = naive.leave_one_out(np.asarray(group, np.float64).tolist(), [True] * 4)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_step_raises_the_exact_mean_reward():
    """One small step along the computed gradient; the reward is then enumerated, not sampled."""
    rollout, evidence = stages(copies(TEXT, 64))
    gradient = tiny.policy_gradient(CONFIG, SETTINGS, WORDS)
    _, g = gradient(PARAMS, rollout, *map(tiny.flat, (evidence.advantages, evidence.counted)))
    moved = jax.tree.map(lambda p, d: p - 0.02 * d, PARAMS, g)
    rows = written()
    reward = predictions(PARAMS, rows)[np.arange(39), rows.target[:, 0]]
    mean = lambda params: shares(params, rows) @ reward
    assert mean(moved) > mean(PARAMS) + 1e-4
