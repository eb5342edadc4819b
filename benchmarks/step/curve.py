"""What one more costs: times the product's step over the values of one flag, as a Markdown table.

    python -m benchmarks.step.curve --over positions --values 1,2,4,8,16,32,64 --prefix 256

The last two columns compare with the first value: seconds for every one more, and these as a share
of the first step.
"""

import sys
from typing import Any

from benchmarks import command
from benchmarks.step import fields, runs, workload

TIMES = ("step_s", "rollout_s", "score_s", "update_s")
COUNTS = fields.counts(workload.Workload)


def main(arguments: list[str]) -> int:
    """Runs the program; returns its exit status."""
    parser = command.Parser(__doc__)
    parser.add_argument("--over", choices=COUNTS, default="positions", help="flag to vary")
    parser.add_argument("--values", default="1,2,4,8,16,32,64", help="its values, ascending")
    workload.add_flags(parser)
    flags = parser.parse_args(arguments)
    sizes = workload.from_flags(flags)
    # All are made before the first is run, so that a value that makes no sense is refused at once.
    each = fields.varied(sizes, flags.over, flags.values)
    command.cpus(max(one.threads for one in each))
    lines = []
    for one in each:
        name = f"the product with --{flags.over}={getattr(one, flags.over)}"
        try:
            lines.append(runs.run_line(runs.product(one), name, one.threads, [*TIMES, "rows"]))
        except runs.RunFailed as failure:
            print(failure, file=sys.stderr)
            return 1
        print(f"{name}: {lines[-1]['step_s']:.4g} s a step", file=sys.stderr)
    print(table(flags.over, lines))
    return 0


def table(over: str, lines: list[dict[str, Any]]) -> str:
    """One row per line; `over` is the field that differs between them."""
    first, rows = lines[0], []
    for line in lines:
        cells = [f"{line[over]}", *(f"{line[t]:.4g}" for t in TIMES), f"{line['rows']}"]
        if line is first:
            cells += ["", ""]
        else:
            extra = (line["step_s"] - first["step_s"]) / (line[over] - first[over])
            cells += [f"{extra:.4g}", f"{100 * extra / first['step_s']:.1f}%"]
        rows.append(cells)
    header = [over, *TIMES, "thoughts a step", "s for one more", "of the first step"]
    return runs.markdown(header, rows)


if __name__ == "__main__":
    command.run(main)
