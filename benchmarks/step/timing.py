"""Time the steps of this project's trainer."""

import functools
import statistics
import time
from typing import Any

import jax

from benchmarks.measure import common_line, compilations, matmul_gflop_per_s, rates
from benchmarks.step.product import Case, batches, make_case, make_trainer
from benchmarks.step.workload import Workload
from models.transformer import init, shapes
from rlp.data.batch import Batch
from rlp.data.rows import Rows
from rlp.engine.step import TrainState, new_state
from rlp.training.flops import by_phase, rlp_flops

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
    seconds = {name: round(value, 6) for name, value in median.items() if name.endswith("_s")}
    return {
        "impl": "rlp-jax",
        **seconds,
        "step_min_s": round(min(row["step_s"] for row in rows), 6),
        "thought_tokens_per_s": round(median["tokens"] / median["step_s"], 1),
        "rollout_tokens_per_s": round(median["tokens"] / median["rollout_s"], 1),
        **rates(median["flops"], median["model_flops"], median["step_s"], sizes.dtype),
        **{f"gflop_{stage}": round(median[f"flops_{stage}"] / 1e9, 3) for stage in STAGES},
        "matmul_gflop_per_s": round(matmul, 2),
        "closed_fraction": round(median["closed_fraction"], 4),
        "compilations": len(compiled),
        "rows": sizes.thoughts,
        "micro": sizes.micro_batch,  # the name that other implementations use
        **common_line(sizes, case.model),
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
            "model_flops": cost.model_flops,
            "closed_fraction": metrics["closed_fraction"],
        }
