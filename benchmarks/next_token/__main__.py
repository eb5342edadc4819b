"""Time this project's next-token training on rows of random tokens and print one JSON line.

    python -m benchmarks.next_token --rows 8 --length 256 --threads 2

Seconds are medians over the timed steps; `cpu_s` is the CPU time of the process in a step, and
`peak_mib` is the largest memory of the process, compilation included.
"""

from benchmarks import command
from benchmarks.next_token.workload import Workload


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    return command.measure(arguments, __doc__, Workload, "benchmarks.next_token.timing")


if __name__ == "__main__":
    command.run(main)
