"""Time how this project generates text after prompts of random tokens and print one JSON line.

    python -m benchmarks.generation --rows 16 --prompt 32 --length 256 --threads 2

Seconds are medians over the timed steps, each of which generates all rows: `prefill_s` reads the
prompts, `decode_s` samples the tokens, `step_s` is their sum and `cpu_s` the CPU time of the
process. With --engine=stream, `prefill_s` is the time until the first token, and with
--engine=requests, prompts are read in `decode_s`. `tokens_per_s` counts generated tokens, and
`peak_mib` is the largest memory of the process, compilation included.
"""

from benchmarks import command
from benchmarks.generation.workload import Workload


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    return command.measure(arguments, __doc__, Workload, "benchmarks.generation.timing")


if __name__ == "__main__":
    command.run(main)
