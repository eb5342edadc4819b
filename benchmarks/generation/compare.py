"""Time generation by this project and by other implementations in turn on one workload.

    python -m benchmarks.generation.compare --peer "python peer.py" --rounds 3 \\
        -- --rows 16 --prompt 32 --length 256 --threads 2

A peer is a command line that accepts the flags of the workload (with dashes: --kv-heads) and prints
a JSON line with `impl`, `prefill_s`, `decode_s`, `step_s`, `cpu_s`, `tokens_per_s` and `peak_mib`.
Prints medians over the rounds with their range, and the ratio of each peer to this project.
"""

from benchmarks import command, rounds
from benchmarks.generation.workload import Workload

# Name in a JSON line -> heading.
TIMES = {
    "prefill_s": "prefill s",
    "decode_s": "decode s",
    "step_s": "step s",
    "cpu_s": "core-seconds",
    "tokens_per_s": "tokens/s",
    "peak_mib": "peak MiB",
}


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    return rounds.compare(arguments, __doc__, Workload, TIMES)


if __name__ == "__main__":
    command.run(main)
