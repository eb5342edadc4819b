"""Bytes of a step against sums by hand, and the minimum time."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from models.sharding import make_mesh
from models.transformer import shapes
from rlp.capacity.chips import Chip
from rlp.capacity.hlo import Collective
from rlp.capacity.programs import CompiledStage
from rlp.capacity.roofline import next_token_bytes, rlp_bytes, rooflines
from rlp.capacity.step_spec import StepSpec
from rlp.training.flops import by_phase, next_token_flops
from tests.support import tiny
from tests.support.engine import OPTIMIZER

# One layer: 24 · 32 embeddings, q, k, v, o 32 × 32, feed-forward 3 × 32 × 48, norms 8 + 8 + 3 · 32.
MODEL = tiny.model_config(num_heads=4, num_kv_heads=4, num_layers=1)
PARAMETERS = 24 * 32 + 4 * 32 * 32 + 3 * 32 * 48 + 2 * 8 + 3 * 32
SETTINGS = tiny.rlp_settings(
    forks_per_document=1, group_size=2, thought_length=3, horizon=1, prompt=()
)


@functools.cache
def mesh():
    return make_mesh(1, 2, 2, devices=jax.devices()[:4])


def case(settings=SETTINGS, rows=4, length=10):
    return StepSpec(MODEL, settings, tiny.words(MODEL), OPTIMIZER, mesh(), rows, length)


# Values read and written by the linear maps of a token: q, k, v from 32; o; gate and up; down.
LINEAR = 4 * ((32 + 3 * 32) + (32 + 32) + (32 + 2 * 48) + (48 + 32))


def scores(pairs, logits):
    """Bytes written and read: a float32 per pair and head (4), and per logit (24)."""
    return 2 * 4 * (4 * pairs + 24 * logits)


def test_bytes_of_next_token_training():
    """On four devices: half of the parameters in each of three passes (mesh.tensor is 2), 40
    tokens, gradients written, added and read, three float32 per parameter read and written."""
    activations = 3 * (40 * LINEAR + scores(4 * 100, 40)) / 4
    weights, at_rest = 4 * PARAMETERS / 2, 4 * PARAMETERS / 4
    assert next_token_bytes(case(settings=None)) == 3 * weights + activations + 9 * at_rest


def test_bytes_of_a_rollout():
    """Documents are prefilled once; each of 3 tokens reads the parameters, both caches and its
    logits. A branch of 1 + 3 - 1 slots."""
    weights = 4 * PARAMETERS / 2
    token = 2 * 4 * 8 * 4
    trunks, thoughts = 4 * 10 * token / 4, 8 * 3 * token / 4
    reading = weights + (40 * LINEAR + scores(4 * 100, 0)) / 4 + trunks
    step = weights + trunks + thoughts + (8 * LINEAR + scores(8 * 13, 8)) / 4
    assert rlp_bytes(case())["rollout"] == reading + 3 * step


def test_rollout_batches_read_the_parameters_again_and_nothing_else():
    weights = 4 * PARAMETERS / 2
    batches = dataclasses.replace(SETTINGS, max_branches_in_flight=4, update_micro_batch=2)
    whole, cut = rlp_bytes(case()), rlp_bytes(case(batches))
    assert cut["rollout"] - whole["rollout"] == weights * (1 + 3)
    assert cut["evidence"] - whole["evidence"] == weights * (1 + 1)
    sums = 2 * 3 * 4 * PARAMETERS / 4  # gradients of three more micro-batches, written and read
    assert cut["update"] - whole["update"] == 3 * 3 * weights + sums


def test_more_updates_read_and_write_the_parameters_again():
    """Every pass is over all thoughts, with an optimizer update per minibatch."""
    weights, at_rest = 4 * PARAMETERS / 2, 4 * PARAMETERS / 4
    update = lambda **changes: rlp_bytes(case(dataclasses.replace(SETTINGS, **changes)))["update"]
    average = 3 * at_rest
    assert update(minibatches=2) - update() == 3 * weights + 9 * at_rest
    assert update(updates_per_rollout=3) - average == 3 * (update() - average)
    assert update(updates_per_rollout=3, minibatches=2) - average == 3 * (
        update(minibatches=2) - average
    )


SPEEDS = {"flops": 100.0, "bandwidth": 10.0, "link": 5.0, "network": 1.0}
CHIP = Chip("one", "cuda", 1e9, dimensions=2, kinds=(), **SPEEDS)


def stage(sent, groups, times=1):
    actual = Collective("all-gather", np.array(groups), 1, sent)
    return CompiledStage("update", "update", times, 0, 0, 0, 0, (actual,), (), 0.0)


@pytest.mark.parametrize(
    ("groups", "seconds"), [([[0, 1], [2, 3]], 12.0), ([[0, 2], [1, 3]], 60.0)]
)
def test_what_is_sent_takes_the_links_inside_a_node_and_the_network_between(groups, seconds):
    (actual,) = rooflines(case(None), CHIP, [stage(30.0, groups, times=2)], lambda i: i // 2)
    assert actual.sent == 60.0
    assert actual.seconds[2] == seconds


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({"flops": 1e-3}, "compute"),
        ({"bandwidth": 1e-6}, "memory"),
        ({"link": 1e-9}, "communication"),
    ],
)
def test_the_slowest_bound_holds(changes, bound):
    chip = dataclasses.replace(CHIP, **changes)
    (actual,) = rooflines(case(None), chip, [stage(30.0, [[0, 1, 2, 3]])], lambda _: 0)
    assert actual.bound == bound
    optimizer = OPTIMIZER.flops(shapes(MODEL))
    assert actual.flops == by_phase(next_token_flops(MODEL, optimizer, 4, 10))["update"] / 4
    expected = {
        "compute": actual.flops / chip.flops,
        "memory": next_token_bytes(case(None)) / chip.bandwidth,
        "communication": 30.0 / chip.link,
    }
    assert actual.time == expected[bound] == max(expected.values())
