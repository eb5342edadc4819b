"""Time the recurrence of all Mamba-2 layers in an RLP step, and print one JSON line.

    python -m benchmarks.recurrence --pattern M-M* --docs 4 --group 16 --prefix 256 --thought 64

The flags are those of `benchmarks.step`, whose line has the seconds of the whole stages. Seconds
are medians: `forward_s` of documents and thoughts in chunks, `gradient_s` of that and its backward
pass, as an update computes them, and `decode_s` of as many steps as a thought has tokens.
"""

from benchmarks import command
from benchmarks.step.workload import Workload


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    return command.measure(arguments, __doc__, Workload, "benchmarks.recurrence.timing")


if __name__ == "__main__":
    command.run(main)
