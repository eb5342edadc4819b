"""Time the steps of this project's trainer."""

import contextlib
import dataclasses
import functools
import resource
import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.step.product import Case, batches, make_case, make_trainer
from benchmarks.step.workload import Workload
from models.transformer import count_parameters, init, shapes
from rlp.data.batch import Batch
from rlp.data.rows import Rows
from rlp.engine.step import TrainState, new_state
from rlp.training.flops import by_phase, rlp_flops

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
MATMUL_SIZE = 1024
# Name in the printed line -> stage of the trainer.
STAGES = {"rollout": "rollout", "score": "evidence", "update": "update"}


def measure(sizes: Workload) -> dict[str, Any]:
    """Run the steps of a workload and return its JSON line, with medians over the timed steps."""
    matmul = matmul_gflop_per_s()
    case = make_case(sizes)
    steps = _Steps(case, sizes.seed)
    all_batches = batches(sizes, sizes.warmup + sizes.steps)
    for batch in all_batches[: sizes.warmup]:
        steps.take(batch)
    with compilations() as compiled:
        rows = [steps.take(batch) for batch in all_batches[sizes.warmup :]]
    median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    device = jax.devices()[0]
    seconds = {name: round(value, 6) for name, value in median.items() if name.endswith("_s")}
    return {
        "impl": "rlp-jax",
        **seconds,
        "step_min_s": round(min(row["step_s"] for row in rows), 6),
        "thought_tokens_per_s": round(median["tokens"] / median["step_s"], 1),
        "rollout_tokens_per_s": round(median["tokens"] / median["rollout_s"], 1),
        "gflop": round(median["flops"] / 1e9, 3),
        **{f"gflop_{stage}": round(median[f"flops_{stage}"] / 1e9, 3) for stage in STAGES},
        "gflop_per_s": round(median["flops"] / 1e9 / median["step_s"], 2),
        "matmul_gflop_per_s": round(matmul, 2),
        "closed_fraction": round(median["closed_fraction"], 4),
        "compilations": len(compiled),
        "params": count_parameters(case.model),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "rows": sizes.thoughts,
        **dataclasses.asdict(sizes),
        "ffn": sizes.ffn_size,
        "micro": sizes.micro_batch,  # the name that other implementations use
        "device": device.platform,
        "device_kind": device.device_kind,
        "jax": jax.__version__,
    }


class _Steps:
    """A run in progress, on one device."""

    def __init__(self, case: Case, seed: int):
        self.case = case
        self.trainer, shardings = make_trainer(case)
        self.optimizer_flops = case.optimizer.flops(shapes(case.model))
        init_key, self.key = jax.random.split(jax.random.key(seed))

        # Sharded as a step returns it, so that the second step does not compile again.
        @functools.partial(jax.jit, out_shardings=shardings)
        def begin(key: jax.Array) -> TrainState:
            return new_state(init(case.model, key), case.optimizer, baseline=True)

        self.state = begin(init_key)

    def take(self, batch: Batch) -> dict[str, float]:
        """Run one step; return seconds, sampled tokens, FLOPs and the share of closed thoughts."""
        start, cpu_start = time.perf_counter(), time.process_time()
        self.state, metrics, cost = self.trainer.step(self.state, Rows.of(batch), self.key)
        decoded = round(cost.rollout / metrics["decode_use"])
        rows, length = batch.tokens.shape
        case, optimizer = self.case, self.optimizer_flops
        flops = by_phase(
            rlp_flops(case.model, case.settings, case.vocabulary, optimizer, rows, length, decoded)
        )
        return {
            **{f"flops_{ours}": flops[name] for ours, name in STAGES.items()},
            "rollout_s": cost.seconds["rollout"],
            "score_s": cost.seconds["evidence"],
            "update_s": cost.seconds["update"],
            "step_s": time.perf_counter() - start,
            "cpu_s": time.process_time() - cpu_start,
            "tokens": cost.rollout,
            "flops": sum(flops.values()),
            "closed_fraction": metrics["closed_fraction"],
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
