"""Schedule, decay and clipping of the optimizer follow the config."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from models.transformer import shapes
from rlp.engine.optimizer import make_optimizer
from tests.support import tiny

NUMBERS = {
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "warmup_steps": 4,
    "final_share": 0.1,
    "total_steps": 20,
    "beta1": 0.9,
    "beta2": 0.95,
    "epsilon": 1e-8,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
}


def make(**changes):
    return make_optimizer(**(NUMBERS | changes))


def update(optimizer, gradients, state, params):
    """Return new parameters, new state and the norm of the gradients."""
    norm = optax.tree.norm(gradients)
    return *optimizer.apply(gradients, state, params, norm=norm), norm


def test_warm_up_is_linear_and_reaches_the_peak():
    for schedule in ("cosine", "constant"):
        rate = make(schedule=schedule).learning_rate
        np.testing.assert_allclose(
            [rate(step) for step in range(5)],
            2e-3 * np.array([0.25, 0.5, 0.75, 1, 1]),
            rtol=1e-6,
        )


def test_cosine_ends_at_its_share():
    rate = make().learning_rate
    half = 4 + (20 - 4) // 2
    assert rate(half) == pytest.approx(2e-3 * (1 + 0.1) / 2, rel=1e-6)
    assert rate(20) == pytest.approx(2e-4, rel=1e-6)
    assert rate(1000) == pytest.approx(2e-4, rel=1e-6)
    falling = [float(rate(step)) for step in range(4, 21)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("warmup", [0, 1])
def test_without_warm_up_the_first_step_has_the_peak(warmup):
    rate = make(schedule="constant", warmup_steps=warmup).learning_rate
    assert [float(rate(step)) for step in (0, 1, 500)] == pytest.approx([2e-3] * 3)


def test_an_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="schedule='linear'.*constant.*cosine"):
        make(schedule="linear")


def test_decay_touches_matrices_only():
    tree = shapes(tiny.model_config(tie_embeddings=False))
    params = jax.tree.map(lambda x: np.full(x.shape, 0.5, np.float32), tree)
    optimizer = make(weight_decay=0.5, schedule="constant", warmup_steps=0)
    nothing = jax.tree.map(np.zeros_like, params)
    after, _, _ = tiny.jit(functools.partial(update, optimizer))(
        nothing, tiny.jit(optimizer.init)(params), params
    )
    seen = set()
    pairs = zip(*map(jax.tree_util.tree_leaves_with_path, (params, after)), strict=True)
    for (path, old), (_, new) in pairs:
        leaf = path[-1].key
        seen.add(leaf)
        np.testing.assert_allclose(new, old if leaf == "scale" else old * (1 - 1e-3), rtol=1e-6)
    assert seen == {"embedding", "kernel", "scale"}


def test_an_update_is_adamw():
    params = {"kernel": jnp.array([[0.5, -2.0]]), "scale": jnp.array([1.0])}
    optimizer = make(weight_decay=0.1)
    apply, state = tiny.jit(functools.partial(update, optimizer)), optimizer.init(params)
    m = v = 0.0
    x = 0.5
    for step in range(6):
        g = 0.3 * step - 0.5
        gradient = {"kernel": jnp.array([[g, 1.0]]), "scale": jnp.array([0.0])}
        params, state, _ = apply(gradient, state, params)
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        hat_m, hat_v = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.95 ** (step + 1))
        x -= float(optimizer.learning_rate(step)) * (hat_m / (hat_v**0.5 + 1e-8) + 0.1 * x)
        assert params["kernel"][0, 0] == pytest.approx(x, rel=1e-5)


def test_an_optimizer_that_cannot_overflow_does_not():
    largest = float(np.finfo(np.float32).max)
    settings = {"schedule": "constant", "warmup_steps": 0, "learning_rate": 2e3, "epsilon": 1e-8}
    assert not make(**settings, weight_decay=5e-4).can_overflow
    for changes in ({"learning_rate": 2e5}, {"epsilon": 0.0}, {"weight_decay": 1e-3}):
        assert make(**(settings | changes)).can_overflow
    optimizer = make(**settings)
    params = {"kernel": jnp.full((1, 1), largest)}
    state = optimizer.init(params)
    for gradient in (-(largest**0.5), -1.0, -1e-30, 0.0):
        arrays = {"kernel": jnp.full((1, 1), gradient)}
        assert np.isfinite(update(optimizer, arrays, state, params)[0]["kernel"]).all()


def test_gradients_are_clipped_by_their_global_norm():
    # Adam forgets the scale of a constant gradient, but not of one that changes.
    params = {"kernel": jnp.zeros((1, 2))}
    small, large = ({"kernel": jnp.array([x])} for x in ([0.6, 0.8], [60.0, 80.0]))
    clipped, free = make(clip_norm=1.0), make(clip_norm=0.0)

    def two_steps(optimizer, second):
        after, state, norm = update(optimizer, small, optimizer.init(params), params)
        assert norm == pytest.approx(1.0)
        after, _, norm = update(optimizer, second, state, after)
        assert norm == pytest.approx(100.0 if second is large else 1.0)  # before clipping
        return after["kernel"]

    np.testing.assert_allclose(two_steps(clipped, large), two_steps(clipped, small), rtol=1e-6)
    assert not np.allclose(two_steps(free, large), two_steps(free, small))


@pytest.mark.parametrize("changes", [{}, {"clip_norm": 1.0, "weight_decay": 0.1}], ids=str)
def test_flops_are_those_that_xla_counts(changes):
    matrix, vector = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((256, 64), (256,)))
    params = {
        "embedding": matrix,
        "norm": {"scale": vector},
        "out": {"kernel": matrix, "bias": vector},
    }
    optimizer = make(schedule="constant", warmup_steps=0, **changes)
    state = jax.eval_shape(optimizer.init, params)
    actual = (
        jax.jit(functools.partial(update, optimizer))
        .lower(params, state, params)
        .compile()
        .cost_analysis()
    )
    scalars = actual["flops"] + actual["transcendentals"] - optimizer.flops(params)
    assert 0 <= scalars < 64  # scalars, such as the bias corrections
