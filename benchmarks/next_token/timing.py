"""Time the steps of this project's next-token trainer."""

import functools
import statistics
import time
from typing import Any

import jax
import numpy as np

from benchmarks.measure import (
    common_line,
    compilations,
    make_model,
    matmul_gflop_per_s,
    optimizer_of,
    rates,
)
from benchmarks.network import FIRST_WORD
from benchmarks.next_token.workload import Workload
from models.sharding import make_mesh
from models.transformer import init
from rlp.data.batch import Batch
from rlp.data.rows import Rows
from rlp.engine.placement import state_shardings
from rlp.engine.step import TrainState, new_state
from rlp.training.trainers import NextTokenTrainer


def measure(sizes: Workload) -> dict[str, Any]:
    """Run the steps of a workload and return its JSON line, with medians over the timed steps."""
    matmul = matmul_gflop_per_s()
    steps, model = _Steps(sizes), make_model(sizes)
    for number in range(sizes.warmup):
        steps.take(number)
    with compilations() as compiled:
        rows = [steps.take(sizes.warmup + number) for number in range(sizes.steps)]
    median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    return {
        "impl": "rlp-jax",
        "step_s": round(median["step_s"], 6),
        "cpu_s": round(median["cpu_s"], 6),
        "step_min_s": round(min(row["step_s"] for row in rows), 6),
        "tokens_per_s": round(sizes.rows * sizes.length / median["step_s"], 1),
        **rates(median["flops"], median["model_flops"], median["step_s"], sizes.dtype),
        "matmul_gflop_per_s": round(matmul, 2),
        "compilations": len(compiled),
        **common_line(sizes, model),
    }


class _Steps:
    """A run in progress, on one device."""

    def __init__(self, sizes: Workload):
        self.sizes = sizes
        model, optimizer = make_model(sizes), optimizer_of(sizes)
        mesh = make_mesh(devices=jax.devices()[:1])
        shardings = state_shardings(mesh, model, optimizer, baseline=False)
        self.trainer = NextTokenTrainer(model, optimizer, mesh, shardings)
        init_key, self.key = jax.random.split(jax.random.key(sizes.seed))

        # Sharded as a step returns it, so that the second step does not compile again.
        @functools.partial(jax.jit, out_shardings=shardings)
        def begin(key: jax.Array) -> TrainState:
            return new_state(init(model, key), optimizer, baseline=False)

        self.state = begin(init_key)

    def take(self, number: int) -> dict[str, float]:
        """Run one step; return its seconds and FLOPs."""
        rows = Rows.of(batch(self.sizes, number))
        start, cpu_start = time.perf_counter(), time.process_time()
        self.state, _, cost = self.trainer.step(self.state, rows, self.key)
        jax.block_until_ready(self.state)
        return {
            "step_s": time.perf_counter() - start,
            "cpu_s": time.process_time() - cpu_start,
            "flops": sum(cost.flops.values()),
            "model_flops": cost.model_flops,
        }


def batch(sizes: Workload, number: int) -> Batch:
    """Return the rows of a step: random tokens, one document per row, without padding."""
    shape = (sizes.rows, sizes.length)
    draw = np.random.default_rng([sizes.seed, number])
    return Batch(
        tokens=draw.integers(FIRST_WORD, sizes.vocab, shape, np.int32),
        segment=np.ones(shape, np.int32),
        position=np.broadcast_to(np.arange(sizes.length, dtype=np.int32), shape),
        index=np.arange(sizes.rows, dtype=np.int32) + number * sizes.rows,
        forks=np.zeros((sizes.rows, 0), np.int32),
    )
