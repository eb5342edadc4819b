"""Rows that join a running batch get the responses that they get alone, and bounds hold."""

import dataclasses

import jax
import numpy as np
import pytest

from models import backend
from models.sharding import make_mesh
from rlp.evaluation.generation import batch as batches
from rlp.evaluation.generation.batch import Row
from rlp.evaluation.generation.generator import Generator, Request, Sampling
from tests.support import tiny

CONFIG = tiny.model_config()
END = 3


def decode(ids) -> str:
    """Return a letter for every id."""
    return "".join(chr(ord("a") + token) for token in ids)


def generator(devices=1, config=CONFIG, **changes) -> Generator:
    mesh = make_mesh(devices=jax.devices()[:devices])
    return Generator(config, tiny.params(config), mesh, decode, **changes)


def prompt(length: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(length).integers(0, CONFIG.vocab_size, length).tolist())


# Longer and longer prompts and responses, so that rows, prompts and slots have to grow.
REQUESTS = [
    Request(prompt(5), 40, Sampling(2.0, top_k=12), seed=1),
    Request(prompt(9), 20),
    Request(prompt(40), 50, Sampling(1.0), seed=2, ends=(END, 4)),
    Request(prompt(3), 100, Sampling(1.5, top_p=0.8), seed=3),
    Request(prompt(70), 17, Sampling(1.0), seed=4, stop=("ab", "c")),
    Request(prompt(1), 33, ends=(END,)),
]
# How many of them have been added before each step.
ARRIVALS = [1, 2, 2, 4, 5, 6]


def row(generate: Generator, name: int, request: Request) -> Row:
    return Row(request.prompt, tuple(generate.texts_of({name: request})))


def joined(generate: Generator, requests=REQUESTS, arrivals=ARRIVALS):
    """Generate with requests that are added between steps; return the responses in order."""
    responses, rows = {}, [row(generate, i, request) for i, request in enumerate(requests)]
    with jax.set_mesh(generate.mesh):
        batch = generate.batch(rows[: arrivals[0]], small_reads=True)
        added = arrivals[0]
        for step in range(1000):
            while added < arrivals[min(step, len(arrivals) - 1)] and batch.fits(rows[added]):
                batch.add(rows[added])
                added += 1
            if not batch.busy and added == len(rows):
                break
            responses |= {n: r.response for n, r in batch.step() if r.response is not None}
    return [responses[i] for i in range(len(rows))]


@pytest.fixture(scope="module")
def expected():
    """The responses to each request alone."""
    return [generator().generate([request])[0] for request in REQUESTS]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert dataclasses.replace(one, logprobs=()) == dataclasses.replace(other, logprobs=())
        assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_texts_that_join_a_batch_are_those_of_a_batch_of_their_own(expected, devices, monkeypatch):
    monkeypatch.setattr(batches, "FIRST_SLOTS", batches.STEP)
    assert_same(joined(generator(devices)), expected)


@pytest.mark.slow
def test_they_are_with_stacked_layers_and_windows_too(monkeypatch):
    monkeypatch.setattr(backend, "CPU", backend.ACCELERATOR)
    config = dataclasses.replace(CONFIG, layer_pattern="LG", sliding_window=5)
    expected = [generator(config=config).generate([request])[0] for request in REQUESTS]
    assert_same(joined(generator(config=config)), expected)


def test_a_row_fits_if_the_larger_batch_is_within_the_bounds():
    small = generator(texts=4, tokens=4 * (32 + 48))
    with jax.set_mesh(small.mesh):
        batch = small.batch([row(small, 0, Request(prompt(5), 48))], small_reads=True)
        fits = lambda length, tokens: batch.fits(row(small, 1, Request(prompt(length), tokens)))
        assert fits(32, 48)
        assert fits(96, 64)  # two rows of 160 tokens
        assert not fits(96, 65)
        assert not fits(97, 64)
        two = Row(prompt(5), 2 * row(small, 1, Request(prompt(5), 16)).members)
        assert not batch.fits(two)  # another number of texts
        batch.add(row(small, 1, Request(prompt(5), 40)))
        assert fits(32, 48)  # four rows of 80 tokens
        assert not fits(33, 48)
        for name in (2, 3):
            batch.add(row(small, name, Request(prompt(5), 16)))
        assert not fits(5, 16)  # no more texts
        while batch.busy:
            batch.step()
        assert fits(32, 48)
        assert not fits(33, 48)  # the batch keeps its rows


def test_a_text_that_is_larger_than_the_bound_fits_alone():
    small = generator(texts=4, tokens=64)
    with jax.set_mesh(small.mesh):
        batch = small.batch([row(small, 0, Request(prompt(40), 32))])
        assert not batch.fits(row(small, 1, Request(prompt(1), 1)))


def test_dropped_texts_free_their_rows_and_change_no_other(expected):
    generate = generator(texts=2)
    names = [(n, request) for n, request in enumerate(REQUESTS[:2])]
    with jax.set_mesh(generate.mesh):
        batch = generate.batch([row(generate, *pair) for pair in names], small_reads=True)
        batch.step()
        other = row(generate, 5, REQUESTS[5])
        assert not batch.fits(other)
        batch.drop({0})
        assert batch.fits(other)
        batch.add(other)
        found = {}
        while batch.busy:
            found |= {name: reader.response for name, reader in batch.step()}
        assert sorted(found) == [1, 5]
        assert_same([found[1], found[5]], [expected[1], expected[5]])
        batch = generate.batch([row(generate, *names[0])])
        batch.step()
        batch.drop({0})
        assert not batch.busy


def test_prompts_that_join_are_read_with_their_own_length_and_number(monkeypatch):
    shapes, programs = [], generator().programs
    read = programs.read

    def watched(params, tokens, length, **sharing):
        shapes.append(tokens.shape)
        return read(params, tokens, length, **sharing)

    monkeypatch.setitem(vars(programs), "read", watched)
    requests = [Request(prompt(n), 20 + n) for n in (70, 5, 6, 7, 8, 9)]
    joined(generator(), requests, [1, 2, 6])
    assert shapes == [(1, 96), (1, 32), (2, 32), (2, 32)]  # a quarter of eight rows at a time


def test_a_batch_is_outgrown_when_its_largest_text_is_finished():
    small = generator(texts=4, tokens=4 * (32 + 32))
    with jax.set_mesh(small.mesh):
        large = row(small, 0, Request(prompt(40), 16, ends=tuple(range(24))))  # ends at once
        batch = small.batch([large, row(small, 1, Request(prompt(5), 32))], small_reads=True)
        assert not batch.outgrown
        batch.step()
        assert batch.outgrown  # it has two rows of 64 + 32 tokens; four of 32 + 32 are possible
        while batch.busy:
            batch.step()
        assert not batch.outgrown


def test_few_programs_are_compiled_for_texts_with_many_ends():
    generate = generator()
    sizes = []
    for count in (0, 1, 2, 3, 5, 8):
        request = Request(prompt(4), 16, ends=tuple(range(count)))
        sizes.append(generate.batch([row(generate, 0, request)])._ends)
    assert sizes == [0, 1, 2, 4, 8, 8]
