"""The gradient in micro-batches equals the gradient at once, and needs the memory of one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import backend
from models.transformer import bind, shapes
from models.tree import Branches, Trunk, forward
from rlp.engine.branches import Thoughts, document_trunk
from rlp.engine.gradient import policy_gradient
from rlp.engine.rollout import Rollout
from tests.support import tiny
from tests.support.engine import BATCH, CONFIG, PARAMS, PROMPT, SETTINGS, SMALL, WORDS, rolled, slow

MASKED = tiny.rlp_settings(unclosed="mask", prompt=PROMPT)
WEIGHTED = dataclasses.replace(MASKED, next_token_weight=0.5, kl_weight=0.1)


@functools.cache
def thoughts_of(settings, config):
    """A rollout of a slightly older policy, with advantages [B, N] and counted [B, N]."""
    rollout = rolled(config, settings, (1,)).without_cache()
    thoughts, random = rollout.thoughts, np.random.default_rng(0)
    live = np.arange(thoughts.actions.shape[-1]) < thoughts.length[..., None]
    moved = thoughts.logprobs + random.uniform(-0.5, 0.5, live.shape).astype(np.float32)
    rollout = dataclasses.replace(
        rollout, thoughts=thoughts.replace(logprobs=np.where(live, moved, 0)), decoded=None
    )
    advantages = random.normal(size=thoughts.length.shape).astype(np.float32)
    masked = settings.unclosed == "mask"
    counted = thoughts.closed if masked else random.random(thoughts.length.shape) < 0.8
    return rollout, advantages, counted


@functools.cache
def gradient_of(settings, config, remat="none", unrolled_layers=8):
    """Return loss, metrics and gradient."""
    with_remat = dataclasses.replace(config, remat=remat)

    def run(params, *inputs):
        return policy_gradient(
            params, with_remat, settings, WORDS, *inputs,
            micro_batch=settings.update_micro_batch,
        )  # fmt: skip

    drawn = thoughts_of(MASKED if settings.prompt else SETTINGS, config)
    reference = drawn[0].thoughts.logprobs if settings.kl_weight else None
    weights = 0.7 * np.abs(drawn[1]) * drawn[2] if settings.target_weight else None
    drawn = (*drawn, reference, weights)
    inputs = jax.tree.map(jnp.asarray, drawn)
    choices = dataclasses.replace(backend.CPU, unrolled_layers=unrolled_layers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "CPU", choices)
        return jax.device_get(tiny.jit(run)(PARAMS(config), *inputs))


on_configs = pytest.mark.parametrize(
    "config", [SMALL, pytest.param(CONFIG, marks=slow)], ids=["1 layer", "2 layers"]
)


def assert_same_gradient(actual, expected):
    (value, metrics, gradient), (whole, whole_metrics, whole_gradient) = actual, expected
    assert value == pytest.approx(float(whole), rel=1e-5)
    assert metrics.keys() == whole_metrics.keys()
    for name in metrics:
        assert metrics[name] == pytest.approx(float(whole_metrics[name]), rel=1e-5), name
    assert tiny.relative_error(gradient, whole_gradient) < 1e-5


# Micro-batches.


@on_configs
def test_a_gradient_one_branch_at_a_time_is_the_gradient_at_once(config):
    each = dataclasses.replace(WEIGHTED, update_micro_batch=1)
    assert_same_gradient(gradient_of(each, config, "block"), gradient_of(WEIGHTED, config))


TARGETED = dataclasses.replace(WEIGHTED, target_weight=0.5)


@pytest.mark.parametrize(
    ("settings", "remat"),
    [
        pytest.param(TARGETED, "block", id="all losses"),
        pytest.param(MASKED, "none", id="actions", marks=slow),
    ],
)
def test_a_gradient_in_one_pass_is_that_of_documents_and_then_branches(settings, remat):
    """Scanned layers run documents and branches together, unrolled ones do not."""
    scanned = gradient_of(settings, CONFIG, remat, unrolled_layers=0)
    assert_same_gradient(scanned, gradient_of(settings, CONFIG))
    one_each = dataclasses.replace(settings, update_micro_batch=1)
    assert_same_gradient(scanned, gradient_of(one_each, CONFIG, remat, unrolled_layers=0))


# Each of the settings, sizes and kinds of remat occurs with some of the others.
@slow
@pytest.mark.parametrize(
    ("settings", "limit", "remat"),
    [
        pytest.param(SETTINGS, 3, "none", id="3"),
        pytest.param(SETTINGS, 8, "dots", id="8-dots"),
        pytest.param(MASKED, 0, "block", id="mask-0-block"),
        pytest.param(MASKED, 16, "none", id="mask-16"),
        pytest.param(WEIGHTED, 4, "block", id="weighted-4-block"),
        pytest.param(WEIGHTED, 1, "dots", id="weighted-1-dots"),
    ],
)
def test_a_gradient_in_micro_batches_is_the_gradient_at_once(settings, limit, remat):
    cut = dataclasses.replace(settings, update_micro_batch=limit)
    assert_same_gradient(gradient_of(cut, CONFIG, remat), gradient_of(settings, CONFIG))


on_thoughts = pytest.mark.parametrize(
    "settings", [MASKED, pytest.param(SETTINGS, marks=slow)], ids=["prompt and mask", "neither"]
)


@on_thoughts
@on_configs
def test_the_thoughts_of_the_micro_batches_are_clipped_and_counted_in_part(settings, config):
    _, metrics, _ = gradient_of(settings, config)
    assert 0 < metrics["clip_fraction"] < 1
    _, _, counted = thoughts_of(settings, config)
    assert 0 < counted.mean() < 1


def document_loss(params, config, trunk, places):
    """Return the mean next-token loss at some places (row, column) of a trunk, nats."""
    model = bind(config, params)
    table = jax.nn.log_softmax(model.logits(forward(model, trunk)), axis=-1)
    row, column = places
    return -table[row, column - 1, trunk.tokens[row, column]].mean()


@on_thoughts
@on_configs
def test_the_next_token_loss_is_added_with_its_weight(settings, config):
    weight, start = 0.5, len(settings.prompt)
    lengths = (BATCH.segment > 0).sum(axis=1)
    # All words of a document but its first one.
    pairs = [(b, start + t) for b, length in enumerate(lengths) for t in range(1, length)]
    places = tuple(jnp.array(pairs).T)
    loss, slope = tiny.jit(jax.value_and_grad(document_loss), static_argnums=1)(
        PARAMS(config), config, document_trunk(BATCH, settings.prompt, settings.bos), places
    )
    value, bare_metrics, bare_gradient = gradient_of(settings, config)
    weighted = dataclasses.replace(settings, next_token_weight=weight)
    actual, metrics, gradient = gradient_of(weighted, config)
    assert "next_token_loss" not in bare_metrics
    assert metrics["next_token_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert actual == pytest.approx(float(value) + weight * float(loss), rel=1e-5)
    total = jax.tree.map(lambda g, d: g + weight * d, bare_gradient, slope)
    assert tiny.relative_error(gradient, total) < 1e-5
    assert tiny.relative_error(gradient, bare_gradient) > 0.1
    assert tiny.relative_error(gradient, jax.tree.map(lambda d: weight * d, slope)) > 0.1


FEW, LENGTH, WORDS_EACH = 32, 64, 16  # branches, tokens of the trunk, tokens of a thought
CHUNKED = dataclasses.replace(backend.CPU, row_scores=2**14, logits=2**14, kept_logits=2**14)


@functools.cache
def memory(branches, length, micro_batch=0, choices=CHUNKED, layers=1):
    """Return the temporary bytes of the gradient of one document's branches."""
    config = dataclasses.replace(CONFIG, num_layers=layers, remat="block")
    settings = tiny.rlp_settings(group_size=branches, forks_per_document=1)
    of = lambda dtype, *shape: jax.ShapeDtypeStruct((1, *shape), dtype)
    trunk = Trunk(*[of(jnp.int32, length)] * 3)
    slot = of(jnp.int32, branches, WORDS_EACH + settings.horizon + 1)
    per_branch, action = of(jnp.int32, branches), of(jnp.int32, branches, WORDS_EACH)
    live, counted = of(bool, *slot.shape[1:]), of(bool, branches)
    rollout = Rollout(
        trunk=trunk,
        branches=Branches(slot, slot, live, per_branch, per_branch),
        branch_cache=None,
        thoughts=Thoughts(action, per_branch, counted, of(jnp.float32, *action.shape[1:])),
        target=None,
        present=None,
        decoded=None,
    )

    def run(params, *inputs):
        return policy_gradient(params, config, settings, WORDS, *inputs, micro_batch=micro_batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "CPU", choices)
        lowered = tiny.jit(run).lower(shapes(config), rollout, of(jnp.float32, branches), counted)
    return lowered.compile().memory_analysis().temp_size_in_bytes


def one_score_each(branches, length, layers=1):
    """Return the bytes of one float32 per head and pair of thought token and trunk token."""
    return 4 * layers * CONFIG.num_heads * branches * WORDS_EACH * length


on_layers = pytest.mark.parametrize("layers", [1, pytest.param(2, marks=slow)])


# Memory.


@on_layers
def test_memory_grows_with_the_branches_as_with_the_trunk_but_not_with_their_product(layers):
    size = functools.partial(memory, layers=layers)
    growth = size(2 * FEW, LENGTH) - size(FEW, LENGTH)
    assert growth > one_score_each(FEW, LENGTH, layers)  # so a product would be noticed
    far = size(2 * FEW, 2 * LENGTH) - size(FEW, 2 * LENGTH)
    assert abs(far - growth) < 0.05 * one_score_each(FEW, LENGTH, layers)


@slow
@pytest.mark.parametrize(("layers", "length"), [(1, 2 * LENGTH), (2, LENGTH)])
def test_memory_grows_with_the_branches_and_not_faster(length, layers):
    size = functools.partial(memory, length=length, layers=layers)
    growth = size(2 * FEW) - size(FEW)
    assert size(4 * FEW) - size(2 * FEW) == pytest.approx(2 * growth, rel=0.1)


@slow
def test_memory_with_all_scores_alive_shows_the_product():
    unbounded = dataclasses.replace(CHUNKED, row_scores=2**30)
    more = memory(2 * FEW, LENGTH, choices=unbounded) - memory(2 * FEW, LENGTH)
    assert more > one_score_each(2 * FEW, LENGTH)


@on_layers
def test_memory_of_micro_batches_is_that_of_one(layers):
    size = functools.partial(memory, length=LENGTH, layers=layers)
    more = size(2 * FEW, micro_batch=FEW) - size(FEW)
    assert more < 0.1 * (size(2 * FEW) - size(FEW))
