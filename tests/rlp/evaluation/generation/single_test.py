"""Generated text equals that of full forward passes for every token, without a cache."""

import dataclasses

import jax
import numpy as np
import pytest

from rlp.engine.method import Method
from rlp.evaluation.generation.single import continuation, thoughts_after
from tests.support import naive, tiny

CONFIG = tiny.model_config()
NETWORKS = {
    "plain": CONFIG,
    "window": tiny.model_config(
        norm="after", qk_norm="all_heads", layer_pattern="LG", sliding_window=5
    ),
}
WIDTH = 160  # tokens of a row of the full forward passes
LENGTHS = (1, 5, 63, 64, 65, 130)  # on both sides of the multiples that prompts are padded to


def text(length: int) -> list[int]:
    return np.random.default_rng(length).integers(0, CONFIG.vocab_size, length).tolist()


def reread(config, ids: list[int], temperature: float = 1.0, banned=()) -> np.ndarray:
    """Return log p(· | the first n ids) for all n >= 1, [n, V], without a cache."""
    rows = np.zeros((1, WIDTH), np.int32)
    rows[0, : len(ids)] = ids
    actual = naive.predictions(
        tiny.params(config), rows, np.array([len(ids)]), config=config, banned=()
    )
    actual = np.array(actual[0, : len(ids)], np.float64) / temperature
    actual[:, list(banned)] = -np.inf
    return actual - np.log(np.exp(actual).sum(axis=-1, keepdims=True))


def follow(config, prompt, limit=20, **options) -> list[int]:
    return list(continuation(config, tiny.params(config), prompt, limit, **options))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_greedy_token_is_the_likeliest_after_all_before_it(network, length):
    config, prompt = NETWORKS[network], text(length)
    actual = follow(config, prompt)
    assert len(actual) == 20
    tables = reread(config, prompt + actual)[length - 1 : -1]
    assert actual == tables.argmax(axis=-1).tolist()


# Parameters that share a compiled sampler.
COLD = {"temperature": 0.5}
HOT = {"temperature": 3.0, "banned": (0, 7)}


@pytest.mark.parametrize("options", [COLD, HOT], ids=["cold", "hot"])
def test_a_sampled_token_is_where_its_draw_falls_in_the_softmax(options):
    """Inverse CDF: token v is taken by the draws from P(less than v) up to P(v or less)."""
    key, taken = jax.random.key(3), set()
    for number, length in enumerate((1, 9, 30, 64)):
        key = jax.random.fold_in(key, number)
        prompt = text(length)
        actual = follow(CONFIG, prompt, key=key, **options)
        tables = reread(CONFIG, prompt + actual, **options)[length - 1 : -1]
        for place, (token, table) in enumerate(zip(actual, tables, strict=True)):
            draw = float(jax.random.uniform(jax.random.fold_in(key, place), (1,))[0])
            mass = np.cumsum(np.exp(table))
            assert mass[token] - np.exp(table[token]) - 1e-5 <= draw < mass[token] + 1e-5
        taken |= set(actual)
    assert len(taken) > 3


def test_tokens_are_drawn_as_often_as_the_softmax_says():
    prompt, count, params = text(5), 300, tiny.params(CONFIG)
    first = lambda seed: next(
        continuation(CONFIG, params, prompt, 20, key=jax.random.key(seed), **HOT)
    )
    expected = np.exp(reread(CONFIG, prompt, **HOT)[-1])
    drawn = np.array([first(seed) for seed in range(count)])
    shares = np.bincount(drawn, minlength=CONFIG.vocab_size) / count
    assert (expected > 0.02).sum() > 4
    # Within five standard deviations, and no token of probability 0.
    assert np.all(np.abs(shares - expected) <= 5 * np.sqrt(expected * (1 - expected) / count))


@pytest.mark.parametrize("options", [{}, COLD], ids=["greedy", "sampled"])
def test_banned_ids_never_occur_and_an_end_is_the_last(options):
    prompt = text(9)
    free = follow(CONFIG, prompt, **options)
    banned = tuple(sorted(set(free)))
    assert not set(follow(CONFIG, prompt, banned=banned, **options)) & set(free)
    end = free[len(free) // 2]
    assert follow(CONFIG, prompt, ends=(end,), **options) == free[: free.index(end) + 1]
    never = next(token for token in range(CONFIG.vocab_size) if token not in free)
    assert follow(CONFIG, prompt, ends=(never,), **options) == free


def test_a_shorter_limit_cuts_and_changes_nothing():
    assert follow(CONFIG, text(30), 3, **COLD) == follow(CONFIG, text(30), **COLD)[:3]


def test_other_keys_draw_other_tokens_and_none_is_seed_0():
    draw = lambda key: follow(CONFIG, text(30), key=key, **COLD)
    assert draw(jax.random.key(1)) != draw(jax.random.key(0)) == draw(None)


# Thoughts after a prompt.

LIMIT = 5


@pytest.mark.parametrize(
    ("size", "close", "prompt"),
    [(11, (tiny.CLOSE,), ()), (62, (9, 12), (14, 5, 16))],
    ids=["plain", "a prompt, tags of two tokens, longer rows"],
)
def test_thoughts_are_worth_what_reading_everything_again_says(size, close, prompt):
    open_tag = (tiny.OPEN,) if len(close) == 1 else (17, 9)
    words = tiny.words(CONFIG, think_open=open_tag, think_close=close)
    given = np.random.default_rng(0).integers(tiny.FIRST_WORD, 22, size).tolist()
    target = [8, 19, 8]
    settings = tiny.rlp_settings(prompt=prompt, thought_length=LIMIT, temperature=1.5)
    params, count = tiny.params(CONFIG, 4), 6
    thoughts, without = thoughts_after(
        Method(CONFIG, settings, words), params, given, target, count, jax.random.key(5)
    )
    assert len(thoughts) == count
    assert len({tuple(thought.words) for thought in thoughts}) > 1
    for thought in thoughts:
        assert not set(thought.words) & set(words.not_in_thoughts)
        if thought.closed:
            assert 1 <= len(thought.words) <= LIMIT - len(close)
        else:
            assert len(thought.words) == LIMIT
    branches = [
        naive.Branch(
            given + target, len(given), thought.words + list(close) * thought.closed, len(target)
        )
        for thought in thoughts
    ]
    rows = naive.write_out(branches, words, LIMIT, 90, prompt)
    expected = naive.target_logprobs(params, rows, config=CONFIG, vocabulary=words).sum(axis=1)
    actual = [thought.reasoned for thought in thoughts]
    assert actual == pytest.approx(np.asarray(expected), abs=1e-4)
    # Without a thought, the thinking prompt is not used.
    plain = np.array([given + target], np.int32)
    logprobs = naive.document_logprobs(params, plain, config=CONFIG, vocabulary=words)
    assert without == pytest.approx(float(logprobs[0, -len(target) :].sum()), abs=1e-4)


def test_greedy_thoughts_take_the_likeliest_word_until_the_tag():
    words, settings = tiny.words(CONFIG), tiny.rlp_settings(thought_length=LIMIT, temperature=0.0)
    for seed in range(2):
        params = tiny.params(CONFIG, seed)
        given = [tiny.BOS, 6, 11, 20]
        thoughts, without = thoughts_after(
            Method(CONFIG, settings, words), params, given, [], 2, jax.random.key(seed)
        )
        assert without is None
        assert {thought.reasoned for thought in thoughts} == {None}
        assert thoughts[0] == thoughts[1]
        line = [*given, tiny.OPEN]
        taken: list[int] = []
        while len(taken) < LIMIT and tiny.CLOSE not in taken:
            rows = np.zeros((1, 90), np.int32)
            rows[0, : len(line)] = line
            banned = words.not_in_thoughts + (() if taken else (tiny.CLOSE,))
            table = naive.predictions(
                params, rows, np.array([len(line)]), config=CONFIG, banned=banned
            )
            taken.append(int(table[0, len(line) - 1].argmax()))
            line.append(taken[-1])
        assert thoughts[0].closed == (tiny.CLOSE in taken)
        assert thoughts[0].words == [token for token in taken if token != tiny.CLOSE]


@pytest.mark.slow  # compiles for every target
def test_a_thought_does_not_depend_on_the_target_that_follows():
    words, settings = tiny.words(CONFIG), tiny.rlp_settings(thought_length=LIMIT)
    draw = lambda target: thoughts_after(
        Method(CONFIG, settings, words), tiny.params(CONFIG), text(9), target, 3, jax.random.key(0)
    )[0]
    bare = lambda thoughts: [dataclasses.replace(one, reasoned=None) for one in thoughts]
    assert draw([]) == bare(draw([7])) == bare(draw([12, 5]))
