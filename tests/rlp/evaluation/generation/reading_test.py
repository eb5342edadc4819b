"""Prompts that begin with the same tokens are read once, with the results of whole prompts."""

import dataclasses

import jax
import numpy as np
import pytest

from models import backend
from models.cache import can_join
from models.layers.attention import Attention
from models.layers.protocol import LayerKind
from models.sharding import make_mesh, parameter_shardings
from models.transformer import bind
from rlp.evaluation.generation import batch as batches
from rlp.evaluation.generation import reading
from rlp.evaluation.generation.generator import Generator, Request
from rlp.evaluation.generation.reading import (
    LEAST_SHARED,
    padded,
    prompt_arrays,
    read_together,
    shared_tokens,
)
from tests.rlp.evaluation.generation.generator_test import (
    BANNED,
    CONFIG,
    HOT,
    assert_same,
    decode,
    one_device,
)
from tests.support import tiny

WINDOWED = dataclasses.replace(CONFIG, layer_pattern="LG", sliding_window=5)
DRAWN = np.random.default_rng(0).integers(0, CONFIG.vocab_size, 500).tolist()


def after(shared: int, *rests: int) -> list[tuple[int, ...]]:
    """Return prompts that begin with the same tokens, with rests of these lengths."""
    starts = range(200, 500, 20)
    rest = lambda at, start: [at, *DRAWN[start:]]  # the first tokens differ
    return [
        tuple(DRAWN[:shared] + rest(at, start)[:length])
        for at, (length, start) in enumerate(zip(rests, starts, strict=False))
    ]


PROMPTS = after(130, 1, 17, 9, 30)


@pytest.mark.parametrize(
    ("config", "choices"),
    [
        pytest.param(CONFIG, backend.CPU, id="plain"),
        pytest.param(WINDOWED, backend.CPU, marks=pytest.mark.slow, id="windows"),
        pytest.param(CONFIG, backend.ACCELERATOR, id="stacks"),
    ],
)
def test_prompts_are_read_as_a_whole(config, choices, monkeypatch):
    monkeypatch.setattr(backend, "CPU", choices)
    model = bind(config, tiny.params(config))
    tokens, length = prompt_arrays(PROMPTS, padded(max(map(len, PROMPTS))))
    run = lambda shared: jax.jit(lambda: reading.read(model, tokens, length, shared, 1))()
    whole, shared = run(0), run(shared_tokens(PROMPTS, 1))
    live = np.asarray(whole.trunk.segment) > 0
    masked = lambda x: np.asarray(x) * live[:, None, :, None]  # what is cached of padding is any
    assert jax.tree.structure(whole) == jax.tree.structure(shared)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(shared), strict=True):
        compared = masked if one.ndim >= 4 else np.asarray
        assert compared(other) == pytest.approx(compared(one), abs=2e-5)


REQUESTS = [
    *[Request(each, 12, HOT, seed=i) for i, each in enumerate([*PROMPTS, *PROMPTS[:2]])],
    *[Request(each, 9 + 3 * i) for i, each in enumerate(after(150, 3, 20, 8, 5))],
]


@pytest.fixture(scope="module")
def whole():
    """Responses to prompts that are read as a whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "shared_tokens", lambda *_: 0)
        return one_device().generate(REQUESTS)


@pytest.mark.parametrize(
    ("sizes", "texts"),
    [
        ((1, 1, 1), 64),
        ((1, 1, 1), 4),  # rows are given to other prompts
        ((2, 2, 2), 8),
        pytest.param((4, 1, 1), 64, marks=pytest.mark.slow),
    ],
)
def test_responses_are_those_to_whole_prompts(sizes, texts, whole, monkeypatch):
    shared = []

    def spy(prompts, shards):
        shared.append(shared_tokens(prompts, shards))
        return shared[-1]

    monkeypatch.setattr(batches, "shared_tokens", spy)
    mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    params = tiny.params(CONFIG)
    params = jax.device_put(params, parameter_shardings(mesh, params))
    on_mesh = Generator(CONFIG, params, mesh, decode, BANNED, texts=texts)
    assert_same(on_mesh.generate(REQUESTS), whole)
    assert 128 in shared


@pytest.mark.parametrize(
    ("prompts", "shards", "expected"),
    [
        (PROMPTS, 1, 128),
        (PROMPTS, 4, 0),  # each device has one
        ([*PROMPTS, PROMPTS[0]], 4, 128),
        (after(LEAST_SHARED, 1, 2), 1, LEAST_SHARED),
        (after(LEAST_SHARED - 1, 9, 9), 1, 0),
        ([tuple(DRAWN[:n]) for n in (64, 65)], 1, 0),  # a prompt keeps one token
        ([tuple(DRAWN[:n]) for n in (65, 66)], 1, 64),
        (PROMPTS[:1], 1, 0),
    ],
)
def test_what_is_shared_is_shorter_than_every_prompt(prompts, shards, expected):
    assert shared_tokens(prompts, shards) == expected


def subjects(*counts: int) -> list[tuple[int, ...]]:
    """Return prompts of which each that is counted begins like the ones before it."""
    starts = [DRAWN[100 * n :] for n in range(len(counts))]
    return [
        (*start[:80], *range(number + 1))
        for start, count in zip(starts, counts, strict=True)
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((1,), 1), ((5,), 5), ((3, 2), 3), ((1, 1, 1), 3), ((1, 1, 4), 2), ((2, 1, 1), 2)],
)
def test_prompts_are_read_with_those_that_begin_alike(counts, expected):
    assert read_together(subjects(*counts)) == expected


def test_each_subject_is_read_once_and_the_order_of_requests_does_not_matter(monkeypatch):
    """The prompts of two subjects alternate, more of each than are read at a time."""
    read = []

    def spy(prompts, shards):
        read.append((len(prompts), shared_tokens(prompts, shards)))
        return read[-1][1]

    first, second = subjects(7, 7)[:7], subjects(7, 7)[7:]
    requests = [Request(p, 3) for pair in zip(first, second, strict=True) for p in pair]
    monkeypatch.setattr(batches, "shared_tokens", lambda *_: 0)
    expected = one_device(texts=16).generate(requests)
    monkeypatch.setattr(batches, "shared_tokens", spy)
    assert_same(one_device(texts=16).generate(requests), expected)
    assert read == [(8, 64), (4, 64), (4, 64)]  # at first 7 and a spare one, then 4, 3 and another


def test_a_kind_of_layer_that_cannot_join_caches_reads_whole_prompts(whole, monkeypatch):
    assert can_join(CONFIG)
    monkeypatch.setattr(Attention, "joins", False)
    monkeypatch.setattr(Attention, "joined", LayerKind.joined)  # raises
    assert not can_join(CONFIG)
    assert_same(one_device().generate(REQUESTS), whole)
