"""An update changes the fields that it should and no others; next-token training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlp.data.batch import Batch
from rlp.engine import step
from rlp.engine.optimizer import make_optimizer
from rlp.engine.step.update import _apply
from tests.support import naive, tiny
from tests.support.step import CONFIG, PARAMS, PHI, SETTINGS, WORDS, run
from tests.support.tiny import PAD


def tiny_optimizer(learning_rate):
    return make_optimizer(
        learning_rate=learning_rate, schedule="constant", warmup_steps=0, final_share=1.0,
        total_steps=9, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1, clip_norm=1.0,
    )  # fmt: skip


@functools.cache
def trained(learning_rate=0.001):
    """Return the compiled update, its rollout and evidence, and the first state."""
    optimizer = tiny_optimizer(learning_rate)
    update = tiny.jit(functools.partial(step.update_stage, CONFIG, SETTINGS, WORDS, optimizer))
    rollout, _, evidence = run(SETTINGS, PHI)
    return update, rollout, evidence, step.new_state(PARAMS, optimizer, True)


def assert_identical(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Updates.


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e38])
def test_a_bad_gradient_leaves_the_state_and_is_counted(poison):
    # 1e38 gives a finite loss whose gradient overflows.
    update, rollout, evidence, state = trained()
    wild = evidence.advantages.at[0, 0, :2].set(jnp.array([poison, -poison]))
    bad = evidence.replace(advantages=wild)
    state, metrics = update(state, rollout, evidence)
    assert np.isfinite(metrics["loss"])
    assert (state.skipped, state.skipped_in_row) == (0, 0)
    for number in (1, 2):
        after, metrics = update(state, rollout, bad)
        assert not np.isfinite(metrics["grad_norm"])
        assert_identical(
            (after.params, after.optimizer, after.baseline),
            (state.params, state.optimizer, state.baseline),
        )
        assert (after.skipped, after.skipped_in_row) == (number, number)
        state = after
    after, _ = update(state, rollout, evidence)
    assert (after.skipped, after.skipped_in_row) == (2, 0)
    assert tiny.relative_error(after.params, state.params) > 0


def test_a_step_into_overflow_is_not_taken():
    update, rollout, evidence, state = trained(learning_rate=1e39)
    after, metrics = update(state, rollout, evidence)
    assert np.isfinite(metrics["loss"])
    assert np.isfinite(metrics["grad_norm"])
    assert (after.skipped, after.skipped_in_row) == (1, 1)
    assert_identical((after.params, after.optimizer), (state.params, state.optimizer))


@pytest.mark.parametrize("learning_rate", [0.001, 1e39])
def test_the_state_is_updated_in_place(learning_rate):
    """Parameters and moments are never in memory twice; one copy of the parameters is not needed
    either unless the result has to be checked."""
    rows = 1000
    optimizer = tiny_optimizer(learning_rate)
    params = {"embedding": jnp.zeros((rows, 64)), "norm": {"scale": jnp.zeros((64,))}}
    apply = lambda state, gradients: _apply(jnp.zeros(()), {}, gradients, optimizer, state)[0]
    state = step.new_state(params, optimizer, baseline=False)
    program = jax.jit(apply, donate_argnums=0).lower(state, params).compile()
    memory = program.memory_analysis()
    allowed = 0.5 if optimizer.can_overflow else 0.1
    assert memory.temp_size_in_bytes < allowed * rows * 64 * 4
    assert memory.alias_size_in_bytes > 3 * rows * 64 * 4


def test_further_updates_on_a_rollout_are_off_policy():
    update, rollout, evidence, state = trained()
    state, first = update(state, rollout, evidence)
    state, second = update(state, rollout, evidence)
    assert first["clip_fraction"] == 0
    assert first["logprob_gap"] < 1e-5
    assert second["clip_fraction"] > 0
    assert second["logprob_gap"] > 0.05
    assert second["loss"] < first["loss"] - 0.01  # better thoughts have become likelier


def test_finish_step_counts_and_moves_phi():
    *_, state = trained()
    state = state.replace(baseline=PHI)
    for kind, share in (("ema", 0.9), ("frozen", 1.0)):
        after = step.finish_step(tiny.rlp_settings(baseline=kind), state)
        assert after.step == state.step + 1
        jax.tree.map(
            lambda new, phi, theta, share=share: np.testing.assert_allclose(
                new, share * phi + (1 - share) * theta, rtol=1e-6, atol=1e-6
            ),
            after.baseline,
            PHI,
            PARAMS,
        )
    none = step.finish_step(tiny.rlp_settings(baseline="none"), state.replace(baseline=None))
    assert none.baseline is None


def test_phi_and_the_reference_start_as_copies_of_theta():
    state = step.new_state(PARAMS, Descent(), baseline=True, reference=True)
    assert_identical(state.baseline, state.params)
    assert_identical(state.reference, state.params)
    leaves = jax.tree.leaves((state.params, state.baseline, state.reference))
    # phi and pi_ref have separate buffers, so that those of theta can be donated.
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def test_a_reference_is_kept_for_a_kl_term_unless_phi_is_it():
    kept = lambda **changes: tiny.rlp_settings(**changes).keeps_reference
    assert not kept()
    assert kept(kl_weight=0.1)
    assert kept(kl_weight=0.1, baseline="none")
    assert not kept(kl_weight=0.1, baseline="frozen")


def test_a_reference_never_moves():
    state = step.new_state(PARAMS, Descent(), baseline=True, reference=True)
    after = step.finish_step(SETTINGS, state.replace(params=PHI))
    assert_identical(after.reference, PARAMS)


# Next-token training.


def test_next_token_loss_is_a_mean_over_tokens_of_packed_documents():
    texts = [tiny.documents(s, [n], n, 22).tokens[0] for s, n in ((1, 7), (2, 9), (3, 12), (4, 4))]
    tokens = np.full((2, 18), PAD, np.int32)
    segment, position = np.zeros_like(tokens), np.zeros_like(tokens)
    for row, places in enumerate([[0, 1], [2, 3]]):
        start = 0
        for number, i in enumerate(places, 1):
            place = slice(start, start + len(texts[i]))
            tokens[row, place], segment[row, place] = texts[i], number
            position[row, place] = np.arange(len(texts[i]))
            start += len(texts[i])
    forks = np.full((2, 1), -1, np.int32)
    batch = Batch(tokens, segment, position, np.arange(2, dtype=np.int32), forks)
    descent = Descent()
    state = step.new_state(PARAMS, descent, False)
    stage = tiny.jit(functools.partial(step.next_token_stage, CONFIG, descent))
    after, metrics, _ = stage(state, batch)
    gradient = jax.tree.map(jnp.subtract, state.params, after.params)

    rows = np.full((4, 12), PAD, np.int32)
    for i, text in enumerate(texts):
        rows[i, : len(text)] = text
    length = np.array([len(text) for text in texts])

    @tiny.jit
    @jax.value_and_grad
    def by_rows(params):
        table = naive.distribution(naive.logits(CONFIG, params, rows, length), ())
        chosen = jnp.take_along_axis(table[:, :-1], jnp.asarray(rows)[:, 1:, None], axis=-1)[..., 0]
        inside = jnp.arange(1, 12)[None, :] < length[:, None]
        return -jnp.where(inside, chosen, 0.0).sum() / (7 + 9 + 12 + 4 - 4)

    loss, expected = by_rows(PARAMS)
    assert metrics["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert metrics["no_think_loss"] == metrics["loss"]
    # The difference of parameters of size 1 has their rounding errors, 2**-24 each.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=5e-7), gradient, expected
    )
    assert after.step == 1


class Descent:
    """Gradient descent with learning rate 1, as an optimizer."""

    can_overflow = False

    def init(self, params):
        return ()

    def apply(self, gradients, state, params, *, norm):
        return jax.tree.map(jnp.subtract, params, gradients), state
