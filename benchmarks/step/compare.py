"""Time RLP steps of this project and of other implementations in turn on one workload.

    python -m benchmarks.step.compare --peer "python peer.py --fast" --peer "python other.py" \\
        --rounds 5 -- --docs 4 --group 16 --threads 1

A peer is a command line that accepts the flags of the workload (with dashes: --kv-heads) and prints
a JSON line with `impl` and the seconds of a step. Prints medians over the rounds with their range,
and each peer's time relative to this project's.
"""

from benchmarks import command, rounds
from benchmarks.step.workload import Workload

# Name in a JSON line -> heading; seconds of a step.
TIMES = {
    "rollout_s": "rollout s",
    "score_s": "score s",
    "update_s": "update s",
    "step_s": "step s",
    "cpu_s": "core-seconds",
}


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    return rounds.compare(arguments, __doc__, Workload, TIMES)


if __name__ == "__main__":
    command.run(main)
