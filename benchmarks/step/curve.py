"""Marginal cost: time the step over the values of one flag and print a Markdown table.

    python -m benchmarks.step.curve --over positions --values 1,2,4,8,16,32,64 --prefix 256

The last two columns compare with the first value: additional seconds per unit of the flag, and the
same as a share of the first step's time.
"""

import sys
from typing import Any

from benchmarks import command, fields, runs
from benchmarks.step.workload import Workload

TIMES = ("step_s", "rollout_s", "score_s", "update_s")
COUNTS = fields.counts(Workload)


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    parser = command.Parser(__doc__)
    parser.add_argument("--over", choices=COUNTS, default="positions", help="flag to vary")
    parser.add_argument("--values", default="1,2,4,8,16,32,64", help="its values, ascending")
    fields.add_flags(parser, Workload)
    flags = parser.parse_args(arguments)
    sizes = Workload(**fields.values(flags, Workload))
    # All workloads are checked before the first one runs.
    workloads = fields.varied(sizes, flags.over, flags.values)
    command.cpus(max(one.threads for one in workloads))
    lines = []
    for one in workloads:
        name = f"this project with --{flags.over}={getattr(one, flags.over)}"
        try:
            lines.append(runs.run_line(one.command(), name, one.threads, [*TIMES, "rows"]))
        except runs.RunFailed as failure:
            print(failure, file=sys.stderr)
            return 1
        print(f"{name}: {lines[-1]['step_s']:.4g} s a step", file=sys.stderr)
    print(table(flags.over, lines))
    return 0


def table(over: str, lines: list[dict[str, Any]]) -> str:
    """Return a Markdown table with a row for each line; `over` is the varied field."""
    first, rows = lines[0], []
    for line in lines:
        cells = [f"{line[over]}", *(f"{line[t]:.4g}" for t in TIMES), f"{line['rows']}"]
        if line is first:
            cells += ["", ""]
        else:
            extra = (line["step_s"] - first["step_s"]) / (line[over] - first[over])
            cells += [f"{extra:.4g}", f"{100 * extra / first['step_s']:.1f}%"]
        rows.append(cells)
    header = [over, *TIMES, "thoughts per step", "additional s per unit", "% of the first"]
    return runs.markdown(header, rows)


if __name__ == "__main__":
    command.run(main)
