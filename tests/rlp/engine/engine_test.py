"""Rollout batches, micro-batches, decoding widths and chunks change only the cost of a step.

Only the order of sums changes, so values agree to float32 rounding: 1e-5 of a
leaf's norm. Actions are equal, since a draw is within rounding of a border once in a hundred
thousand, and the seeds are fixed. Tests of the cost are here, too: memory does not grow with
branches times trunk, and no program is compiled twice.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import backend
from rlp.engine import decoding, step
from rlp.engine.decoding import for_decoding
from rlp.engine.gradient import policy_gradient
from rlp.engine.rollout_metrics import rollout_metrics
from rlp.training.flops import Work, forward_flops, on_rows
from tests.support import naive, tiny
from tests.support.engine import (
    ALL,
    BATCH,
    CONFIG,
    KEY,
    LONG,
    PARAMS,
    SETTINGS,
    SMALL,
    WORDS,
    phi,
    rolled,
    slow,
)

BRIEF = tiny.words(
    CONFIG, used=5, think_open=(7, 8), think_close=(4, 3)
)  # the closing tag is two words, so it is sampled


def decoded_tokens(length, divisors) -> int:
    """Decoded tokens, if every step runs with the smallest width that fits the open branches."""
    rows, count = length.shape
    widths = [-(-count // divisor) for divisor in divisors]
    open_ = [(length > slot).sum(axis=1).max() for slot in range(length.max())]
    return sum(rows * min(w for w in widths if w >= most) for most in open_)


def live_cache(rollout):
    """Keys and values [M, layers, kv_heads, head_dim] of the live slots."""
    live = rollout.branches.live[:, :, : rollout.branch_cache.slots]
    cache = rollout.branch_cache.kinds["attention"]
    if isinstance(cache, list):
        cache = jax.tree.map(lambda *layers: np.stack(layers), *cache)
    cache = cache.read()
    choose = lambda x: np.asarray(x).transpose(1, 3, 4, 0, 2, 5)[live]
    return choose(cache.key), choose(cache.value)


# Another layout of caches, while decoding as well or in the other passes alone.
SCANNED = dataclasses.replace(backend.CPU, unrolled_layers=0, unrolled_decoding=0)
UNROLLED_DECODING = dataclasses.replace(SCANNED, unrolled_decoding=64)


# Decoding with fewer branches.


@pytest.mark.parametrize(
    ("divisors", "choices", "words"),
    [
        pytest.param((1, 2, 4), backend.CPU, WORDS, id="1-2-4"),
        pytest.param((1, 2, 4), SCANNED, WORDS, id="1-2-4, scanned", marks=slow),
        pytest.param((1, 2, 4), UNROLLED_DECODING, WORDS, id="1-2-4, unrolled", marks=slow),
        pytest.param((1, 3), backend.CPU, WORDS, id="1-3", marks=slow),  # 3 does not divide 8
        pytest.param((1, 2, 4), backend.CPU, BRIEF, id="1-2-4, tags of two"),
    ],
)
def test_a_smaller_batch_decodes_the_same_thoughts_with_less(divisors, choices, words):
    whole = rolled(SMALL, LONG, (1,), words=words)
    actual = rolled(SMALL, LONG, divisors, choices, words)
    straight = isinstance(actual.branch_cache.kinds["attention"], list)
    assert straight == (choices.unrolled_layers > 0)
    assert np.array_equal(actual.thoughts.actions, whole.thoughts.actions)
    assert np.array_equal(actual.thoughts.length, whole.thoughts.length)
    assert np.array_equal(actual.thoughts.closed, whole.thoughts.closed)
    np.testing.assert_allclose(actual.thoughts.logprobs, whole.thoughts.logprobs, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, actual.branches, whole.branches)
    for cache, expected in zip(live_cache(actual), live_cache(whole), strict=True):
        np.testing.assert_allclose(cache, expected, atol=1e-5)

    length = whole.thoughts.length
    open_branches = {int((length > slot).sum(axis=1).max()) for slot in range(12)}
    assert {8, 4, 2} <= open_branches  # all widths occur
    assert whole.decoded == length.size * length.max()
    assert actual.decoded == decoded_tokens(length, divisors)
    assert whole.decoded > actual.decoded >= length.sum()


LARGE, TINY = 2**22, 2**6


@functools.cache
def everything(config, choices):
    """Thoughts, evidence and gradient, with these choices of a backend; and whether decoding reads
    parameters and caches from lists of layers."""
    method, in_lists = (config, ALL, WORDS), []

    def observed(*inputs):
        model, cache = for_decoding(*inputs)
        in_lists.extend(isinstance(x, list) for x in (model.blocks, cache.kinds["attention"]))
        return model, cache

    def run(params, phi):
        reading = step.read_stage(*method, params, params, BATCH, KEY, 5)
        rollout = step.rollout_stage(*method, params, reading)
        no_think = step.no_think_stage(*method, params, phi, BATCH, reading)
        evidence = step.evidence_stage(*method, params, reading, no_think, rollout)
        reference = step.reference_stage(*method, phi, rollout)
        actual = policy_gradient(
            params, config, ALL, WORDS, rollout,
            tiny.flat(evidence.advantages), tiny.flat(evidence.counted), reference,
            tiny.flat(evidence.target_weights),
        )  # fmt: skip
        return rollout, evidence.replace(reference=reference), *actual

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "CPU", dataclasses.replace(choices, decode_divisors=(1,)))
        patch.setattr(decoding, "for_decoding", observed)
        return *jax.device_get(tiny.jit(run)(PARAMS(config), phi(config))), in_lists


def chunks(unrolled_layers, row_scores, logits, cache_slots=1, **others):
    sizes = {"row_scores": row_scores, "logits": logits, "cache_slots": cache_slots}
    others = {"unrolled_layers": unrolled_layers, **sizes, **others}
    return dataclasses.replace(backend.ACCELERATOR, **others)


DECODING = {"unrolled_decoding": 8, "keys_by_dimension": True}


# Choices of a backend.


@pytest.mark.parametrize(
    ("config", "choices"),
    [
        pytest.param(SMALL, chunks(0, TINY, TINY, 16), id="all"),
        pytest.param(CONFIG, chunks(0, TINY, TINY, 16), id="all, 2 layers", marks=slow),
        pytest.param(CONFIG, chunks(8, TINY, TINY), id="scores and logits", marks=slow),
        pytest.param(CONFIG, chunks(0, LARGE, LARGE, 16, **DECODING), id="decoding"),
    ],
)
def test_a_backends_choices_change_no_result(config, choices):
    rollout, evidence, loss, metrics, gradient, in_lists = everything(config, choices)
    whole, whole_evidence, whole_loss, whole_metrics, whole_gradient, _ = everything(
        config, chunks(8, LARGE, LARGE)
    )
    straight = isinstance(rollout.branch_cache.kinds["attention"], list)
    assert straight == (choices.unrolled_layers > 0)
    assert in_lists == [straight or choices.unrolled_decoding > 0] * 2
    assert np.array_equal(rollout.thoughts.actions, whole.thoughts.actions)
    np.testing.assert_allclose(rollout.thoughts.logprobs, whole.thoughts.logprobs, atol=2e-5)
    for name in ("reasoned", "baseline", "rewards", "advantages", "no_think", "reference"):
        a, b = getattr(evidence, name), getattr(whole_evidence, name)
        np.testing.assert_allclose(a, b, atol=5e-5, rtol=1e-5)
    assert loss == pytest.approx(float(whole_loss), rel=1e-5)
    for name in metrics:
        assert metrics[name] == pytest.approx(float(whole_metrics[name]), rel=1e-5, abs=1e-5), name
    assert tiny.relative_error(gradient, whole_gradient) < 1e-5


# Bfloat16.


def test_the_gap_between_sampler_and_trainer_is_within_bfloat16_rounding():
    half = dataclasses.replace(SMALL, compute_dtype="bfloat16")
    method, params = (half, SETTINGS, WORDS), PARAMS(SMALL)

    def run(params):
        reading = step.read_stage(*method, params, params, BATCH, KEY, 5)
        rollout = step.rollout_stage(*method, params, reading)
        shape = rollout.thoughts.length.shape
        ones = (jnp.ones(shape), jnp.ones(shape, bool))
        _, metrics, _ = policy_gradient(params, half, SETTINGS, WORDS, rollout, *ones)
        return rollout.thoughts, reading.forks, metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, decode_divisors=(1,)))
        thoughts, forks, metrics = jax.device_get(tiny.jit(run)(params))
    branches = [
        naive.Branch(
            BATCH.tokens[b].tolist(),
            int(forks.position[b, n // SETTINGS.group_size]),
            thoughts.actions[b, n, : thoughts.length[b, n]].tolist(),
            SETTINGS.horizon,
        )
        for b, n in np.ndindex(*thoughts.length.shape)
    ]
    rows = naive.write_out(branches, WORDS, SETTINGS.thought_length, 28)
    scored = lambda config: np.asarray(
        naive.action_logprobs(params, rows, config=config, vocabulary=WORDS, temperature=1.0)
    )
    exact, live = scored(SMALL), rows.action_at > 0
    distance = lambda x: np.abs(x.reshape(exact.shape) - exact)[live].mean()
    # Both may have the rounding error of the plain forward pass in bfloat16. Much of it is the
    # rounding of the parameters, which they share, and on a CPU both round the same products, so
    # they are closer to each other than to float32.
    rounding = distance(scored(half))
    assert 1e-4 < rounding < 2e-2
    assert distance(thoughts.logprobs) < 1.5 * rounding
    assert metrics["logprob_gap"] < rounding


# No baseline.


def test_without_a_baseline_nothing_of_phi_is_computed():
    settings = dataclasses.replace(LONG, baseline="none")
    method, params = (SMALL, settings, WORDS), PARAMS(SMALL)
    read = tiny.jit(functools.partial(step.read_stage, *method))
    reading = read(params, params, BATCH, KEY, 5)
    no_think = tiny.jit(functools.partial(step.no_think_stage, *method))
    flops = lambda phi: no_think.lower(params, phi, BATCH, reading).cost_analysis()["flops"]
    rows, length = BATCH.tokens.shape
    scored = Work(logits=rows * settings.forks_per_document * settings.horizon)
    documents = on_rows(rows, length)
    # `forward_flops` does not count elementwise work.
    assert flops(None) == pytest.approx(forward_flops(SMALL, scored), rel=0.3)
    more = flops(phi(SMALL)) - flops(None)
    assert more == pytest.approx(forward_flops(SMALL, scored + documents), rel=0.3)

    actual = no_think(params, None, BATCH, reading)
    assert not np.any(actual.baseline)
    assert np.all(actual.policy < 0)
    assert np.any(no_think(params, phi(SMALL), BATCH, reading).baseline)

    rollout = rolled(SMALL, LONG, (1,))
    evidence = tiny.jit(functools.partial(step.evidence_stage, *method))(
        params, reading, actual, rollout
    )
    assert np.array_equal(evidence.rewards, evidence.reasoned)
    assert np.array_equal(evidence.gain, evidence.reasoned)
    assert np.all(evidence.reasoned < 0)
    metrics = rollout_metrics(rollout, evidence, settings, WORDS)
    assert metrics.keys().isdisjoint({"baseline_evidence", "information_gain"})
    assert metrics["reward_mean"] == metrics["reasoned_evidence"]
