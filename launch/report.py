"""Writes one report over runs and experiments, and prints their table.

    python -m launch.report runs/demo                       -> runs/demo/report.html
    python -m launch.report runs/a runs/b --out=both.html   -> both.html, plots/ beside it

Experiments that differ in nothing but the seed are shown as one, with the mean over seeds.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from launch import program
from rlp import report

_OUT = flags.DEFINE_string(
    "out", "", "page to write; report.html in the one folder given, or here if there are several"
)


def main(arguments: Sequence[str]) -> None:
    """Reports on the folders that are named."""
    folders = [Path(name) for name in arguments]
    out = Path(_OUT.value or "report.html")
    if not _OUT.value and len(folders) == 1:
        out = folders[0] / "report.html"
    sources = report.load_folders(folders)
    report.write_sources(sources, out)
    groups = report.group_runs(sources)
    summaries = {group.name: [run.summary for run in group.runs] for group in groups}
    print(report.terminal_table(summaries, shutil.get_terminal_size((110, 24)).columns))
    print(f"\nreport: {out}")


if __name__ == "__main__":
    program.run(main, most_arguments=None)
