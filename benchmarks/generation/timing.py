"""Time the programs with which this project generates text.

The engine "rollout" decodes all rows in one program on the device (`rlp/engine/rollout.py`). The
engine "stream" returns to the host after every token (`rlp/evaluation/generation/single.py`), and
the engine "requests" after every few of all rows (`rlp/evaluation/generation/generator.py`). Tokens
that end a response are never sampled, so that all rows have their full length.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.generation.workload import Workload
from benchmarks.measure import (
    common_line,
    compilations,
    make_model,
    matmul_gflop_per_s,
    rates,
)
from benchmarks.network import FIRST_WORD
from configs.default import get_config
from models.config import ModelConfig
from models.sharding import make_mesh
from models.transformer import init
from rlp.data.batch import Batch
from rlp.engine.branches import Thoughts, Vocabulary, response_vocabulary, vocabulary
from rlp.engine.forked_documents import ForkedDocuments
from rlp.engine.placement import gather
from rlp.engine.step import RLPSettings, read_stage, rollout_stage
from rlp.evaluation.answering import response_settings
from rlp.evaluation.generation.batch import padded
from rlp.evaluation.generation.generator import Generator, Request, Sampling
from rlp.evaluation.generation.single import ROOM, continuation
from rlp.training.flops import by_phase, rlp_flops

PAD, EOS, BOS, OPENING = range(4)


def measure(sizes: Workload) -> dict[str, Any]:
    """Generate the steps of a workload and return its JSON line, with medians over timed steps."""
    matmul = matmul_gflop_per_s()
    model = make_model(sizes)
    engine = {"rollout": Rollout, "stream": Stream, "requests": Requests}[sizes.engine](
        sizes, model
    )
    for number in range(sizes.warmup):
        _take(engine, number)
    with compilations() as compiled:
        rows = [_take(engine, sizes.warmup + number) for number in range(sizes.steps)]
    median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    seconds = {name: round(value, 6) for name, value in median.items() if name.endswith("_s")}
    flops = _flops(sizes, model)
    return {
        "impl": "rlp-jax",
        **seconds,
        "step_min_s": round(min(row["step_s"] for row in rows), 6),
        "tokens": int(median["tokens"]),
        "tokens_per_s": round(median["tokens"] / median["step_s"], 1),
        **rates(flops, flops, median["step_s"], sizes.dtype),
        "matmul_gflop_per_s": round(matmul, 2),
        "compilations": len(compiled),
        **common_line(sizes, model),
    }


class Rollout:
    """The engine of training, held-out evaluation and `launch.sample --think`."""

    def __init__(self, sizes: Workload, model: ModelConfig):
        self.sizes = sizes
        init_key, self.key = jax.random.split(jax.random.key(sizes.seed))
        # The copy that a step of training and an evaluation make once, in the compute dtype.
        self.params = jax.jit(lambda key: gather(model, init(model, key)))(init_key)
        method = (model, settings(sizes), words(sizes))
        self.read = jax.jit(functools.partial(read_stage, *method))

        @jax.jit
        def roll_out(params: Any, forked: ForkedDocuments) -> Thoughts:
            return rollout_stage(*method, params, forked).thoughts

        self.roll_out = roll_out

    def prefill(self, number: int) -> ForkedDocuments:
        """Read the prompts."""
        prompts = batch(self.sizes, number)
        return jax.block_until_ready(self.read(self.params, self.params, prompts, self.key, number))

    def decode(self, forked: ForkedDocuments) -> np.ndarray:
        """Return the responses, [rows, length]."""
        responses = self.roll_out(self.params, forked)
        return np.asarray(responses.actions).reshape(self.sizes.rows, -1)


class Stream:
    """The engine of `launch.sample` without `--think`."""

    def __init__(self, sizes: Workload, model: ModelConfig):
        self.sizes, self.model = sizes, model
        init_key, self.key = jax.random.split(jax.random.key(sizes.seed))
        self.params = jax.jit(functools.partial(init, model))(init_key)

    def prefill(self, number: int) -> tuple[int, Iterator[int]]:
        """Read the prompt and return the first token and the others to come."""
        tokens = continuation(
            self.model,
            self.params,
            prompt_tokens(self.sizes, number)[0].tolist(),
            self.sizes.length,
            temperature=self.sizes.temperature,
            key=jax.random.fold_in(self.key, number),
            banned=words(self.sizes).not_in_thoughts,
        )
        return next(tokens), tokens

    def decode(self, begun: tuple[int, Iterator[int]]) -> np.ndarray:
        """Return the response, [1, length]."""
        first, rest = begun
        return np.array([[first, *rest]])


class Requests:
    """The engine of the evaluation on benchmarks."""

    def __init__(self, sizes: Workload, model: ModelConfig):
        self.sizes = sizes
        init_key, _ = jax.random.split(jax.random.key(sizes.seed))
        params = jax.jit(functools.partial(init, model))(init_key)
        banned = words(sizes).not_in_thoughts
        mesh = make_mesh(devices=jax.devices()[:1])
        self.generator = Generator(model, params, mesh, str, banned, texts=sizes.rows)

    def prefill(self, number: int) -> list[Request]:
        """Return the requests of a step."""
        sampling = Sampling(self.sizes.temperature)
        return [
            Request(tuple(prompt), self.sizes.length, sampling, seed=member)
            for prompt in prompt_tokens(self.sizes, number).tolist()
            for member in range(self.sizes.group)
        ]

    def decode(self, requests: list[Request]) -> np.ndarray:
        """Return the responses, [rows, length]."""
        return np.array([response.tokens for response in self.generator.generate(requests)])


def _take(engine: Any, number: int) -> dict[str, float]:
    """Generate all rows once; return seconds and the number of tokens."""
    start, cpu_start = time.perf_counter(), time.process_time()
    prompts = engine.prefill(number)
    between = time.perf_counter()
    tokens = engine.decode(prompts)
    end = time.perf_counter()
    return {
        "prefill_s": between - start,
        "decode_s": end - between,
        "step_s": end - start,
        "cpu_s": time.process_time() - cpu_start,
        "tokens": int((tokens != PAD).sum()),
    }


def settings(sizes: Workload) -> RLPSettings:
    """Return the settings of reinforcement learning with verifiable rewards (RLVR)."""
    method = {
        "objective": "rlvr",
        "group_size": sizes.group,
        "temperature": sizes.temperature,
        "prompt": (),
        "thought_length_schedule": (),
        "bos": 0,
    }
    return response_settings(RLPSettings(**(dict(get_config().rlp) | method)), sizes.length)


def words(sizes: Workload) -> Vocabulary:
    """Return the vocabulary of responses, without the token that ends one."""
    unending = vocabulary(
        think_open=(OPENING,),
        think_close=(OPENING + 1,),
        pad=PAD,
        bos=(BOS,),
        eos=EOS,
        separator=EOS,
        used=sizes.vocab,
        size=sizes.vocab,
    )
    responses = response_vocabulary(unending, (OPENING,), EOS)
    return dataclasses.replace(responses, not_in_thoughts=unending.not_in_thoughts)


def prompt_tokens(sizes: Workload, number: int) -> np.ndarray:
    """Return the prompts of a step [prompts, prompt], int32: words, and the opening at the end."""
    shape = (sizes.prompts, sizes.prompt)
    tokens = np.random.default_rng([sizes.seed, number]).integers(FIRST_WORD, sizes.vocab, shape)
    tokens[:, -1] = OPENING
    return tokens.astype(np.int32)


def batch(sizes: Workload, number: int) -> Batch:
    """Return the prompts as rows [prompts, prompt], with the fork at their end.

    Decoding starts from the opening, so its place in a row is padding.
    """
    tokens = prompt_tokens(sizes, number)
    tokens[:, -1] = PAD
    position = np.arange(sizes.prompt, dtype=np.int32)
    inside = (position < sizes.prompt - 1).astype(np.int32)
    return Batch(
        tokens=tokens,
        segment=np.broadcast_to(inside, tokens.shape),
        position=np.broadcast_to(position * inside, tokens.shape),
        index=np.arange(sizes.prompts, dtype=np.int32),
        forks=np.full((sizes.prompts, 1), sizes.prompt - 1, np.int32),
    )


def _flops(sizes: Workload, model: ModelConfig) -> int:
    """Return the FLOPs of a step: of prefill and decoding."""
    decoded = sizes.rows * sizes.length
    method = (model, settings(sizes), words(sizes))
    prompt = sizes.prompt
    if sizes.engine == "stream":
        prompt = -(-prompt // ROOM) * ROOM
    elif sizes.engine == "requests":
        prompt = padded(prompt)
    return by_phase(rlp_flops(*method, 0, sizes.prompts, prompt, decoded))["rollout"]
