"""Writes one report over runs and experiments, and prints their table.

    python -m launch.report runs/demo                       -> runs/demo/report.html
    python -m launch.report runs/a runs/b --out=both.html   -> both.html, plots/ beside it

Experiments that differ in nothing but the seed are shown as one, with the mean over seeds and the
smallest and largest of them. For a document of one's own the table is there as Markdown, too:

    python -m launch.report runs/41 runs/42 --markdown=table.md --figures=think_loss,flops

`--plot=plot.svg` draws the held-out metrics of `--figures` over training FLOPs, with the mean and
the range of the seeds.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from launch import program
from rlp import report
from rlp.runtime import run_folder
from rlp.runtime.errors import UserError

_OUT = program.define_output(
    "out", "page to write; report.html in the one folder given, or here if there are several", ""
)
_MARKDOWN = program.define_output("markdown", "file for the table as Markdown, a row per run", "")
_PLOT = program.define_output("plot", ".svg or .png file with a panel per metric of --figures", "")
_FIGURES = flags.DEFINE_list(
    "figures", [], "its columns, by the names of summary.json, as think_loss,flops; all if empty"
)


def main(arguments: Sequence[str]) -> None:
    """Reports on the folders that are named."""
    folders = [Path(name) for name in arguments]
    out = Path(_OUT.value or run_folder.REPORT)
    if not _OUT.value and len(folders) == 1:
        out = folders[0] / run_folder.REPORT
    if _FIGURES.value and not (_MARKDOWN.value or _PLOT.value):
        raise UserError(
            "--figures are columns of the table of --markdown=FILE and panels of --plot=FILE; give "
            "one of these flags"
        )
    if _PLOT.value and not _FIGURES.value:
        raise UserError("--plot needs the metrics to draw; add --figures, as --figures=think_loss")
    sources = report.load_folders(folders)
    groups = report.group_runs(sources)
    summaries = {group.name: [run.summary for run in group.runs] for group in groups}
    table = report.markdown_table(summaries, _FIGURES.value)
    if _MARKDOWN.value:
        report.write_markdown(table, Path(_MARKDOWN.value))
    if _PLOT.value:
        report.write_comparison(groups, _FIGURES.value, Path(_PLOT.value))
    report.write_sources(sources, out)
    print(report.terminal_table(summaries, shutil.get_terminal_size((110, 24)).columns))
    print(f"\nreport: {out}")


if __name__ == "__main__":
    program.run(main, most_arguments=None)
