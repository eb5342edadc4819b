"""Rollouts follow the probabilities, thoughts see only their prefix, and counts are right."""

import dataclasses
import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.layers.key_values import KeyValues
from models.mask import HIDDEN_SCORE
from models.transformer import bind
from models.tree import empty_branch_cache, extend
from rlp.engine.branches import document_trunk
from rlp.engine.decoding import decode_widths
from rlp.engine.gradient import policy_gradient
from rlp.engine.sampling import document_keys, fork_keys, likeliest, sample, thought_uniforms
from tests.support import naive, tiny
from tests.support.tiny import CLOSE, PAD

CONFIG = tiny.model_config()
WORDS = tiny.words(CONFIG)
PARAMS = functools.partial(tiny.params, CONFIG)
KEY = jax.random.key(7)
BATCH = tiny.documents(0, [12, 16, 9, 14], 16, 22, forks=2)
SETTINGS = tiny.rlp_settings(group_size=6)
# Tags of two tokens; the closing one is likely under these parameters.
TAGGED = tiny.rlp_settings(group_size=6, thought_length=6)
TAGS = tiny.words(CONFIG, think_open=(7, 8), think_close=(3, 3))
GREEDY = tiny.rlp_settings(group_size=1, temperature=0.0, positions="given")


def roll(settings, batch=BATCH, params=None, key=KEY, step=3, words=WORDS):
    params = PARAMS() if params is None else params
    stage = tiny.rollout_stage(CONFIG, settings, words)
    rollout, reading = stage(params, params, batch, key, jnp.int32(step))
    return rollout, reading.forks


def written_out(rollout, forks, settings, batch=BATCH, prompt=(), words=WORDS):
    """Return the thoughts of a rollout as naive rows, in the order of its branches."""
    thoughts, branches = jax.tree.map(np.asarray, rollout.thoughts), []
    for b, n in np.ndindex(*thoughts.length.shape):
        branches.append(
            naive.Branch(
                batch.tokens[b].tolist(),
                int(forks.position[b, n // settings.group_size]),
                thoughts.actions[b, n, : thoughts.length[b, n]].tolist(),
                settings.horizon,
            )
        )
    return naive.write_out(branches, words, settings.thought_length, 28, prompt)


# ---- sample


@pytest.mark.parametrize("size", [5, 128, 129, 300])
def test_draws_that_are_even_give_tokens_their_share(size):
    # Inverse CDF: M evenly spaced numbers select a token of probability p p·M times, up to one at
    # each end of its interval.
    random = np.random.default_rng(size)
    logits = random.normal(0, 1.5, size).astype(np.float32)
    count = 20000
    uniform = (np.arange(count, dtype=np.float32) + 0.5) / count
    tokens, _ = tiny.jit(sample)(jnp.broadcast_to(jnp.asarray(logits), (count, size)), uniform)
    share = np.exp(logits - logits.max(), dtype=np.float64)
    share /= share.sum()
    seen = np.bincount(tokens, minlength=size)
    assert len(seen) == size
    assert np.abs(seen - share * count).max() <= 1.1


@pytest.mark.parametrize("size", [3, 29, 127, 128, 129, 200, 1000])
def test_probability_zero_is_never_picked(size):
    random = np.random.default_rng(size)
    rows = 2000
    hidden = random.random((rows, size)) < 0.5
    hidden[np.arange(rows), random.integers(0, size, rows)] = False
    logits = np.where(hidden, HIDDEN_SCORE, random.normal(0, 3, (rows, size))).astype(np.float32)
    one = np.float32(1)
    ends = [0.0, 1e-38, 2.0**-23, 1 - 2.0**-23, np.nextafter(one, np.float32(0))]
    run = tiny.jit(sample)
    for uniform in [*(np.full(rows, x, np.float32) for x in ends), random.random(rows)]:
        tokens, logprobs = map(np.asarray, run(logits, jnp.asarray(uniform, jnp.float32)))
        assert ((tokens >= 0) & (tokens < size)).all()
        assert not hidden[np.arange(rows), tokens].any()
        expected = jax.nn.log_softmax(logits)[np.arange(rows), tokens]
        np.testing.assert_allclose(logprobs, expected, rtol=1e-5, atol=1e-6)
    best, logprobs = map(np.asarray, likeliest(logits))
    np.testing.assert_array_equal(best, logits.argmax(axis=-1))
    np.testing.assert_allclose(
        logprobs, jax.nn.log_softmax(logits).max(axis=-1), rtol=1e-5, atol=1e-6
    )


def test_a_draw_on_a_border_goes_to_the_next_token():
    # Probabilities 1/4, 0, 1/2, 1/4: [0, 1/4) [1/4, 3/4) [3/4, 1).
    logits = jnp.log(jnp.array([[1.0, 0.0, 2.0, 1.0]])) - 1e-30
    logits = jnp.broadcast_to(jnp.maximum(logits, HIDDEN_SCORE), (6, 4))
    below = lambda x: np.nextafter(np.float32(x), np.float32(0))
    uniform = jnp.array([0.0, below(0.25), 0.25, below(0.75), 0.75, below(1)])
    assert sample(logits, uniform)[0].tolist() == [0, 0, 2, 2, 3, 3]


def every_thought(allowed: list[int], close: tuple[int, ...], limit: int) -> list[list[int]]:
    """Return all thoughts that can be sampled."""
    done, open_ = [], [[]]
    while open_:
        longer = [[*line, token] for line in open_ for token in allowed]
        longer = [line for line in longer if tuple(line) != close]
        ended = lambda line: len(line) == limit or tuple(line[-len(close) :]) == close
        done += filter(ended, longer)
        open_ = [line for line in longer if not ended(line)]
    return done


ONE = ((3,), (4,))


@pytest.mark.parametrize(
    ("temperature", "tags", "allowed", "limit"),
    [
        pytest.param(0.7, ONE, [4, 5, 6, 7], 2, id="0.7"),
        pytest.param(1.3, ONE, [4, 5, 6, 7], 2, id="1.3"),
        pytest.param(1.3, ((3, 5), (4, 3)), [3, 4, 5], 4, id="tags of two"),
        pytest.param(
            *(1.3, ((3,), (5, 4, 5)), [4, 5], 6),
            id="tags of one and three",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_sampled_frequencies_are_the_probabilities(temperature, tags, allowed, limit):
    """Chi-square test of 1,024 groups of 8 thoughts at one fork against enumeration."""
    config = tiny.model_config(vocab_size=9)
    words = tiny.words(config, max(allowed) + 1, *tags)
    assert [i for i in range(9) if i not in words.not_in_thoughts] == allowed
    params = tiny.params(config, scale=6.0)
    settings = tiny.rlp_settings(
        group_size=8, forks_per_document=1, thought_length=limit, horizon=1, positions="given",
        temperature=temperature,
    )  # fmt: skip
    one = tiny.documents(1, [6], 6, 8)
    many = jax.tree.map(lambda x: np.repeat(x, 1024, axis=0), one)
    many = many.replace(index=np.arange(1024, dtype=np.int32))
    stage = tiny.rollout_stage(config, settings, words)
    rollout, reading = stage(params, params, many, KEY, jnp.int32(0))
    every = every_thought(allowed, words.think_close, limit)
    branch = lambda line: naive.Branch(
        one.tokens[0].tolist(), int(reading.forks.position[0, 0]), line, 1
    )
    rows = naive.write_out([branch(line) for line in every], words, limit, 18)
    logprobs = naive.action_logprobs(
        params, rows, config=config, vocabulary=words, temperature=temperature
    )
    share = np.exp(np.asarray(logprobs, np.float64).sum(axis=1))
    assert share.sum() == pytest.approx(1, abs=1e-5)
    t = jax.tree.map(np.asarray, rollout.thoughts)
    actions, length = t.actions.reshape(-1, limit), t.length.ravel()
    actions = Counter(tuple(a[:n].tolist()) for a, n in zip(actions, length, strict=True))
    seen = np.array([actions[tuple(line)] for line in every])
    assert seen.sum() == 8192  # nothing else was sampled
    expected = share * 8192
    often = expected > 5  # for the chi-square approximation; the rest is one cell
    assert often.sum() > 10
    fold = lambda x: np.append(x[often], x[~often].sum()) if (~often).any() else x
    seen, expected = fold(seen), fold(expected)
    # The quantile that is exceeded with probability 2.5e-4 (Wilson and Hilferty); 35 for 11 degrees
    # of freedom. The seed is fixed.
    free = len(seen) - 1
    spread = 2 / (9 * free)
    assert ((seen - expected) ** 2 / expected).sum() < free * (1 - spread + 3.48 * spread**0.5) ** 3


# ---- log-probabilities


@pytest.mark.parametrize(
    ("temperature", "settings", "words"),
    [
        *((t, SETTINGS, WORDS) for t in (0.5, 0.7, 1.0, 1.3)),
        pytest.param(1.0, TAGGED, TAGS, id="tags of two"),
    ],
)
def test_sampler_and_trainer_agree_on_log_probabilities(temperature, settings, words):
    settings = dataclasses.replace(settings, temperature=temperature)
    rollout, forks = roll(settings, words=words)
    recorded = np.asarray(rollout.thoughts.logprobs)
    rows = written_out(rollout, forks, settings, words=words)
    by_hand = naive.action_logprobs(
        PARAMS(), rows, config=CONFIG, vocabulary=words, temperature=temperature
    )
    assert np.abs(recorded - np.asarray(by_hand).reshape(recorded.shape)).max() < 1e-4

    acted = np.arange(settings.thought_length) < np.asarray(rollout.thoughts.length)[..., None]
    gap = lambda t: np.abs(np.log(trainer_ratios(rollout, t, words)[acted])).max()
    assert gap(temperature) < 1e-4
    # The test would notice a trainer with another temperature.
    assert gap(0.7 if temperature == 1.0 else 1.0) > 0.5


def trainer_ratios(rollout, temperature: float, words) -> np.ndarray:
    """Return the ratio pi_theta / pi_theta_old of every action in the trainer's loss.

    With A = 1 and no clip, the loss is -sum w rho, so its derivative in a recorded
    log-probability is w rho, where w = 1 / (|c| thoughts).
    """
    actual = trainer_slopes(temperature, words)(PARAMS(), rollout)
    length = rollout.thoughts.length
    return np.asarray(actual * length.size * length[..., None])


@functools.cache
def trainer_slopes(temperature: float, words):
    settings = tiny.rlp_settings(
        group_size=6, temperature=temperature, clip_low=1.0, clip_high=np.inf
    )

    def slopes(params, rollout):
        def loss(logprobs):
            changed = rollout.replace(thoughts=rollout.thoughts.replace(logprobs=logprobs))
            one = jnp.ones(rollout.thoughts.length.shape)
            return policy_gradient(params, CONFIG, settings, words, changed, one, one > 0)[0]

        return jax.grad(loss)(rollout.thoughts.logprobs)

    return tiny.jit(slopes)


# ---- bookkeeping


@pytest.mark.parametrize(
    ("settings", "words"),
    [(SETTINGS, WORDS), (GREEDY, WORDS), (TAGGED, TAGS)],
    ids=["sampled", "greedy", "tags of two"],
)
def test_books(settings, words):
    rollout, _ = roll(settings, words=words)
    t = jax.tree.map(np.asarray, rollout.thoughts)
    limit, close = settings.thought_length, words.think_close
    assert t.actions.shape == t.logprobs.shape == (4, 2 * settings.group_size, limit)
    acted = np.arange(limit) < t.length[..., None]
    assert (t.length >= 1).all()
    assert (t.length <= limit).all()
    assert (t.actions[~acted] == PAD).all()
    assert (t.logprobs[~acted] == 0).all()
    assert (t.logprobs[acted] < 0).all()
    assert not np.isin(t.actions[acted], words.not_in_thoughts).any()
    assert (t.length[~t.closed] == limit).all()
    spoken = np.asarray(rollout.thoughts.words(words))
    for b, n in np.ndindex(*t.length.shape):
        line = t.actions[b, n, : t.length[b, n]].tolist()
        ends = [u for u in range(len(line) + 1) if tuple(line[:u][-len(close) :]) == close]
        assert ends == ([len(line)] if t.closed[b, n] else [])  # nothing after the tag
        assert spoken[b, n] == len(line) - len(close) * len(ends)
        assert spoken[b, n] >= 1  # |c| >= 1
    assert t.length.sum() <= rollout.decoded <= t.length.size * t.length.max()
    if settings is not GREEDY:  # both kinds occur
        assert 0 < t.closed.mean() < 1


def test_the_first_action_is_never_the_tag_even_when_nothing_else_is_likely():
    # Blocks add zero, and rows of the embedding are nearly equal, with a large one for the tag.
    params = jax.tree.map(jnp.zeros_like, PARAMS())
    params["norm"] = jax.tree.map(jnp.ones_like, params["norm"])
    params["embedding"] = (1 + 0.1 * PARAMS()["embedding"]).at[CLOSE].multiply(50)
    rollout, _ = roll(SETTINGS, params=params)
    t = rollout.thoughts
    assert (t.actions[..., 0] >= tiny.FIRST_WORD).all()
    assert (t.actions[..., 1] == CLOSE).all()
    assert (t.length == 2).all()
    assert rollout.decoded == 2 * t.length.size  # decoding stops when all have closed


@pytest.mark.parametrize("size", [2, 3])
def test_a_tag_of_one_token_again_and_again_closes_after_a_word(size):
    """The likeliest tokens: the tag but its last token, a word (the tag is banned), the tag."""
    params = jax.tree.map(jnp.zeros_like, PARAMS())
    params["norm"] = jax.tree.map(jnp.ones_like, params["norm"])
    params["embedding"] = (1 + 0.1 * PARAMS()["embedding"]).at[9].multiply(50)
    settings = tiny.rlp_settings(thought_length=2 * size)
    tags = tiny.words(CONFIG, think_open=(7, 8), think_close=(9,) * size)
    rollout, _ = roll(settings, params=params, words=tags)
    t = rollout.thoughts
    number = np.arange(2 * size)
    assert ((np.asarray(t.actions) == 9) == (number != size - 1)).all()
    assert t.closed.all()
    assert (t.words(tags) == size).all()


def test_greedy_takes_the_likeliest_and_ignores_the_draws():
    rollout, forks = roll(GREEDY)
    other, _ = roll(GREEDY, key=jax.random.key(8), step=9)
    assert np.array_equal(rollout.thoughts.actions, other.thoughts.actions)
    rows = written_out(rollout, forks, GREEDY)
    table = naive.predictions(
        PARAMS(), rows.tokens, rows.length, config=CONFIG, banned=WORDS.not_in_thoughts
    )
    table = np.asarray(table)
    for r, (b, n) in enumerate(np.ndindex(*rollout.thoughts.length.shape)):
        for u in range(int(rollout.thoughts.length[b, n])):
            choices = np.array(table[r, rows.action_at[r, u] - 1])
            if u == 0:
                choices[CLOSE] = -np.inf
            assert choices.argmax() == rollout.thoughts.actions[b, n, u]


def test_decoding_shrinks_while_a_batch_has_rows_enough():
    assert decode_widths(64, 16) == [16, 8, 4]
    assert decode_widths(4, 16) == [16, 8]  # 32 rows, not 16
    assert decode_widths(1, 7) == [7]
    assert decode_widths(64, 7) == [7, 4, 2]
    assert decode_widths(64, 1) == [1]


# ---- randomness


def thoughts_and_forks(actual):
    rollout, forks = actual
    return np.asarray(forks.position), jax.tree.map(np.asarray, rollout.thoughts)


def assert_same(a, b):
    (fork_a, thoughts_a), (fork_b, thoughts_b) = a, b
    assert np.array_equal(fork_a, fork_b)
    for name in ("actions", "length", "closed"):
        assert np.array_equal(getattr(thoughts_a, name), getattr(thoughts_b, name))
    np.testing.assert_allclose(thoughts_a.logprobs, thoughts_b.logprobs, atol=1e-5)


@pytest.mark.parametrize("parts", [[[0, 1], [2, 3]], [[0], [1], [2], [3]], [[3, 1, 0, 2]]])
def test_a_document_has_its_thoughts_whatever_the_batch(parts):
    fork, whole = thoughts_and_forks(roll(SETTINGS))
    for part in parts:
        expected = (fork[part], jax.tree.map(lambda x, part=part: x[part], whole))
        assert_same(thoughts_and_forks(roll(SETTINGS, tiny.rows(BATCH, np.array(part)))), expected)


def test_steps_documents_forks_and_thoughts_differ():
    fork, thoughts = thoughts_and_forks(roll(SETTINGS))
    next_fork, next_thoughts = thoughts_and_forks(roll(SETTINGS, step=4))
    assert not np.array_equal(fork, next_fork)
    assert not np.array_equal(thoughts.actions, next_thoughts.actions)
    keys = document_keys(KEY, 3, jnp.arange(50))
    uniforms = tiny.jit(thought_uniforms, static_argnums=(2, 3, 4))
    draws = np.asarray(uniforms(keys, 0, 3, 4, 5))
    assert draws.shape == (50, 12, 5)
    assert ((draws >= 0) & (draws < 1)).all()
    assert len(np.unique(draws)) > 0.999 * draws.size
    assert len({tuple(np.asarray(jax.random.key_data(k))) for k in fork_keys(keys)}) == 50
    # More thoughts or longer ones do not change the others.
    more = np.asarray(uniforms(keys, 0, 4, 4, 5))
    assert np.array_equal(more[:, :12], draws)
    later = uniforms(keys, 1, 2, 4, 5)  # of a rollout batch that begins with another fork
    assert np.array_equal(later, draws[:, 4:])


# ---- what a thought depends on


def test_tokens_from_the_fork_on_do_not_change_its_thoughts():
    settings = tiny.rlp_settings(group_size=6, forks_per_document=2, positions="given")
    rollout, _ = roll(settings)
    text = BATCH.tokens.copy()
    for row, (_, fork) in enumerate(BATCH.forks):
        text[row, fork:] = np.random.default_rng(row).integers(5, 22, text.shape[1] - fork)
    changed, _ = roll(settings, BATCH.replace(tokens=text))
    late = np.arange(12) >= 6  # branches of the second fork, whose prefix is the same
    for name in ("actions", "length", "closed", "logprobs"):
        a, b = getattr(rollout.thoughts, name), getattr(changed.thoughts, name)
        assert np.array_equal(a[:, late], b[:, late])  # bit for bit
    # The token before the first fork changes its thoughts, so the test notices differences.
    text = BATCH.tokens.copy()
    for row, (fork, _) in enumerate(BATCH.forks):
        text[row, fork - 1] = 5 + (text[row, fork - 1] - 4) % 17
    changed, _ = roll(settings, BATCH.replace(tokens=text))
    assert not np.allclose(rollout.thoughts.logprobs, changed.thoughts.logprobs, atol=1e-3)


def test_other_branches_do_not_change_a_thought():
    settings = tiny.rlp_settings(group_size=6, positions="given")
    whole, _ = roll(settings)
    fewer = tiny.rlp_settings(group_size=2, positions="given")
    alone, _ = roll(fewer)
    first = np.array([0, 1, 6, 7])  # the first two thoughts of both forks
    for name in ("actions", "length", "closed"):
        a, b = getattr(whole.thoughts, name)[:, first], getattr(alone.thoughts, name)
        assert np.array_equal(a, b)
    np.testing.assert_allclose(
        whole.thoughts.logprobs[:, first], alone.thoughts.logprobs, atol=1e-5
    )


def test_a_thinking_prompt_is_text_before_the_document():
    prompt = (11, 12, 13)
    settings = tiny.rlp_settings(group_size=6, prompt=prompt)
    rollout, forks = roll(settings)
    bare, bare_forks = roll(SETTINGS)
    assert np.array_equal(forks.position, bare_forks.position)
    assert not np.array_equal(rollout.thoughts.actions, bare.thoughts.actions)
    rows = written_out(rollout, forks, settings, prompt=prompt)
    by_hand = naive.action_logprobs(
        PARAMS(), rows, config=CONFIG, vocabulary=WORDS, temperature=1.0
    )
    recorded = np.asarray(rollout.thoughts.logprobs)
    assert np.abs(recorded - np.asarray(by_hand).reshape(recorded.shape)).max() < 1e-4


@pytest.mark.parametrize(
    ("settings", "words"), [(SETTINGS, WORDS), (TAGGED, TAGS)], ids=["", "tags of two"]
)
def test_caches_are_those_of_teacher_forcing(settings, words):
    """All live keys and values of decoding equal those of one pass over the branches."""
    params, slots = PARAMS(), len(words.think_open) - 1 + settings.thought_length
    rollout, reading = tiny.rollout_stage(CONFIG, settings, words)(
        params, params, BATCH, KEY, jnp.int32(3)
    )
    trunk, branches = rollout.trunk, rollout.branches.slots(0, slots)
    assert np.array_equal(trunk.tokens, document_trunk(BATCH).tokens)

    @tiny.jit
    def run(cache):
        model = bind(CONFIG, params)
        own = empty_branch_cache(model, trunk, cache, branches, slots)
        return extend(model, trunk, cache, branches, own, 0, slots)[1]

    read = lambda cache: jax.tree.map(
        KeyValues.read, cache, is_leaf=lambda x: isinstance(x, KeyValues)
    )
    slots_first = lambda x: np.moveaxis(x, -4, -2)
    layers = lambda cache: jax.tree.map(slots_first, jax.tree.leaves(read(cache.kinds)))
    actual, expected = layers(rollout.branch_cache), layers(run(reading.documents.cache))
    filled = np.asarray(branches.live)
    for a, b in zip(actual, expected, strict=True):  # [B, N, W, kv_heads, head_dim] of a layer
        np.testing.assert_allclose(a[filled], b[filled], rtol=1e-5, atol=1e-5)
