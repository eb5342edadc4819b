"""Measure the seconds and the peak memory of the process that writes the report of a long run.

    python -m benchmarks.long_report                      100,000 steps of RLP, synthetic
    python -m benchmarks.long_report --steps=1000 --keep=/tmp/long

The run is synthetic: its metrics rise, fall and scatter like those of a real run, with occasional
spikes, and it has an evaluation every 1,000 steps.
"""

import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import command
from rlp.runtime import run_folder

ROOT = Path(__file__).resolve().parents[1]
SHARES = (
    "reward_positive_share", "closed_fraction", "zero_variance_share", "distinct_thoughts",
    "target_named_share", "decode_use", "clip_fraction",
)  # fmt: skip
OTHERS = (
    "information_gain", "thought_length", "thought_entropy", "grad_norm", "no_think_loss", "loss",
    "reward_mean", "advantage_std", "reasoned_evidence", "baseline_evidence", "logprob_gap",
)  # fmt: skip
HELD_OUT = (
    "no_think_accuracy", "greedy_think_accuracy", "sampled_think_accuracy", "no_think_loss",
    "think_loss", "mean_information_gain", "thought_length", "closed_fraction",
)  # fmt: skip
COSTS = ("prefill", "decode", "scoring", "baseline", "reference", "update", "optimizer")
STAGES = ("data", "rollout", "evidence", "update")
EVERY = 1000  # steps between evaluations
SPIKES = 1 / 5000  # share of the steps with a spike


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    parser = command.Parser(__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--keep", help="folder to create, in which the run and its report are kept")
    flags = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_run(Path(flags.keep or temporary) / "run", flags.steps)
        seconds, peak = cost(folder)
        sizes = (folder / name for name in (run_folder.METRICS, run_folder.REPORT))
        metrics, page = (f"{path.stat().st_size / 2**20:.1f} MiB" for path in sizes)
    print(
        f"{flags.steps:,} steps ({metrics} of metrics): {seconds:.1f} s, {peak / 2**20:.0f} MiB, "
        f"a page of {page}"
    )
    return 0


def cost(folder: Path) -> tuple[float, int]:
    """Return the seconds that `launch.report` takes for a run, and its peak memory in bytes."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "launch.report", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return time.perf_counter() - start, peak


def write_run(folder: Path, steps: int, seed: int = 0) -> Path:
    """Write the folder of a synthetic finished run and return it."""
    folder.mkdir(parents=True)
    config = {"seed": seed, "objective": "rlp", "steps": steps}
    (folder / run_folder.CONFIG).write_text(json.dumps(config))
    draw = random.Random(seed)
    with (folder / run_folder.METRICS).open("w") as file:
        for step in range(1, steps + 1):
            file.write(json.dumps(_line(step, steps, draw)) + "\n")
    metrics = {name: draw.random() for name in HELD_OUT}
    (folder / run_folder.EVALUATION).write_text(json.dumps({"step": steps, **metrics}))
    return folder


def _line(step: int, steps: int, draw: random.Random) -> dict[str, float]:
    done = step / steps
    line: dict[str, float] = {"step": step}
    for number, name in enumerate(SHARES):
        level = 0.2 + 0.5 / (1 + math.exp(8 * (0.1 * number - done)))
        line[name] = min(1.0, max(0.0, level + draw.gauss(0, 0.05)))
    for number, name in enumerate(OTHERS):
        spike = 20 * (draw.random() < SPIKES)
        line[name] = (1 + number) * (0.3 + math.exp(-4 * done)) + draw.gauss(0, 0.3) + spike
    for name in COSTS:
        line[f"flops_{name}"] = step * 1.7e9
    for name in STAGES:
        line[f"seconds_{name}"] = 0.1 + abs(draw.gauss(0, 0.01))
    if step % EVERY == 0:
        line |= {f"evaluation/{name}": done + draw.gauss(0, 0.02) for name in HELD_OUT}
    return line | {
        "flops": step * 1.2e10 * (1 + 0.1 * done),
        "tokens_documents": step * 1408,
        "seconds_device": step * 0.9,
        "learning_rate": 3e-4,
        "skipped_updates": 0,
    }


if __name__ == "__main__":
    command.run(main)
