"""Measure attention and training steps on the GPU or TPU of this machine and write a table.

    python -m benchmarks.accelerator --out=<folder>

Runs the other benchmarks one after the other, each in a process of its own: attention kernels and
XLA's attention, an RLP step and a next-token step of two networks, in bfloat16 on one device. After
each of them it writes results.json and table.md into the folder; log.txt there has what they print
on stderr. It stops after --minutes. Called again with the same folder, it measures what is missing.
The exit status is 1 if something is missing at the end.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import command, runs
from benchmarks.accelerator import plan
from benchmarks.accelerator.results import Results
from rlp.runtime import disk_errors
from rlp.runtime.errors import UserError

LEAST_S = 20.0  # seconds that must be left to start a measurement


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    start = time.monotonic()
    parser = command.Parser(__doc__)
    parser.add_argument("--out", help="folder of the results")
    parser.add_argument("--minutes", type=float, default=9.5, help="time for all measurements")
    parser.add_argument(
        "--allow_cpu", action="store_true", help="without an accelerator, try tiny sizes on the CPU"
    )
    flags = parser.parse_args(arguments)
    if not flags.out:
        raise UserError("--out is missing; set the folder of the results")
    if not flags.minutes > 0:
        raise UserError(f"--minutes={flags.minutes}; it must be above 0")
    folder = Path(flags.out)
    device = _device(flags.allow_cpu)
    with disk_errors.writing(folder, disk_errors.RUN_AGAIN):
        folder.mkdir(parents=True, exist_ok=True)
        results = Results(folder, device, plan.measurements(device["backend"]))
        _measure(results, start + 60 * flags.minutes, folder / "log.txt")
    print(results.table(), end="")
    return 1 if results.missing() else 0


def _device(allow_cpu: bool) -> dict[str, Any]:
    """Return the facts about the device and the number of CPUs.

    Raises:
      UserError: If there is no accelerator, or JAX does not start.
    """
    cpus = len(os.sched_getaffinity(0))
    words = [sys.executable, "-m", "benchmarks.accelerator.device"]
    try:
        device = runs.run_line(words, "JAX", cpus, ["devices"])
    except runs.RunFailed as failure:
        raise UserError(str(failure)) from failure
    if device["backend"] not in plan.ATTENTION:
        raise UserError(f"there are no measurements for JAX's backend {device['backend']!r}")
    if device["backend"] == "cpu" and not allow_cpu:
        raise UserError(
            "this program needs a GPU or a TPU, and JAX finds only a CPU; add --allow_cpu to try "
            "it at tiny sizes"
        )
    return device | {"cpus": cpus}


def _measure(results: Results, deadline: float, log: Path) -> None:
    """Run the missing measurements until the deadline, in seconds of `time.monotonic`."""
    for one in results.missing():
        begin = time.monotonic()
        if (left := deadline - begin) < LEAST_S:
            break
        cpus, limit = results.device["cpus"], min(one.limit_s, left)
        needed, statuses = plan.NEEDED[one.program], plan.STATUSES.get(one.program, (0,))
        words = one.command(cpus)
        try:
            line = runs.run_line(
                words, one.name, cpus, needed, limit_s=limit, log=log, statuses=statuses
            )
        except runs.RunFailed as failure:
            results.add(one, {"failed": str(failure)})
        else:
            results.add(one, {"line": line, "wall_s": round(time.monotonic() - begin, 1)})
        print(f"{one.name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    results.write()


if __name__ == "__main__":
    command.run(main)
