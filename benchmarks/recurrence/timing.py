"""Time the recurrence of Mamba-2 alone, at the sizes of an RLP step."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.measure import common_line, make_model
from benchmarks.step.workload import Workload
from models.backend import choices
from models.config import ModelConfig
from models.recurrence import Places, Tokens, mamba_tokens, recur, step
from rlp.runtime.errors import UserError


def measure(sizes: Workload) -> dict[str, Any]:
    """Time the recurrence and return its JSON line.

    Raises:
      UserError: If the network has no layer of Mamba-2.
    """
    model = make_model(sizes)
    layers = model.letters.count("M")
    if not layers:
        raise UserError(f"--pattern={sizes.pattern!r} has no layer of Mamba-2 (M); add one")
    branches = sizes.positions * sizes.group
    documents = _tokens(model, (sizes.docs, 1, sizes.length), sizes.seed)
    thoughts = _tokens(model, (sizes.docs, branches, sizes.thought), sizes.seed + 1)
    forks = jnp.asarray(sizes.docs * [[sizes.forks()]], jnp.int32)
    places = Places(forks, jnp.ones_like(forks))

    def forward(documents: Tokens, thoughts: Tokens) -> tuple[jax.Array, ...]:
        y, states = _in_chunks(documents, places=places)  # states [B, H, 1, K, S, P]
        start = jnp.repeat(states[:, :, 0], sizes.group, axis=2)
        return y, *_in_chunks(thoughts, start=start)

    def gradient(documents: Tokens, thoughts: Tokens) -> tuple[Tokens, Tokens]:
        loss = lambda *tokens: sum(x.sum() for x in forward(*tokens))
        return jax.grad(loss, argnums=(0, 1))(documents, thoughts)

    def decode(thoughts: Tokens, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        slots = jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0), thoughts)

        def slot(state: jax.Array, tokens: Tokens) -> tuple[jax.Array, jax.Array]:
            y, state = step(tokens, state)
            return state, y

        return jax.lax.scan(slot, state, slots)

    shape = (sizes.docs, model.mamba_heads, branches, model.mamba_state, model.mamba_head_dim)
    state = jnp.zeros(shape, jnp.float32)
    seconds = {
        "forward_s": _seconds(sizes, forward, documents, thoughts),
        "gradient_s": _seconds(sizes, gradient, documents, thoughts),
        "decode_s": _seconds(sizes, decode, thoughts, state),
    }
    return {
        "impl": "rlp-jax",
        "recurrent_layers": layers,
        "chunk": choices().scan_chunk,
        **{name: round(layers * value, 6) for name, value in seconds.items()},
        **common_line(sizes, model),
    }


def _tokens(model: ModelConfig, shape: tuple[int, ...], seed: int) -> Tokens:
    """Return random tokens [B, N, T, …] with the steps and rates of a new network."""
    keys = jax.random.split(jax.random.key(seed), 4)
    normal = lambda key, *axes: jax.random.normal(key, (*shape, *axes), model.dtype)
    shared = model.mamba_groups, model.mamba_state
    dt = jax.random.uniform(keys[0], (*shape, model.mamba_heads), minval=1e-3, maxval=1e-1)
    rate = -jnp.linspace(1.0, 16.0, model.mamba_heads)
    x = normal(keys[1], model.mamba_heads, model.mamba_head_dim)
    return mamba_tokens(x, dt, rate, normal(keys[2], *shared), normal(keys[3], *shared))


def _in_chunks(tokens: Tokens, **where: Any) -> tuple[jax.Array, jax.Array]:
    segment = jnp.ones(tokens.value.shape[:3], jnp.int32)
    return recur(tokens, segment, chunk=choices().scan_chunk, **where)


def _seconds(sizes: Workload, run: Callable, *arguments: Any) -> float:
    """Return the median seconds of a call."""
    compiled, seconds = jax.jit(run), []
    for number in range(sizes.warmup + sizes.steps):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        if number >= sizes.warmup:
            seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)
