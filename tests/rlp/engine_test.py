"""How a step is computed changes nothing but its cost: waves, micro-batches, crowds, chunks.

Sums are taken in another order and nothing else, so figures agree to float32 rounding: 1e-5 of a
leaf's norm. Actions are equal, because a draw falls within rounding of a border once in a hundred
thousand; the seeds are fixed. What the engine promises of its cost is held here too: memory that
does not grow with branches times trunk, and no program that is compiled twice.
"""

import contextlib
import dataclasses
import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.timing import compilations
from models import backend
from models.backend import Choices
from models.sharding import make_mesh
from models.transformer import bind, shapes
from models.tree import Branches, Trunk, forward
from rlp import rollout as rollouts
from rlp import step
from rlp.branches import Thoughts, document_trunk
from rlp.flops import Work, forward_flops
from rlp.gradient import policy_gradient
from rlp.optimizer import make_optimizer
from rlp.rollout import Rollout
from rlp.trainers import RLPTrainer, state_shardings
from tests import naive, tiny

CONFIG = tiny.model_config()
WORDS = tiny.words(CONFIG)
PARAMS = tiny.params(CONFIG, 4)  # closes a fifth of its thoughts
PHI = tiny.params(CONFIG, 1)
BATCH = tiny.documents(0, [12, 16, 9, 14], 16, 22, forks=2)
KEY = jax.random.key(3)
PROMPT = (14, 5, 16)
# With a small epsilon, Adam's first move is the sign of the gradient, whatever its rounding.
OPTIMIZER = make_optimizer(
    learning_rate=1.0, schedule="constant", warmup_steps=0, final_share=1.0, total_steps=10,
    beta1=0.9, beta2=0.95, epsilon=1.0, weight_decay=0.0, clip_norm=0.0,
)  # fmt: skip

SETTINGS = tiny.rlp_settings()  # 4 documents, 2 forks each, 4 thoughts each
PROMPTED = tiny.rlp_settings(
    prompt=PROMPT, positions="loss", unclosed="mask", next_token_weight=0.5, update_micro_batch=4
)


# ---- waves


@functools.cache
def make_trainer(settings, devices=1):
    """A trainer and the shardings of its state."""
    mesh = make_mesh(devices=jax.devices()[:devices])
    shardings = state_shardings(mesh, CONFIG, OPTIMIZER, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", tiny.jit)  # compiles faster
        trainer = RLPTrainer(CONFIG, settings, WORDS, OPTIMIZER, mesh, shardings)
    return trainer, shardings


def fresh_state(shardings):
    state = step.new_state(jax.tree.map(jnp.copy, PARAMS), OPTIMIZER, True)
    state = dataclasses.replace(state, baseline=jax.tree.map(jnp.copy, PHI))
    return jax.device_put(state, shardings)


@functools.cache
def stepped(settings, devices=1):
    """Thoughts of a step, the state after it, and its metrics."""
    trainer, shardings = make_trainer(settings, devices)
    rollout, _ = trainer._think(fresh_state(shardings), BATCH, KEY, Counter())
    state, metrics, _ = trainer.step(fresh_state(shardings), BATCH, KEY)
    return jax.device_get((rollout.thoughts, state, metrics))


def assert_same_step(found, expected, documents=slice(None)):
    """`documents` of the expected thoughts, in the order in which they are found."""
    (thoughts, state, metrics), (whole, whole_state, whole_metrics) = found, expected
    whole = tiny.rows(whole, documents)
    assert np.array_equal(thoughts.actions, whole.actions)
    assert np.array_equal(thoughts.length, whole.length)
    np.testing.assert_allclose(thoughts.logprobs, whole.logprobs, atol=2e-5)
    assert metrics.keys() == whole_metrics.keys()
    for name in metrics.keys() - {"decode_use"}:  # each wave ends with its own longest thought
        assert metrics[name] == pytest.approx(whole_metrics[name], rel=1e-5, abs=1e-5), name
    gradient = lambda state: state.optimizer[1][0].mu
    assert tiny.relative_error(gradient(state), gradient(whole_state)) < 1e-5
    change = lambda state: jax.tree.map(np.subtract, state.params, jax.device_get(PARAMS))
    assert tiny.relative_error(change(state), change(whole_state)) < 1e-4  # parameters' rounding
    assert np.abs(change(whole_state)["embedding"]).max() > 1e-3
    assert 0 < metrics["decode_use"] <= 1


in_waves = pytest.mark.parametrize(
    ("settings", "limit"),
    [
        pytest.param(SETTINGS, 32, id="the whole batch", marks=pytest.mark.slow),
        pytest.param(SETTINGS, 16, id="2 documents", marks=pytest.mark.slow),
        pytest.param(SETTINGS, 8, id="1 document", marks=pytest.mark.slow),
        pytest.param(SETTINGS, 4, id="1 fork", marks=pytest.mark.slow),
        pytest.param(PROMPTED, 16, id="2 documents, prompted", marks=pytest.mark.slow),
        pytest.param(PROMPTED, 8, id="1 document, prompted", marks=pytest.mark.slow),
        pytest.param(PROMPTED, 4, id="1 fork, prompted"),
    ],
)


@in_waves
def test_a_step_in_waves_is_the_step_at_once(settings, limit):
    found = stepped(dataclasses.replace(settings, max_branches_in_flight=limit))
    assert_same_step(found, stepped(settings))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [SETTINGS, PROMPTED], ids=["plain", "prompted"])
@pytest.mark.parametrize("limit", [16, 8])
def test_a_step_in_waves_on_two_devices_is_the_step_at_once(settings, limit):
    found = stepped(dataclasses.replace(settings, max_branches_in_flight=limit), devices=2)
    # A wave has a document of each device.
    assert_same_step(found, stepped(settings), documents=np.array([0, 2, 1, 3]))


def test_a_limit_below_one_group_is_refused():
    trainer, shardings = make_trainer(tiny.rlp_settings(max_branches_in_flight=3))
    with pytest.raises(ValueError, match=r"rlp\.max_branches_in_flight: 3 branches .* allow 4"):
        trainer.step(fresh_state(shardings), BATCH, KEY)


@pytest.mark.parametrize("limit", [0, 4])
def test_a_run_compiles_in_its_first_step_only(limit):
    trainer, shardings = make_trainer(dataclasses.replace(PROMPTED, max_branches_in_flight=limit))
    state, *_ = trainer.step(fresh_state(shardings), BATCH, KEY)
    with compilations() as found:
        jax.jit(lambda x: x + limit)(1.0)
    assert found  # the counter counts
    lengths = [[16, 16, 16, 16], [5, 16, 7, 9], [8, 6, 12, 5]]
    seen = set()
    with compilations() as found:
        for number, each in enumerate(lengths):
            batch = tiny.documents(number + 1, each, 16, 22, forks=2)
            state, metrics, cost = trainer.step(state, batch, jax.random.key(number))
            seen.add((cost.rollout, cost.flops, metrics["closed_fraction"]))
    assert found == []
    assert len(seen) == len(lengths)
    assert int(state.step) == 1 + len(lengths)


# ---- crowds


def rolled(settings, crowds, params=PARAMS):
    """A rollout whose decoding goes on with these shares of a document's branches."""
    method = (CONFIG, settings, WORDS)

    def run(params):
        reading = step.read_stage(*method, params, params, BATCH, KEY, 5)
        return step.rollout_stage(*method, params, reading)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollouts, "CROWDS", crowds)
        return jax.device_get(tiny.jit(run)(params))


def decoded_tokens(length, crowds) -> int:
    """Branches run in every step, on the smallest crowd that holds the open ones of each row."""
    rows, count = length.shape
    widths = [-(-count // share) for share in crowds]
    open_ = [(length > slot).sum(axis=1).max() for slot in range(length.max())]
    return sum(rows * min(w for w in widths if w >= most) for most in open_)


def live_cache(rollout):
    """Keys and values [M, layers, kv_heads, head_dim] of the slots that somebody sees."""
    live = rollout.branches.live[:, :, : rollout.thoughts.actions.shape[-1]]
    layers = lambda cache: np.stack(cache) if isinstance(cache, list) else np.asarray(cache)
    choose = lambda x: layers(x).transpose(1, 3, 4, 0, 2, 5)[live]
    return choose(rollout.branch_cache.key), choose(rollout.branch_cache.value)


def test_a_smaller_crowd_decodes_the_same_thoughts_with_less():
    settings = tiny.rlp_settings(thought_length=12)
    whole = rolled(settings, (1,))
    length = whole.thoughts.length
    assert whole.decoded == length.size * length.max()
    costs = [int(whole.decoded)]
    for crowds in [(1, 2), (1, 2, 4)]:
        found = rolled(settings, crowds)
        assert np.array_equal(found.thoughts.actions, whole.thoughts.actions)
        assert np.array_equal(found.thoughts.length, length)
        assert np.array_equal(found.thoughts.closed, whole.thoughts.closed)
        np.testing.assert_allclose(found.thoughts.logprobs, whole.thoughts.logprobs, atol=1e-5)
        jax.tree.map(np.testing.assert_array_equal, found.branches, whole.branches)
        for cache, expected in zip(live_cache(found), live_cache(whole), strict=True):
            np.testing.assert_allclose(cache, expected, atol=1e-5)
        assert found.decoded == decoded_tokens(length, crowds)
        costs.append(int(found.decoded))
    assert costs[0] > costs[1] > costs[2] >= length.sum()


# ---- micro-batches


@functools.cache
def thoughts_of(settings):
    """A rollout, made by a policy that is a little older, with advantages and counted [B, N]."""
    settings = dataclasses.replace(settings, next_token_weight=0.0, update_micro_batch=0)
    rollout = rolled(settings, (1,)).without_cache()
    thoughts, random = rollout.thoughts, np.random.default_rng(0)
    live = np.arange(thoughts.actions.shape[-1]) < thoughts.length[..., None]
    moved = thoughts.logprobs + random.uniform(-0.5, 0.5, live.shape).astype(np.float32)
    rollout = dataclasses.replace(
        rollout, thoughts=thoughts.replace(logprobs=np.where(live, moved, 0)), decoded=None
    )
    advantages = random.normal(size=thoughts.length.shape).astype(np.float32)
    counted = thoughts.closed if settings.unclosed == "mask" else np.ones_like(thoughts.closed)
    return rollout, advantages, counted


@functools.cache
def gradient_of(settings, remat="none"):
    """Loss, metrics and gradient."""
    config = dataclasses.replace(CONFIG, remat=remat)

    def run(params, *inputs):
        return policy_gradient(
            params, config, step.loss_numbers(settings), WORDS, *inputs,
            micro_batch=settings.update_micro_batch,
        )  # fmt: skip

    inputs = jax.tree.map(jnp.asarray, thoughts_of(SETTINGS if not settings.prompt else MASKED))
    return jax.device_get(tiny.jit(run)(PARAMS, *inputs))


MASKED = tiny.rlp_settings(unclosed="mask", prompt=PROMPT)
WEIGHTED = dataclasses.replace(MASKED, next_token_weight=0.5)
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("settings", "limit", "remat"),
    [
        (SETTINGS, 1, "none"),
        pytest.param(SETTINGS, 3, "none", marks=slow),
        pytest.param(SETTINGS, 8, "none", marks=slow),
        pytest.param(SETTINGS, 16, "none", marks=slow),
        pytest.param(SETTINGS, 0, "block", marks=slow),
        pytest.param(SETTINGS, 0, "dots", marks=slow),
        pytest.param(SETTINGS, 16, "block", marks=slow),
        pytest.param(SETTINGS, 16, "dots", marks=slow),
        (WEIGHTED, 4, "block"),
        (WEIGHTED, 16, "dots"),
        pytest.param(WEIGHTED, 1, "none", marks=slow),
        pytest.param(WEIGHTED, 8, "none", marks=slow),
        pytest.param(WEIGHTED, 16, "none", marks=slow),
        pytest.param(MASKED, 4, "none", marks=slow),
    ],
)
def test_a_gradient_in_micro_batches_is_the_gradient_at_once(settings, limit, remat):
    expected, expected_metrics, expected_gradient = gradient_of(settings)
    cut = dataclasses.replace(settings, update_micro_batch=limit)
    value, metrics, gradient = gradient_of(cut, remat)
    assert value == pytest.approx(float(expected), rel=1e-5)
    assert metrics.keys() == expected_metrics.keys()
    for name in metrics:
        assert metrics[name] == pytest.approx(float(expected_metrics[name]), rel=1e-5), name
    assert tiny.relative_error(gradient, expected_gradient) < 1e-5


def test_the_thoughts_of_the_micro_batches_are_clipped_and_counted_in_part():
    for settings in (SETTINGS, MASKED):
        _, metrics, _ = gradient_of(settings)
        assert 0 < metrics["clip_fraction"] < 1
    _, _, counted = thoughts_of(MASKED)
    assert 0 < counted.mean() < 1


def document_loss(params, trunk, places):
    """Mean next-token loss at some places (row, column) of a trunk, nats."""
    model = bind(CONFIG, params)
    table = jax.nn.log_softmax(model.logits(forward(model, trunk)), axis=-1)
    row, column = places
    return -table[row, column - 1, trunk.tokens[row, column]].mean()


@pytest.mark.parametrize("settings", [WEIGHTED, pytest.param(0, marks=slow)], ids=str)
def test_the_next_token_loss_is_added_with_its_weight(settings):
    settings = settings or dataclasses.replace(SETTINGS, next_token_weight=0.5)
    weight, start = settings.next_token_weight, len(settings.prompt)
    lengths = (BATCH.segment > 0).sum(axis=1)
    # Words of the document that stand after a word of it.
    pairs = [(b, start + t) for b, length in enumerate(lengths) for t in range(1, length)]
    places = tuple(jnp.array(pairs).T)
    loss, slope = tiny.jit(jax.value_and_grad(document_loss))(
        PARAMS, document_trunk(BATCH, settings.prompt), places
    )
    bare, bare_metrics, bare_gradient = gradient_of(
        dataclasses.replace(settings, next_token_weight=0.0)
    )
    found, metrics, gradient = gradient_of(settings)
    assert "next_token_loss" not in bare_metrics
    assert metrics["next_token_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert found == pytest.approx(float(bare) + weight * float(loss), rel=1e-5)
    total = jax.tree.map(lambda g, d: g + weight * d, bare_gradient, slope)
    assert tiny.relative_error(gradient, total) < 1e-5
    assert tiny.relative_error(gradient, bare_gradient) > 0.1
    assert tiny.relative_error(gradient, jax.tree.map(lambda d: weight * d, slope)) > 0.1


# ---- what a backend chooses


def everything(choices):
    """Thoughts, evidence and the gradient of their advantages, with these choices."""
    method = (CONFIG, PROMPTED, WORDS)

    def run(params, phi):
        reading = step.read_stage(*method, params, params, BATCH, KEY, 5)
        rollout = step.rollout_stage(*method, params, reading)
        no_think = step.no_think_stage(*method, params, phi, BATCH, reading)
        evidence = step.evidence_stage(*method, params, reading, no_think, rollout)
        found = policy_gradient(
            params, CONFIG, step.loss_numbers(PROMPTED), WORDS, rollout,
            tiny.flat(evidence.advantages), tiny.flat(evidence.counted),
        )  # fmt: skip
        return rollout, evidence, *found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "CPU", choices)
        return jax.device_get(tiny.jit(run)(PARAMS, PHI))


LARGE, SMALL = 2**22, 2**6


@functools.cache
def chosen():
    return everything(Choices(8, LARGE, LARGE, small_rows=8))


@pytest.mark.parametrize(
    "choices",
    [
        Choices(0, SMALL, SMALL, small_rows=0),
        pytest.param(Choices(0, LARGE, LARGE, small_rows=8), marks=slow),
        pytest.param(Choices(8, SMALL, LARGE, small_rows=8), marks=slow),
        pytest.param(Choices(8, LARGE, SMALL, small_rows=8), marks=slow),
        pytest.param(Choices(8, LARGE, LARGE, small_rows=0), marks=slow),
    ],
    ids=str,
)
def test_a_backends_choices_change_no_result(choices):
    rollout, evidence, loss, metrics, gradient = everything(choices)
    expected = chosen()
    assert isinstance(rollout.branch_cache.key, list) == (choices.unrolled_layers > 0)
    assert np.array_equal(rollout.thoughts.actions, expected[0].thoughts.actions)
    np.testing.assert_allclose(rollout.thoughts.logprobs, expected[0].thoughts.logprobs, atol=2e-5)
    for name in ("reasoned", "baseline", "rewards", "advantages", "no_think"):
        a, b = getattr(evidence, name), getattr(expected[1], name)
        np.testing.assert_allclose(a, b, atol=5e-5, rtol=1e-5)
    assert loss == pytest.approx(float(expected[2]), rel=1e-5, abs=1e-5)
    for name in metrics:
        assert metrics[name] == pytest.approx(float(expected[3][name]), rel=1e-5, abs=1e-5), name
    assert tiny.relative_error(gradient, expected[4]) < 1e-5
