"""Time this project's RLP step on synthetic documents and print one JSON line.

    python -m benchmarks.step --docs 4 --group 16 --prefix 256 --thought 64 --threads 1
    python -m benchmarks.step --check    # compare with a prefix repeated for every thought
    python -m benchmarks.step --memory   # compile, and print what is in memory in each stage

Seconds are medians over the timed steps, by stage; `cpu_s` is the CPU time of the process in a
step. With --check the line contains the largest differences, and the exit status is 1 if one is too
large; in bfloat16 they are also given as multiples of the rounding of that dtype, and the limits
depend on the sizes (check.py).
"""

import json
import os
import sys

from benchmarks import command, fields
from benchmarks.step.workload import Workload


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    parser = command.Parser(__doc__)
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--check", action="store_true", help="compare with the naive layout")
    modes.add_argument("--memory", action="store_true", help="print the memory of each stage")
    fields.add_flags(parser, Workload)
    flags = parser.parse_args(arguments)
    sizes = Workload(**fields.values(flags, Workload))
    # XLA starts one thread for each allowed CPU when it first computes.
    os.sched_setaffinity(0, command.cpus(sizes.threads))
    run = _check if flags.check else _memory if flags.memory else _measure
    return run(sizes)


def _measure(sizes: Workload) -> int:
    from benchmarks.step import timing  # imports jax, after the command line has been checked

    print(json.dumps(timing.measure(sizes)), flush=True)
    return 0


def _memory(sizes: Workload) -> int:
    from benchmarks.step import memory

    print("\n".join(memory.tables(sizes)), flush=True)
    return 0


def _check(sizes: Workload) -> int:
    from benchmarks.step import check

    differences = check.differences_of(sizes)
    print(json.dumps(differences), flush=True)
    for complaint in (complaints := check.complaints(differences, check.limits(sizes))):
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    command.run(main)
