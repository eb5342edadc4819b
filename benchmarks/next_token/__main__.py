"""Time this project's next-token training on rows of random tokens and print one JSON line.

    python -m benchmarks.next_token --rows 8 --length 256 --threads 2

Seconds are medians over the timed steps; `cpu_s` is the CPU time of the process in a step, and
`peak_mib` is the largest memory of the process, compilation included.
"""

import json
import os

from benchmarks import command, fields
from benchmarks.next_token.workload import Workload


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    parser = command.Parser(__doc__)
    fields.add_flags(parser, Workload)
    sizes = Workload(**fields.values(parser.parse_args(arguments), Workload))
    # XLA starts one thread for each allowed CPU when it first computes.
    os.sched_setaffinity(0, command.cpus(sizes.threads))
    from benchmarks.next_token import timing  # imports jax, after the command line was checked

    print(json.dumps(timing.measure(sizes)), flush=True)
    return 0


if __name__ == "__main__":
    command.run(main)
