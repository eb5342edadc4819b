"""What the benchmarks of training have in common: the network, and facts about the machine."""

import contextlib
import dataclasses
import resource
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.network import NetworkSizes
from configs.default import get_config
from models.config import ModelConfig
from models.transformer import count_parameters
from rlp.capacity.chips import peak_flops
from rlp.engine.optimizer import Optimizer, make_optimizer

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
MATMUL_SIZE = 1024


def make_model(sizes: NetworkSizes) -> ModelConfig:
    """Return the config of the network; other fields have their defaults. Mamba-2 and
    DeltaNet have heads of the same width as attention, and as many groups as there are key and
    value heads."""
    return ModelConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.hidden,
        num_layers=sizes.layers,
        num_heads=sizes.heads,
        num_kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        ffn_size=sizes.ffn_size,
        compute_dtype=sizes.dtype,
        remat=sizes.remat,
        layer_pattern=sizes.pattern,
        mamba_heads=sizes.recurrent_heads,
        mamba_head_dim=sizes.head_dim,
        mamba_groups=sizes.kv_heads,
        delta_heads=sizes.recurrent_heads,
        delta_head_dim=sizes.head_dim,
        delta_key_heads=sizes.kv_heads,
        delta_key_dim=sizes.head_dim,
    )


def optimizer_of(sizes: NetworkSizes) -> Optimizer:
    """Return AdamW with a constant learning rate; other fields are those of the default config."""
    chosen = {"learning_rate": sizes.lr, "schedule": "constant", "clip_norm": 1.0}
    total_steps = sizes.warmup + sizes.steps
    return make_optimizer(**(dict(get_config().optimizer) | chosen), total_steps=total_steps)


def rates(flops: float, model_flops: float, seconds: float, dtype: str) -> dict[str, float]:
    """Return the part of a JSON line with FLOPs and their rates.

    Args:
      flops: executed in a step.
      model_flops: the same without what `model.remat` recomputes.
      seconds: of the step.
      dtype: of the matmuls. `mfu` is present if the peak of the device in it is known.
    """
    device = jax.devices()[0]
    peak = peak_flops(device.device_kind, dtype)
    return {
        "gflop": round(flops / 1e9, 3),
        "gflop_per_s": round(flops / 1e9 / seconds, 2),
        "model_gflop_per_s": round(model_flops / 1e9 / seconds, 2),
        **({"mfu": round(model_flops / seconds / peak, 5)} if peak else {}),
    }


def common_line(sizes: NetworkSizes, model: ModelConfig) -> dict[str, Any]:
    """Return the part of a JSON line that describes workload, memory, machine and versions.

    `device_peak_mib` is present if the device has memory of its own.
    """
    device = jax.devices()[0]
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "params": count_parameters(model),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        **({"device_peak_mib": round(peak / 2**20, 1)} if peak else {}),
        **dataclasses.asdict(sizes),
        "ffn": sizes.ffn_size,
        "device": device.platform,
        "device_kind": device.device_kind,
        "jax": jax.__version__,
    }


@contextlib.contextmanager
def compilations() -> Iterator[list[float]]:
    """Yield a list to which the seconds of every XLA compilation in the context are appended."""
    seconds: list[float] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILE_EVENT:
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def matmul_gflop_per_s(repeats: int = 5) -> float:
    """Return the rate of a large float32 matmul on this machine, the best of `repeats`."""
    square = jnp.ones((MATMUL_SIZE, MATMUL_SIZE), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(square, square))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(multiply(square, square))
        best = min(best, time.perf_counter() - start)
    return 2 * MATMUL_SIZE**3 / best / 1e9
