"""Writes one report over runs and experiments, and prints their table.

    python -m launch.report runs/demo                       -> runs/demo/report.html
    python -m launch.report runs/a runs/b --out=both.html   -> both.html, plots/ beside it

Experiments that differ in nothing but the seed are shown as one, with the mean over seeds.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from rlp import report
from rlp.errors import UserError

_OUT = flags.DEFINE_string(
    "out", "", "page to write; report.html in the one folder given, or here if there are several"
)


def main(argv: Sequence[str]) -> None:
    """Reports on the folders argv[1:]; exits with 2 and one line if they cannot be used."""
    folders = [Path(name) for name in argv[1:]]
    out = Path(_OUT.value or "report.html")
    if not _OUT.value and len(folders) == 1:
        out = folders[0] / "report.html"
    try:
        sources = report.load_folders(folders)
        report.write_sources(sources, out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    groups = report.group_runs(sources)
    summaries = {group.name: [run.summary for run in group.runs] for group in groups}
    print(report.terminal_table(summaries, shutil.get_terminal_size((110, 24)).columns))
    print(f"\nreport: {out}")


if __name__ == "__main__":
    app.run(main)
