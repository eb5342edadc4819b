"""Time next-token training of this project and of other implementations in turn on one workload.

    python -m benchmarks.next_token.compare --peer "python peer.py" --rounds 3 \\
        -- --rows 8 --length 256 --threads 2

A peer is a command line that accepts the flags of the workload (with dashes: --kv-heads) and prints
a JSON line with `impl`, `step_s`, `cpu_s` and `peak_mib`. Prints medians over the rounds with their
range, and the ratio of each peer to this project.
"""

from benchmarks import command, rounds
from benchmarks.next_token.workload import Workload

# Name in a JSON line -> heading.
TIMES = {"step_s": "step s", "cpu_s": "core-seconds", "peak_mib": "peak MiB"}


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    return rounds.compare(arguments, __doc__, Workload, TIMES)


if __name__ == "__main__":
    command.run(main)
