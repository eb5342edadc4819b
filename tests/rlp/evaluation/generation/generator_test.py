"""A response of a generator is a function of its request alone, and that of one-row generation."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from models import backend
from models.sharding import make_mesh, parameter_shardings
from rlp.evaluation.generation import batch as batches
from rlp.evaluation.generation.generator import Generator, Request, Response, Sampling
from rlp.evaluation.generation.reading import padded
from rlp.evaluation.generation.single import continuation
from rlp.runtime.errors import UserError
from tests.support import naive, tiny

CONFIG = tiny.model_config(num_heads=8, num_kv_heads=8, head_dim=4)
BANNED = (0, 7)
END = 3
RANDOM = np.random.default_rng(0)
LONGEST = 100  # tokens of a response
WIDTH = 160  # tokens of a row of the full forward passes


def decode(ids) -> str:
    """Return a letter for every id."""
    return "".join(chr(ord("a") + token) for token in ids)


def one_device(devices=1, config=CONFIG, **changes) -> Generator:
    mesh = make_mesh(devices=jax.devices()[:devices])
    return Generator(config, tiny.params(config), mesh, decode, BANNED, **changes)


def prompt(length: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(length).integers(0, CONFIG.vocab_size, length).tolist())


def alone(request: Request, config=CONFIG) -> list[int]:
    """Return the tokens of one-row generation."""
    s = request.sampling
    tokens = continuation(
        config,
        tiny.params(config),
        request.prompt,
        LONGEST,  # the same for all, so that one program is compiled
        temperature=s.temperature,
        top_k=s.top_k,
        top_p=s.top_p,
        key=jax.random.key(request.seed),
        banned=BANNED,
        ends=request.ends,
    )
    return list(itertools.islice(tokens, request.max_tokens))


# Prompts of two padded lengths; three of them are shared by several requests. Responses end at
# different tokens, so that rows are given to other prompts in the middle.
HOT = Sampling(2.0, top_p=0.95, top_k=12)
REQUESTS = [
    *[Request(prompt(5), 40, HOT, seed) for seed in range(3)],
    *[Request(prompt(70), 20, Sampling(1.0), seed, ends=(END,)) for seed in (5, 2**32 - 1)],
    *[
        Request(prompt(9), 30 + seed, Sampling(1.5, top_p=0.8), seed, ends=(1, 2))
        for seed in (1, 2)
    ],
    *[Request(prompt(length), 18 + length, ends=(END, 4)) for length in (1, 3, 20, 64)],
    *[Request(prompt(length), 5 * length, HOT, 9, ends=(END,)) for length in (2, 4, 11, 12, 13)],
]


@pytest.fixture(scope="module")
def responses():
    return one_device().generate(REQUESTS)


def test_responses_are_those_of_one_row_at_a_time(responses):
    assert [list(response.tokens) for response in responses] == [alone(each) for each in REQUESTS]
    assert {response.finish for response in responses} == {"stop", "length"}
    for request, response in zip(REQUESTS, responses, strict=True):
        ended = response.tokens[-1] in request.ends
        assert response.finish == ("stop" if ended else "length")
        assert response.text == decode(response.tokens[:-1] if ended else response.tokens)
        assert not set(response.tokens) & set(BANNED)


def test_log_probabilities_are_of_the_whole_distribution_at_the_temperature(responses):
    for request, response in zip(REQUESTS, responses, strict=True):
        ids = [*request.prompt, *response.tokens]
        rows = np.zeros((1, WIDTH), np.int32)
        rows[0, : len(ids)] = ids
        params, size = tiny.params(CONFIG), np.array([len(ids)])
        table = naive.predictions(params, rows, size, config=CONFIG, banned=BANNED)[0]
        table = np.array(table, np.float64) / (request.sampling.temperature or 1.0)
        table -= np.log(np.exp(table).sum(axis=-1, keepdims=True))
        places = np.arange(len(request.prompt) - 1, len(ids) - 1)
        assert response.logprobs == pytest.approx(table[places, response.tokens], abs=1e-4)


def assert_same(actual: list[Response], expected: list[Response]) -> None:
    bare = lambda response: dataclasses.replace(response, logprobs=())
    assert [bare(response) for response in actual] == [bare(response) for response in expected]
    for one, other in zip(actual, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "sizes", [pytest.param({"texts": 1}, marks=slow), {"texts": 4}, {"tokens": 300}], ids=str
)
def test_responses_do_not_depend_on_batch_and_order(responses, sizes):
    order, finished = RANDOM.permutation(len(REQUESTS)), {}
    shuffled = [REQUESTS[i] for i in order]
    actual = one_device(**sizes).generate(shuffled, lambda i, x: finished.update({i: x}))
    assert finished == dict(enumerate(actual))
    assert_same(actual, [responses[i] for i in order])


@pytest.mark.parametrize(
    "sizes", [(2, 2, 2), pytest.param((8, 1, 1), marks=slow), pytest.param((1, 1, 4), marks=slow)],
    ids=str,
)  # fmt: skip
def test_responses_do_not_depend_on_the_mesh(responses, sizes):
    mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    params = tiny.params(CONFIG)
    params = jax.device_put(params, parameter_shardings(mesh, params))
    on_mesh = Generator(CONFIG, params, mesh, decode, BANNED, texts=4)
    assert_same(on_mesh.generate(REQUESTS), responses)


def test_long_responses_use_the_slots_of_finished_ones(monkeypatch):
    """Room begins with two blocks of slots and grows; blocks are written again and again."""
    monkeypatch.setattr(batches, "FIRST_SLOTS", 2 * batches.STEP)
    lengths = [3, 90, 20, 17, 100, 40, 33, 70, 16]
    requests = [Request(prompt(5), n, Sampling(1.0), seed=n) for n in lengths]
    requests = [dataclasses.replace(each, prompt=prompt(n)) for n, each in enumerate(requests, 1)]
    responses = one_device(texts=2).generate(requests)
    assert [list(response.tokens) for response in responses] == [alone(each) for each in requests]
    assert [len(response.tokens) for response in responses] == lengths


@pytest.mark.parametrize(
    ("changes", "choices"),
    [
        pytest.param(
            {"layer_pattern": "LG", "sliding_window": 5}, backend.CPU, marks=slow, id="windows"
        ),
        # Layers and caches in stacks.
        pytest.param({"ffn_size": 40}, backend.ACCELERATOR, id="stacks"),
    ],
)
def test_other_networks_in_batches_are_one_row_at_a_time(changes, choices, monkeypatch):
    monkeypatch.setattr(backend, "CPU", choices)
    config = dataclasses.replace(CONFIG, **changes)
    requests = [Request(prompt(n), 20, Sampling(0.5), ends=(END,)) for n in range(1, 7)]
    responses = one_device(config=config, texts=2).generate(requests)
    expected = [alone(request, config) for request in requests]
    assert [list(response.tokens) for response in responses] == expected


def test_a_stop_string_ends_a_response_where_it_first_occurs():
    free = one_device().generate([Request(prompt(5), 40, HOT, 1)])[0]
    assert len(set(free.text)) > 4
    for start, size in [(0, 1), (3, 2), (14, 4), (30, 3), (38, 2)]:
        stop = free.text[start : start + size]
        at = free.text.find(stop)
        request = Request(prompt(5), 40, HOT, 1, stop=("never", stop))
        (response,) = one_device().generate([request])
        assert response.text == free.text[:at]
        assert response.tokens == free.tokens[: at + size]
        assert response.logprobs == pytest.approx(free.logprobs[: at + size], abs=1e-5)
        assert response.finish == "stop"
    request = Request(prompt(5), 40, HOT, 1, stop=("never",))
    assert one_device().generate([request])[0].tokens == free.tokens


def test_a_text_is_decoded_after_its_prompt_and_a_stop_may_be_a_part_of_a_token():
    """As with words that begin with a space unless they begin the text."""
    words = lambda ids: " ".join(f"word{token}" for token in ids)
    spaced = dataclasses.replace(one_device(), decode=words)
    free = spaced.generate([Request(prompt(5), 8)])[0]
    assert free.text == "".join(f" word{token}" for token in free.tokens)
    second = f" word{free.tokens[1]}"
    (response,) = spaced.generate([Request(prompt(5), 8, stop=(second[:-1],))])
    assert response.text == free.text[: free.text.find(second[:-1])]
    assert response.tokens == free.tokens[: len(response.tokens)]
    assert response.finish == "stop"


def test_an_end_wins_over_a_stop_in_its_own_name():
    """The name of the end id is not text."""
    free = one_device().generate([Request(prompt(5), 40, HOT, 1)])[0]
    end = free.tokens[6]
    request = Request(prompt(5), 40, HOT, 1, stop=(decode([end]),), ends=(end,))
    (response,) = one_device().generate([request])
    first = free.tokens.index(end)
    assert (response.text, response.finish) == (free.text[:first], "stop")
    assert response.tokens == free.tokens[: first + 1]


def test_what_is_held_is_bounded_and_few_shapes_are_decoded(monkeypatch):
    shapes = []
    programs = one_device().programs
    decode_some = programs.decode

    def watched_decode(params, blocks, prompts, texts, *rest, **options):
        rows, count, slots = texts.branches.tokens.shape
        held = rows * (prompts.trunk.tokens.shape[1] + count * slots)
        assert held <= 1000 or rows == 1
        shape = (*prompts.trunk.tokens.shape, count)
        shapes.extend([shape] if shape not in shapes else [])
        return decode_some(params, blocks, prompts, texts, *rest, **options)

    monkeypatch.setitem(vars(programs), "decode", watched_decode)
    requests = [Request(prompt(1 + n), 1 + n % 32, seed=n) for n in range(40)]
    requests += [Request(prompt(50), 20, Sampling(1.0), seed=n) for n in range(7)]
    small = one_device(texts=16, tokens=1000)
    assert [len(x.tokens) for x in small.generate(requests)] == [x.max_tokens for x in requests]
    assert shapes == [(8, 32, 1), (8, 64, 1), (1, 64, 2), (1, 64, 4)]
    shapes.clear()  # a row of two texts would hold 32 + 2 * 496 tokens
    long = [Request(prompt(5), 490, seed=n, ends=tuple(range(24))) for n in range(4)]
    assert [len(response.tokens) for response in small.generate(long)] == [1] * 4
    assert shapes == [(1, 32, 1)]


def test_lengths_of_rows_are_few():
    sizes = [padded(length) for length in range(1, 4097)]
    assert sorted(set(sizes)) == [
        32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096,
    ]  # fmt: skip
    assert all(n <= size <= max(32, n + 31, n * 1.5) for n, size in enumerate(sizes, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ()}, "the prompt has no tokens"),
        ({"prompt": (3, 24)}, "ids outside of 0 … 23"),
        ({"prompt": (-1,)}, "ids outside of 0 … 23"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"sampling": Sampling(-0.1)}, "temperature=-0.1"),
        ({"sampling": Sampling(float("nan"))}, "temperature=nan"),
        ({"sampling": Sampling(float("inf"))}, "temperature=inf"),
        ({"sampling": Sampling(1.0, top_p=0.0)}, "top_p=0.0"),
        ({"sampling": Sampling(1.0, top_p=1.1)}, "top_p=1.1"),
        ({"sampling": Sampling(1.0, top_p=float("nan"))}, "top_p=nan"),
        ({"sampling": Sampling(1.0, top_k=-1)}, "top_k=-1"),
        ({"stop": ("x", "")}, "a stop string is empty"),
        ({"max_tokens": 28}, "more than the 32 tokens of the model's context"),
    ],
    ids=str,
)
def test_a_request_that_cannot_be_served_is_refused_before_any_runs(changes, message):
    request = Request(prompt(5), 27)
    served: list[int] = []
    refusing = one_device(context=32)
    with pytest.raises(UserError, match=message) as error:
        refusing.generate(
            [request, dataclasses.replace(request, **changes)], lambda i, _: served.append(i)
        )
    assert "\n" not in str(error.value)
    assert not served


def test_no_requests_have_no_responses():
    assert one_device().generate([]) == []
