"""The stages of a step equal eq. 1 to 5 on rows that repeat the prefix."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import backend
from models.tree import Trunk
from rlp.engine import step
from rlp.engine.branches import Thoughts, lay_out
from rlp.engine.rollout import Rollout
from rlp.engine.rollout_metrics import rollout_metrics
from tests.support import naive, tiny
from tests.support.step import BATCH, CONFIG, KEY, PARAMS, PHI, SETTINGS, WORDS, run
from tests.support.tiny import CLOSE, PAD

WIDTH = 30  # tokens of a naive row
MASKED = tiny.rlp_settings(
    unclosed="mask",
    prompt=(14, 5, 16),
    temperature=1.3,
    horizon_weighting="discount",
    length_normalization="limit",
)

LONG = {"group_size": 6, "thought_length": 6}

# Tags of several tokens are likely under these parameters.
VARIANTS = {
    "append": (SETTINGS, WORDS),
    "mask": (MASKED, WORDS),
    "penalty": (
        tiny.rlp_settings(
            unclosed="penalty",
            group_size=8,
            forks_per_document=1,
            positions="given",
            temperature=0.7,
            horizon_weighting="mean",
        ),
        WORDS,
    ),
    "tags of two": (
        dataclasses.replace(SETTINGS, **LONG),
        tiny.words(CONFIG, think_open=(7, 8), think_close=(4, 4)),
    ),
    "tags of one and three": (
        dataclasses.replace(MASKED, temperature=0.4, **LONG),
        tiny.words(CONFIG, think_close=(13, 13, 13)),
    ),
}


def naive_branches(settings, batch, thoughts: Thoughts, forks) -> list[naive.Branch]:
    thoughts = jax.tree.map(np.asarray, thoughts)
    return [
        naive.Branch(
            batch.tokens[b].tolist(),
            int(forks.position[b, n // settings.group_size]),
            thoughts.actions[b, n, : thoughts.length[b, n]].tolist(),
            settings.horizon,
        )
        for b, n in np.ndindex(*thoughts.length.shape)
    ]


def naive_loss_and_gradient(settings, words, rows, behavior, advantages, counted):
    acted = (rows.action_at > 0).sum(axis=1)
    limit = np.full_like(acted, settings.thought_length)
    return naive.surrogate(
        PARAMS,
        rows,
        jnp.asarray(behavior, jnp.float32).reshape(rows.action.shape),
        jnp.asarray(advantages, jnp.float32).ravel(),
        jnp.asarray(counted).ravel(),
        acted if settings.length_normalization == "thought" else limit,
        config=CONFIG,
        vocabulary=words,
        temperature=settings.temperature,
        clip=(settings.clip_low, settings.clip_high, settings.clip_dual),
        sequence=settings.ratio == "sequence",
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "tags of one and three" else name
        for name in VARIANTS
    ],
)
def test_a_step_is_its_equations_on_repeated_prefixes(name):
    settings, words = VARIANTS[name]
    batch = BATCH.replace(forks=BATCH.forks[:, : settings.forks_per_document])
    rollout, forks, evidence = run(settings, PHI, batch, words)
    closed = np.asarray(rollout.thoughts.closed).ravel()
    assert 0 < closed.mean() < 1

    # Evidence and reward, branch by branch.
    branches = naive_branches(settings, batch, rollout.thoughts, forks)
    rows = naive.write_out(branches, words, settings.thought_length, WIDTH, settings.prompt)
    with_thought = naive.target_logprobs(PARAMS, rows, config=CONFIG, vocabulary=words)
    without = naive.document_logprobs(PHI, batch.tokens, config=CONFIG, vocabulary=words)
    baseline = [
        np.asarray(without)[r // (len(branches) // 4), b.fork - 1 : b.fork - 1 + settings.horizon]
        for r, b in enumerate(branches)
    ]
    h = np.arange(settings.horizon)
    weights = {"sum": 1.0**h, "mean": 1.0**h / len(h), "discount": settings.discount**h}
    rewards = naive.rewards(
        np.asarray(with_thought),
        np.array(baseline),
        closed,
        weights[settings.horizon_weighting].tolist(),
        settings.unclosed_penalty if settings.unclosed == "penalty" else 0.0,
    )
    np.testing.assert_allclose(np.ravel(evidence.rewards), rewards, atol=2e-5)

    # Advantages, group by group.
    counted = closed if settings.unclosed == "mask" else np.ones_like(closed)
    groups = lambda x: np.reshape(x, (-1, settings.group_size)).tolist()
    advantages = [
        a
        for group in zip(groups(rewards), groups(counted), strict=True)
        for a in naive.leave_one_out(*group)
    ]
    np.testing.assert_allclose(np.ravel(evidence.advantages), advantages, atol=5e-5)
    assert np.any(advantages)
    assert np.array_equal(np.ravel(evidence.counted), counted)

    # Loss and gradient, from the same advantages.
    (loss, metrics), gradient = tiny.policy_gradient(CONFIG, settings, words)(
        PARAMS, rollout, tiny.flat(evidence.advantages), tiny.flat(evidence.counted)
    )
    expected, expected_gradient = naive_loss_and_gradient(
        settings, words, rows, rollout.thoughts.logprobs, evidence.advantages, counted
    )
    # On policy, the loss is a sum of advantages that nearly cancel, with the rounding of its terms.
    scale = np.abs(advantages).mean()
    assert loss == pytest.approx(float(expected), rel=1e-5, abs=1e-5 * scale)
    assert tiny.relative_error(gradient, expected_gradient) < 1e-5
    assert metrics["clip_fraction"] == 0
    assert metrics["logprob_gap"] < 1e-5


@functools.cache
def referred(name):
    """Return log pi_ref of the actions of a variant's rollout, for two references."""
    settings, words = VARIANTS[name]
    batch = BATCH.replace(forks=BATCH.forks[:, : settings.forks_per_document])
    rollout, forks, evidence = run(settings, PHI, batch, words)
    stage = tiny.jit(functools.partial(step.reference_stage, CONFIG, settings, words))
    bare = dataclasses.replace(rollout.without_cache(), decoded=None)
    return rollout, forks, evidence, stage(PHI, bare), stage(PARAMS, bare)


@pytest.mark.parametrize("name", ["mask", pytest.param("tags of two", marks=pytest.mark.slow)])
def test_the_kl_term_is_its_equation_on_repeated_prefixes(name):
    settings, words = VARIANTS[name]
    rollout, forks, evidence, reference, at_start = referred(name)
    branches = naive_branches(settings, BATCH, rollout.thoughts, forks)
    rows = naive.write_out(branches, words, settings.thought_length, WIDTH, settings.prompt)
    expected = naive.action_logprobs(PHI, rows, CONFIG, words, settings.temperature)
    live = np.reshape(rows.action_at > 0, reference.shape)
    np.testing.assert_allclose(reference, np.reshape(expected, reference.shape), atol=2e-5)
    assert not live.all()

    weight, counted = 0.3, tiny.flat(evidence.counted)
    inputs = (PARAMS, rollout, tiny.flat(evidence.advantages), counted)
    weighted = tiny.policy_gradient(CONFIG, dataclasses.replace(settings, kl_weight=weight), words)
    (bare, bare_metrics), bare_gradient = tiny.policy_gradient(CONFIG, settings, words)(*inputs)
    (loss, metrics), gradient = weighted(*inputs, reference)
    acted = (rows.action_at > 0).sum(axis=1)
    limit = np.full_like(acted, settings.thought_length)
    term, slope = naive.kl_term(
        PARAMS, rows, expected, jnp.ravel(counted),
        acted if settings.length_normalization == "thought" else limit,
        config=CONFIG, vocabulary=words, temperature=settings.temperature,
    )  # fmt: skip
    assert loss == pytest.approx(float(bare + weight * term), rel=1e-5)
    whole = jax.tree.map(lambda g, d: g + weight * d, bare_gradient, slope)
    assert tiny.relative_error(gradient, whole) < 1e-5
    assert tiny.relative_error(gradient, bare_gradient) > 0.1

    # The metric is the mean over all actions, also of thoughts that are not in the loss.
    r = np.asarray(
        expected - naive.action_logprobs(PARAMS, rows, CONFIG, words, settings.temperature)
    )
    k3 = (np.exp(r) - r - 1)[rows.action_at > 0]
    assert metrics["kl"] == pytest.approx(k3.mean(), rel=1e-5)
    assert metrics.keys() - bare_metrics.keys() == {"kl"}

    # At the start, the reference is the policy, and the KL term is 0.
    (loss, metrics), gradient = weighted(*inputs, at_start)
    assert 0 <= metrics["kl"] < 1e-10
    assert loss == pytest.approx(float(bare), abs=1e-9)
    assert tiny.relative_error(gradient, bare_gradient) < 1e-5


@pytest.mark.parametrize("name", ["mask", pytest.param("tags of two", marks=pytest.mark.slow)])
def test_a_learnt_target_is_its_likelihood_on_repeated_prefixes(name):
    """VeriFree's weights plus lambda, after thoughts with a sampled or an appended tag."""
    settings, words = VARIANTS[name]
    settings = dataclasses.replace(settings, objective="verifree", target_weight=0.25)
    rollout, forks, evidence = run(settings, PHI, BATCH, words)
    rows = naive.write_out(
        naive_branches(settings, BATCH, rollout.thoughts, forks),
        words, settings.thought_length, WIDTH, settings.prompt,
    )  # fmt: skip
    h = np.arange(settings.horizon)
    horizon = settings.discount**h if settings.horizon_weighting == "discount" else 1.0**h
    logprobs = naive.target_logprobs(PARAMS, rows, config=CONFIG, vocabulary=words)
    counted = np.ravel(evidence.counted)
    weights = np.where(counted, np.exp(np.asarray(logprobs) @ horizon) + 0.25, 0.0)
    np.testing.assert_allclose(np.ravel(evidence.target_weights), weights, rtol=1e-4, atol=1e-7)

    inputs = (PARAMS, rollout, tiny.flat(evidence.advantages), tiny.flat(evidence.counted))
    gradient_of = tiny.policy_gradient(CONFIG, VARIANTS[name][0], words)
    (bare, bare_metrics), bare_gradient = gradient_of(*inputs)
    (loss, metrics), gradient = gradient_of(*inputs, None, tiny.flat(evidence.target_weights))
    term, slope = naive.target_term(
        PARAMS, rows, jnp.ravel(evidence.target_weights), jnp.asarray(horizon, jnp.float32),
        config=CONFIG, vocabulary=words,
    )  # fmt: skip
    assert loss == pytest.approx(float(bare + term), rel=1e-5)
    whole = jax.tree.map(jnp.add, bare_gradient, slope)
    assert tiny.relative_error(gradient, whole) < 1e-5
    assert tiny.relative_error(gradient, bare_gradient) > 0.1
    assert metrics["target_loss"] == pytest.approx(-np.asarray(logprobs).mean(), rel=1e-5)
    assert metrics.keys() - bare_metrics.keys() == {"target_loss"}


def random_forest(seed: int):
    """Two documents and padding in every row; arbitrary thoughts fork from both."""
    random = np.random.default_rng(seed)
    limit, horizon, count = SETTINGS.thought_length, SETTINGS.horizon, 8
    rows, length = 4, 16
    tokens = np.full((rows, length), PAD, np.int32)
    segment, position = np.zeros_like(tokens), np.zeros_like(tokens)
    fork, document = np.zeros((rows, count), np.int32), np.zeros((rows, count), np.int32)
    target = np.zeros((rows, count, horizon), np.int32)
    actions = np.full((rows, count, limit), PAD, np.int32)
    thought_length = np.zeros((rows, count), np.int32)
    branches = []
    for row in range(rows):
        texts, start = {}, 0
        for number in (1, 2):
            size = int(random.integers(horizon + 1, 9))
            text = random.integers(tiny.FIRST_WORD, 22, size)
            place = slice(start, start + size)
            tokens[row, place], segment[row, place] = text, number
            position[row, place] = np.arange(size)
            texts[number] = text.tolist()
            start += size
        for n in range(count):
            number = int(random.integers(1, 3))
            t = int(random.integers(1, len(texts[number]) - horizon + 1))
            words = random.integers(
                tiny.FIRST_WORD, 22, int(random.integers(1, limit + 1))
            ).tolist()
            thought = words if len(words) == limit else [*words, CLOSE]
            fork[row, n], document[row, n] = t, number
            target[row, n] = texts[number][t : t + horizon]
            actions[row, n, : len(thought)], thought_length[row, n] = thought, len(thought)
            branches.append(naive.Branch(texts[number], t, thought, horizon))
    written = naive.write_out(branches, WORDS, limit, WIDTH)
    exact = naive.action_logprobs(PARAMS, written, config=CONFIG, vocabulary=WORDS, temperature=1.0)
    # An older policy, with ratios from 0.6 to 1.6, of which the clip stops some.
    behavior = np.where(
        written.action_at > 0, np.asarray(exact) + random.uniform(-0.5, 0.5, exact.shape), 0.0
    ).astype(np.float32)
    closed = np.take_along_axis(actions, thought_length[..., None] - 1, axis=-1)[..., 0] == CLOSE
    thoughts = Thoughts(actions, thought_length, closed, behavior.reshape(actions.shape))
    trunk = Trunk(tokens, segment, position)
    trunk, thoughts = jax.tree.map(jnp.asarray, (trunk, thoughts))
    laid_out = lay_out(thoughts, *map(jnp.asarray, (target, fork, document)), WORDS)
    advantages = random.normal(size=(rows, count)).astype(np.float32)
    counted = random.random((rows, count)) < 0.8
    present = jnp.ones(target.shape, bool)
    rollout = Rollout(trunk, laid_out, None, thoughts, jnp.asarray(target), present, None)  # type: ignore[arg-type]
    return rollout, written, advantages, counted


SEQUENCES = tiny.rlp_settings(ratio="sequence", clip_low=0.05, clip_high=0.1, clip_dual=1.15)


def assert_packed_is_repeated(settings, seed, policy_gradient):
    rollout, rows, advantages, counted = random_forest(seed)
    (loss, metrics), gradient = policy_gradient(PARAMS, rollout, advantages, counted)
    expected, expected_gradient = naive_loss_and_gradient(
        settings, WORDS, rows, rollout.thoughts.logprobs, advantages, counted
    )
    assert loss == pytest.approx(float(expected), rel=1e-5, abs=1e-6)
    assert tiny.relative_error(gradient, expected_gradient) < 1e-5
    assert 0 < metrics["clip_fraction"] < 1


@pytest.mark.parametrize(
    ("settings", "seed"), [*((SETTINGS, seed) for seed in range(8)), (SEQUENCES, 0)]
)
def test_packed_documents_and_branches_are_repeated_prefixes(settings, seed):
    assert_packed_is_repeated(settings, seed, tiny.policy_gradient(CONFIG, settings, WORDS))


def test_so_are_documents_and_branches_in_one_pass_over_scanned_layers(monkeypatch):
    monkeypatch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, unrolled_layers=0))
    scanned = tiny.policy_gradient.__wrapped__(CONFIG, SETTINGS, WORDS)  # compiled for this test
    for seed in range(8):
        assert_packed_is_repeated(SETTINGS, seed, scanned)


def test_no_baseline_changes_the_gradient():
    """S_ema is the same for all thoughts of a group, so it cancels: any phi, noise, or none."""
    noise = jax.tree.map(lambda x: 3 * jax.random.normal(jax.random.key(x.size), x.shape), PARAMS)
    advantages, gains, gradients = [], [], []
    for phi in (PARAMS, PHI, noise, None):
        rollout, _, evidence = run(SETTINGS, phi)
        advantages.append(np.asarray(evidence.advantages))
        gains.append(float(evidence.gain.mean()))
        _, gradient = tiny.policy_gradient(CONFIG, SETTINGS, WORDS)(
            PARAMS, rollout, tiny.flat(evidence.advantages), tiny.flat(evidence.counted)
        )
        gradients.append(gradient)
        largest = max(float(jnp.abs(evidence.rewards).max()), 1.0)
    # Rounding r and mean r to float32 has an error of 2**-24 |r|; noise makes |r| ten times larger.
    for other, gradient in zip(advantages[1:], gradients[1:], strict=True):
        np.testing.assert_allclose(other, advantages[0], atol=16 * 2**-23 * max(largest, 100))
        assert tiny.relative_error(gradient, gradients[0]) < 1e-4
    # But the reported gain depends on the baseline.
    assert min(abs(a - b) for i, a in enumerate(gains) for b in gains[:i]) > 0.1


def test_the_rollout_does_not_read_the_baseline():
    # phi ranks positions only for some rules.
    settings = SETTINGS
    stage = tiny.rollout_stage(CONFIG, settings, WORDS)
    one, _ = stage(PARAMS, PARAMS, BATCH, KEY, jnp.int32(5))
    other, _ = stage(PARAMS, PHI, BATCH, KEY, jnp.int32(5))
    assert np.array_equal(one.thoughts.actions, other.thoughts.actions)


def test_only_forks_whose_target_is_in_the_band_are_in_the_loss():
    """Under phi, as in the baseline evidence. The band is narrow, so that some documents have fewer
    positions in it than forks."""
    low, high = 1.0, 2.5
    settings = dataclasses.replace(SETTINGS, positions="band", band_low=low, band_high=high)
    rollout, reading = tiny.rollout_stage(CONFIG, settings, WORDS)(
        PARAMS, PHI, BATCH, KEY, jnp.int32(5)
    )
    evidence = tiny.evidence_stage(CONFIG, settings, WORDS)(PARAMS, PHI, BATCH, rollout, reading)
    loss = -np.asarray(evidence.baseline) / settings.horizon  # the weighting is "sum"
    inside = (loss >= low) & (loss <= high)
    assert 0 < inside.mean() < 1
    assert np.array_equal(evidence.in_band, inside)
    assert np.array_equal(evidence.counted, np.broadcast_to(inside[..., None], (4, 2, 4)))
    assert not np.asarray(evidence.advantages)[~inside].any()
    assert np.asarray(evidence.advantages)[inside].any()
    metrics = rollout_metrics(rollout, evidence, settings, WORDS)
    assert metrics["in_band_share"] == pytest.approx(inside.mean())
    assert "no_think_loss_unselected" in metrics
    # A document has as many forks in the band as it has positions there, up to K.
    without = -np.asarray(
        naive.document_logprobs(PHI, BATCH.tokens, config=CONFIG, vocabulary=WORDS)
    )
    for row, length in enumerate([12, 16, 9, 14]):
        means = [without[row, t - 1 : t + 1].mean() for t in range(1, length - 1)]
        assert inside[row].sum() == min(2, sum(low <= x <= high for x in means))


@pytest.mark.parametrize("rule", ["loss", "entropy"])
def test_ranked_positions_are_those_of_the_scorer(rule):
    settings = tiny.rlp_settings(positions=rule, min_prefix=2)
    stage = tiny.jit(lambda *args: step.read_stage(CONFIG, settings, WORDS, *args).forks.position)
    actual = np.asarray(stage(PARAMS, PHI, BATCH, KEY, jnp.int32(5)))
    for row, length in enumerate([12, 16, 9, 14]):
        text = BATCH.tokens[row : row + 1]
        table = np.asarray(
            naive.predictions(
                PHI, text, np.array([length]), config=CONFIG, banned=WORDS.not_in_documents
            )[0],
            np.float64,
        )
        p = np.exp(table)
        entropy = -np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0).sum(axis=-1)
        loss = -table[np.arange(15), text[0, 1:]]
        score = loss if rule == "loss" else entropy
        best = sorted(range(2, length - 1), key=lambda t: -score[t - 1])[:2]
        assert actual[row].tolist() == sorted(best)
