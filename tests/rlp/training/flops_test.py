"""Counted FLOPs against those that XLA's cost analysis counts.

XLA counts the body of a loop once, so the network has one layer and the rollout decodes one
step. XLA also counts norms, softmax, rotary embeddings and sampling, which ours omits by
design. Their work is proportional to the width, that of matmuls to its square, and at the width
of 256 in these tests they are at most a twentieth.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import backend
from models.config import ModelConfig
from models.layers.attention import offered_pairs
from models.layers.protocol import BranchTokens, TrunkTokens
from models.sharding import make_mesh
from models.transformer import bind, count_parameters, shapes
from models.tree import Trunk, forward
from rlp.data.batch import Batch
from rlp.engine import scoring, step
from rlp.engine.gradient import policy_gradient
from rlp.engine.stages import Setup, stages_of
from rlp.objectives import equations
from rlp.training import flops
from rlp.training.cost import PARTS
from tests.support import tiny
from tests.support.forest import forest, mask

CONFIG = ModelConfig(512, 256, 1, 4, 2, 64, 768)
ROWS, LENGTH = 4, 96


def counted_by_xla(run, *args) -> float:
    """Return the FLOPs of the lowered program, before XLA's optimizations, without compiling."""
    return jax.jit(run).lower(*args).cost_analysis()["flops"]


def struct(*shape, dtype=jnp.int32):
    return jax.ShapeDtypeStruct(shape, dtype)


def in_chunks(monkeypatch, tokens, count):
    """Compute the logits of this many tokens in `count` chunks."""
    limit = tokens * CONFIG.vocab_size // count
    limits = dataclasses.replace(backend.CPU, logits=limit, kept_logits=limit)
    monkeypatch.setattr(backend, "CPU", limits)


def uncounted(tokens, chunks):
    """Return the FLOPs of the logits of `tokens` in all chunks but one: XLA counts one."""
    return flops.logit_flops(CONFIG) * tokens * (chunks - 1) // chunks


TEXT = ROWS * (LENGTH - 1)  # tokens of a text loss
TRUNK = Trunk(*[struct(ROWS, LENGTH)] * 3)
BATCH = Batch(*[struct(ROWS, LENGTH)] * 3, struct(ROWS), struct(ROWS, 1))  # type: ignore[arg-type]
VARIANTS = [
    {"target_weight": 0.5, "objective": "shuffled_target"},
    {},
    {"prompt": tuple(range(5, 21))},
    {"baseline": "none", "group_size": 2, "horizon": 8},
    {"positions": "loss", "forks_per_document": 4},
    {"objective": "other_document", "horizon": 2},
    {"kl_weight": 0.1, "prompt": tuple(range(5, 21))},
]


def test_forward():
    def run(params, trunk):
        model = bind(CONFIG, params)
        return model.logits(forward(model, trunk))

    work = flops.on_rows(ROWS, LENGTH, logits=ROWS * LENGTH)
    actual = counted_by_xla(run, shapes(CONFIG), TRUNK)
    assert 1 <= actual / flops.forward_flops(CONFIG, work) < 1.05


@pytest.mark.parametrize("remat", ["none", "block", "dots"])
@pytest.mark.parametrize("chunks", [1, 2])
def test_training(remat, chunks, monkeypatch):
    config = ModelConfig(512, 256, 1, 4, 2, 64, 768, remat=remat)
    in_chunks(monkeypatch, TEXT, chunks)
    gradient = functools.partial(step.next_token_gradient, config)
    actual = counted_by_xla(gradient, shapes(config), BATCH)
    count = flops.next_token_flops(config, 0, ROWS, LENGTH)["update"]["update"]
    assert 1 <= actual / (count - 3 * uncounted(TEXT, chunks)) < 1.06


def test_kernels_compute_what_can_be_seen():
    f = forest(rows=1, trunk=30, documents=1, branches=3, slots=8)
    length = int((f.shared.segment > 0).sum())
    everywhere = jax.tree.map(jnp.zeros_like, f.own)  # all slots live, all forks at the end
    own = everywhere.replace(
        segment=everywhere.segment + 1,
        branch=everywhere.branch + jnp.arange(1, 4)[None, :, None],
        position=everywhere.position + length + jnp.arange(8)[None, None],
        fork=everywhere.fork + length,
    )
    trunk = dataclasses.replace(f, own=None, at=jax.tree.map(lambda x: x[:, None], f.shared))
    branches = dataclasses.replace(f, at=own, own=own)
    with backend.compiling_for("tpu"):
        assert offered_pairs(CONFIG, TrunkTokens(1, length)) == mask(trunk).sum()
        on_branches = lambda count, slots: BranchTokens(count, slots, trunk=length, room=8)
        assert offered_pairs(CONFIG, on_branches(3 * 8, range(8))) == mask(branches).sum()
        assert offered_pairs(CONFIG, on_branches(3, range(7, 8))) == 3 * (length + 8)


TAGS = {"think_open": (5, 6, 7), "think_close": (8, 9)}


@pytest.mark.parametrize(
    ("changes", "tags"), [*((changes, {}) for changes in VARIANTS), ({}, TAGS)], ids=str
)
def test_rlp_step_by_parts(changes, tags, monkeypatch):
    counted, actual = parts_of_a_step(changes, tags, monkeypatch)
    for part, count in actual.items():
        assert 1 <= count / counted[part] < 1.03, part


@pytest.mark.parametrize("group_size", [2, 8])
def test_the_logits_of_a_text_loss_are_computed_once(group_size, monkeypatch):
    """Those of actions are recomputed if they, too, are computed in chunks."""
    in_chunks(monkeypatch, TEXT, 2)
    actions = ROWS * 2 * group_size * 8
    changes = {"group_size": group_size, "next_token_weight": 0.5}
    counted, actual = parts_of_a_step(changes, {}, monkeypatch)
    chunks = scoring.logit_chunks(actions, CONFIG.vocab_size)
    assert chunks == {2: 1, 8: 3}[group_size]
    apart = 3 * uncounted(TEXT, 2) + 4 * uncounted(actions, chunks)
    assert 1 <= actual["update"] / (counted["update"] - apart) < 1.03


def parts_of_a_step(changes, tags, monkeypatch):
    """Return the FLOPs of the parts of a step: as counted here, and as counted by XLA."""
    one_loop = dataclasses.replace(backend.CPU, decode_divisors=(1,))
    monkeypatch.setattr(backend, "CPU", one_loop)  # one decoding loop, so one step is counted
    settings = tiny.rlp_settings(**({"thought_length": 8, "group_size": 8} | changes))
    vocabulary = tiny.words(CONFIG, **tags)
    params = shapes(CONFIG)

    def run(stage, *inputs, settings=settings):
        stage = functools.partial(stage, CONFIG, settings, vocabulary)
        return counted_by_xla(stage, *inputs), jax.eval_shape(stage, *inputs)

    def gradient(config, settings, vocabulary, params, rollout, advantages, reference):
        counted = jnp.ones(advantages.shape, bool)
        targets = advantages if settings.learns_target else None
        inputs = (rollout, advantages, counted, reference, targets)
        return policy_gradient(params, config, settings, vocabulary, *inputs)

    key, actual = jax.eval_shape(lambda: jax.random.key(0)), {}
    read = (params, params, BATCH, key, struct())
    chosen, reading = run(step.read_stage, *read)
    anywhere = dataclasses.replace(settings, positions="uniform")
    actual["prefill"], _ = run(step.read_stage, *read, settings=anywhere)
    policy, no_think = run(step.no_think_stage, params, None, BATCH, reading)
    actual["decode"], rollout = run(step.rollout_stage, params, reading)
    scored, _ = run(step.evidence_stage, params, reading, no_think, rollout)
    actual["scoring"] = chosen - actual["prefill"] + policy + scored
    if settings.baseline != "none":
        actual["baseline"] = run(step.no_think_stage, params, params, BATCH, reading)[0] - policy
    reference = None
    if settings.kl_weight:
        actual["reference"], reference = run(step.reference_stage, params, rollout)
    advantages = struct(*rollout.thoughts.length.shape, dtype=jnp.float32)
    actual["update"], _ = run(gradient, params, rollout, advantages, reference)

    decoded = rollout.thoughts.length.size
    counted = flops.by_part(flops.rlp_flops(CONFIG, settings, vocabulary, 0, ROWS, LENGTH, decoded))
    optimizer = counted.pop("optimizer")
    assert optimizer == (3 * count_parameters(CONFIG) if settings.baseline == "ema" else 0)
    assert {part for part, count in counted.items() if count} == set(actual)
    return counted, actual


def test_moving_average():
    params = {"kernel": struct(64, 32, dtype=jnp.float32)}
    average = lambda phi, theta: jax.tree.map(lambda *x: equations.ema(*x, 0.9), phi, theta)
    assert counted_by_xla(average, params, params) == flops.EMA_FLOPS * 64 * 32


def test_phases_and_parts_are_the_same_sum():
    settings, words = tiny.rlp_settings(kl_weight=0.1, positions="loss"), tiny.words(CONFIG)
    by_stage = flops.rlp_flops(CONFIG, settings, words, 1000, ROWS, LENGTH, 100)
    parts, phases = flops.by_part(by_stage), flops.by_phase(by_stage)
    assert set(parts) == set(PARTS)
    assert set(phases) == {"rollout", "evidence", "update"}
    assert sum(parts.values()) == sum(phases.values())
    assert parts["scoring"] > by_stage["evidence"]["scoring"] > 0  # of forks, and of targets
    assert parts["optimizer"] == 1000 + flops.EMA_FLOPS * count_parameters(CONFIG)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kl_weight": 0.1, "positions": "loss", "prompt": (9,)},
        {"objective": "rlvr", "baseline": "none"},
    ],
)
def test_a_stage_computes_the_parts_that_it_declares(changes):
    settings, words = tiny.rlp_settings(**changes), tiny.words(CONFIG)
    setup = Setup(CONFIG, settings, words, None, make_mesh(devices=jax.devices()[:1]))
    declared = {stage.name: set(stage.flops.split()) for stage in stages_of(setup)}
    by_stage = flops.rlp_flops(CONFIG, settings, words, 1000, ROWS, LENGTH, 100)
    for stage, counts in by_stage.items():
        assert set(counts) <= declared.get(stage, set(counts)), stage
        assert stage in declared or not any(counts.values()), stage
    unused = {"baseline", "optimizer"} if settings.baseline == "none" else set()
    for stage, parts in declared.items():
        counted = {part for part, count in by_stage.get(stage, {}).items() if count}
        assert parts - counted <= {"scoring"} | unused, stage  # forks need no scores


def test_counts_grow_as_the_work_does():
    settings, words = tiny.rlp_settings(), tiny.words(CONFIG)

    def count(decoded=ROWS * 8 * 4, **changes):
        settings = tiny.rlp_settings(**changes)
        by_stage = flops.rlp_flops(CONFIG, settings, words, 10, ROWS, LENGTH, decoded)
        return sum(flops.by_phase(by_stage).values())

    slots = range(settings.thought_length)
    on_branches = lambda count: BranchTokens(count, slots, LENGTH, room=len(slots))
    update = flops.on_rows(ROWS, LENGTH, logits=ROWS * 8 * 4)
    update += flops.Work((on_branches(ROWS * 8 * 4),))
    # With a loss on the documents every block of the trunk is trained, and its logits computed.
    text = {"next_token_weight": 1.0}
    extra = count(updates_per_rollout=3, **text) - count(**text)
    update += flops.Work(text=TEXT)
    assert extra == 2 * (flops.training_flops(CONFIG, update) + 10)
    assert count(minibatches=2) == count() + 10  # a pass has two updates
    # A step that decodes one token less per branch saves exactly that.
    one = flops.forward_flops(CONFIG, flops.Work((on_branches(ROWS * 8),), ROWS * 8))
    assert count(ROWS * 8 * 3) == count() - one
    two_layers, one = ModelConfig(512, 256, 2, 4, 2, 64, 768), flops.on_rows(ROWS, LENGTH)
    assert flops.forward_flops(two_layers, one) == 2 * flops.forward_flops(CONFIG, one)
    assert np.prod([2, 3]) * flops.logit_flops(CONFIG) == 6 * 2 * 256 * 512
