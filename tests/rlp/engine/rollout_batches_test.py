"""A step in rollout batches or minibatches equals the step at once, and compiles only once."""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.measure import compilations
from models.sharding import make_mesh
from rlp.data.rows import Rows
from rlp.engine import decoding, step
from rlp.engine.method import Method
from rlp.engine.placement import state_shardings
from rlp.engine.step.rollout_batches import join_rollout_batches
from rlp.training.trainers import Clock, RLPTrainer
from tests.support import tiny
from tests.support.engine import (
    ALL,
    BATCH,
    CONFIG,
    KEY,
    LONG,
    OPTIMIZER,
    PARAMS,
    PROMPT,
    SETTINGS,
    SMALL,
    WORDS,
    phi,
    slow,
)

PROMPTED = tiny.rlp_settings(
    prompt=PROMPT, positions="loss", unclosed="mask", thought_length=8, temperature=1.3,
    kl_weight=0.1,
)  # fmt: skip

# Tags of two tokens; the closing one is likely under these parameters.
TAGS = tiny.words(CONFIG, think_open=(7, 8), think_close=(4, 15))
IN_PARTS = dataclasses.replace(SETTINGS, minibatches=2)


@functools.cache
def make_trainer(settings, devices=1, words=WORDS):
    """Return a trainer and the shardings of its state."""
    mesh = make_mesh(devices=jax.devices()[:devices])
    shardings = state_shardings(mesh, SMALL, OPTIMIZER, True, reference=settings.keeps_reference)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", tiny.jit)  # compiles faster
        trainer = RLPTrainer(Method(SMALL, settings, words), OPTIMIZER, mesh, shardings)
    return trainer, shardings


def fresh_state(shardings):
    params = jax.tree.map(jnp.copy, PARAMS(SMALL))  # a step donates its state
    state = step.new_state(params, OPTIMIZER, False)
    reference = phi(SMALL) if shardings.reference is not None else None
    state = dataclasses.replace(state, baseline=phi(SMALL), reference=reference)
    return jax.device_put(state, shardings)


@functools.cache
def stepped(settings, devices=1, words=WORDS):
    """Return thoughts of a step, the new state, and its metrics."""
    trainer, shardings = make_trainer(settings, devices, words)
    rollout = trainer.think(fresh_state(shardings), Rows.of(BATCH), KEY, Clock())["rollout"]
    state, metrics, _ = trainer.step(fresh_state(shardings), Rows.of(BATCH), KEY)
    return jax.device_get((rollout.thoughts, state, metrics))


def assert_same_step(actual, expected):
    (thoughts, state, metrics), (whole, whole_state, whole_metrics) = actual, expected
    assert np.array_equal(thoughts.actions, whole.actions)
    assert np.array_equal(thoughts.length, whole.length)
    np.testing.assert_allclose(thoughts.logprobs, whole.logprobs, atol=2e-5)
    assert metrics.keys() == whole_metrics.keys()
    for name in metrics.keys() - {"decode_use"}:  # each batch ends with its own longest thought
        assert metrics[name] == pytest.approx(whole_metrics[name], rel=1e-5, abs=1e-5), name
    gradient = lambda state: state.optimizer[1][0].mu
    assert tiny.relative_error(gradient(state), gradient(whole_state)) < 1e-5
    change = lambda state: jax.tree.map(np.subtract, state.params, jax.device_get(PARAMS(SMALL)))
    assert (
        tiny.relative_error(change(state), change(whole_state)) < 1e-4
    )  # rounding of the parameters
    assert np.abs(change(whole_state)["embedding"]).max() > 1e-3
    assert 0 < metrics["decode_use"] <= 1
    assert metrics["logprob_gap"] < 1e-5


in_batches = pytest.mark.parametrize(
    ("settings", "limit"),
    [
        pytest.param(PROMPTED, 4, id="1 fork, prompted"),
        pytest.param(ALL, 8, id="1 document, all losses", marks=slow),
        pytest.param(SETTINGS, 16, id="2 documents", marks=slow),
    ],
)


# Rollout batches.


@in_batches
def test_a_step_in_batches_is_the_step_at_once(settings, limit):
    actual = stepped(dataclasses.replace(settings, max_branches_in_flight=limit))
    assert_same_step(actual, stepped(settings))


def test_a_phi_that_never_moves_is_the_reference():
    """If phi and the reference are the same network, either one gives the same step."""
    actual = stepped(dataclasses.replace(PROMPTED, baseline="frozen"))
    assert_same_step(actual, stepped(PROMPTED))
    (_, state, metrics), (_, usual, _) = actual, stepped(PROMPTED)
    assert metrics["kl"] > 0.01
    assert state.reference is None
    for kept in (state.baseline, usual.reference):
        jax.tree.map(np.testing.assert_array_equal, kept, jax.device_get(phi(SMALL)))


@slow
def test_a_step_in_batches_with_long_tags_is_the_step_at_once():
    settings = dataclasses.replace(LONG, max_branches_in_flight=4, update_micro_batch=4)
    whole = stepped(LONG, words=TAGS)
    assert_same_step(stepped(settings, words=TAGS), whole)
    assert 0 < whole[0].closed.mean() < 1


@slow
@pytest.mark.parametrize(
    ("settings", "limit"),
    [(PROMPTED, 16), (ALL, 8), (IN_PARTS, 8)],
    ids=["prompted", "all losses", "minibatches"],
)
def test_a_step_in_batches_on_two_devices_is_the_step_at_once(settings, limit):
    actual = stepped(dataclasses.replace(settings, max_branches_in_flight=limit), devices=2)
    assert_same_step(actual, stepped(settings))


@slow
def test_batches_that_shrink_as_thoughts_close_are_the_step_at_once(monkeypatch):
    monkeypatch.setattr(decoding, "MIN_ROWS", 1)
    whole = stepped(LONG)
    thoughts, _, metrics = whole
    assert metrics["decode_use"] > thoughts.length.mean() / thoughts.length.max()  # so they shrink
    assert_same_step(stepped(dataclasses.replace(LONG, max_branches_in_flight=8)), whole)


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2])
def test_batches_are_joined_in_the_order_of_the_batch(shards, count):
    """Eight documents of two forks; a rollout batch has one fork of each, a shard a run of them."""
    mesh = make_mesh(-1, 1, 1, devices=jax.devices()[:shards])
    index = np.arange(8, dtype=np.int32)
    batch = tiny.documents(0, [9] * 8, 9, 22).replace(index=index)
    parts = []
    for part in range(count):
        here = Rows.of(batch).placed(mesh, part, count).index
        fork = lambda k, here=here: here[:, None] * 10 + k
        parts += [(Joined(here, fork(k), jnp.int32(1)), fork(k)) for k in (0, 1)]
    with jax.set_mesh(mesh):
        rollout, evidence = join_rollout_batches(parts, 2)
    assert rollout.trunk.tolist() == index.tolist()
    expected = [[10 * i, 10 * i + 1] for i in index.tolist()]
    assert rollout.thoughts.tolist() == evidence.tolist() == expected
    assert rollout.decoded == 2 * count


@flax.struct.dataclass
class Joined:
    """The fields of a rollout that are joined."""

    trunk: jax.Array
    thoughts: jax.Array
    decoded: jax.Array


# Minibatches.


def test_minibatches_are_updates_of_their_own_on_parts_of_the_documents():
    trainer, shardings = make_trainer(PROMPTED)
    cut, _ = make_trainer(dataclasses.replace(PROMPTED, minibatches=2, updates_per_rollout=2))
    values = trainer.think(fresh_state(shardings), Rows.of(BATCH), KEY, Clock())
    rollout, evidence = values["rollout"], values["evidence"]
    state, actual = cut.update(fresh_state(shardings), values, Clock())

    by_hand, expected = fresh_state(shardings).trained(), []
    for documents in ([0, 2], [1, 3]) * 2:
        # Each document twice, which keeps shapes and the mean loss, so that nothing is compiled.
        part = (rollout.replace(decoded=None), evidence)
        part, evidence_of_part = tiny.rows(part, np.array(documents * 2))
        part = part.replace(decoded=rollout.decoded)
        by_hand, metrics = trainer.programs["update"](by_hand, part, evidence_of_part, 0)
        expected.append(metrics)
    assert len(actual) == len(expected)
    for number, (ours, theirs) in enumerate(zip(actual, expected, strict=True)):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name] == pytest.approx(float(theirs[name]), rel=1e-4, abs=1e-5), name
        assert (ours["clip_fraction"] > 0) == (number > 0)  # theta differs from the sampling policy
    assert tiny.relative_error(state.params, by_hand.params) < 1e-5
    moments = lambda state: state.optimizer[1][0]
    assert moments(state).count == moments(by_hand).count == 4
    assert tiny.relative_error(moments(state).mu, moments(by_hand).mu) < 1e-4
    assert state.step == 1


def test_a_limit_below_one_group_is_refused():
    trainer, shardings = make_trainer(tiny.rlp_settings(max_branches_in_flight=3))
    with pytest.raises(ValueError, match=r"rlp\.max_branches_in_flight=3 .* set it to 4 or"):
        trainer.step(fresh_state(shardings), Rows.of(BATCH), KEY)


@pytest.mark.parametrize("limit", [0, 4])
def test_a_run_compiles_in_its_first_step_only(limit):
    trainer, shardings = make_trainer(dataclasses.replace(PROMPTED, max_branches_in_flight=limit))
    state, *_ = trainer.step(fresh_state(shardings), Rows.of(BATCH), KEY)
    with compilations() as compiled:
        jax.jit(lambda x: x + limit)(1.0)
    assert compiled  # compilations are counted
    lengths = [[16, 16, 16, 16], [5, 16, 7, 9], [8, 6, 12, 5]]
    seen = set()
    with compilations() as compiled:
        for number, each in enumerate(lengths):
            batch = tiny.documents(number + 1, each, 16, 22, forks=2)
            state, metrics, cost = trainer.step(state, Rows.of(batch), jax.random.key(number))
            seen.add((cost.rollout, sum(cost.flops.values()), metrics["closed_fraction"]))
    assert compiled == []
    assert len(seen) == len(lengths)
    assert int(state.step) == 1 + len(lengths)
