"""Write a report over runs and experiments, and print their table.

    python -m launch.report runs/demo                       -> runs/demo/report.html
    python -m launch.report runs/a runs/b --out=both.html   -> both.html, plots/ beside it

Experiments that differ only in the seed are combined: the report shows the mean over seeds with
minimum and maximum. The table can also be written as Markdown:

    python -m launch.report runs/41 runs/42 --markdown=table.md --figures=think_loss,flops

`--plot=plot.svg` plots the held-out metrics of `--figures` over training FLOPs, with the mean and
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
    "out",
    "page to write; by default report.html in the folder, or here if there are several folders",
    "",
)
_MARKDOWN = program.define_output(
    "markdown", "file for the table as Markdown, with a row per run", ""
)
_PLOT = program.define_output("plot", ".svg or .png file with a panel per metric of --figures", "")
_FIGURES = flags.DEFINE_list(
    "figures", [], "metrics of the table ('' = all) or of the plot, such as think_loss,flops"
)


def main(arguments: Sequence[str]) -> None:
    """Write a report over the folders of the arguments."""
    folders = [Path(name) for name in arguments]
    out = Path(_OUT.value or run_folder.REPORT)
    if not _OUT.value and len(folders) == 1:
        out = folders[0] / run_folder.REPORT
    if _FIGURES.value and not (_MARKDOWN.value or _PLOT.value):
        raise UserError(
            "--figures selects metrics for --markdown=FILE or --plot=FILE; set one of these flags"
        )
    if _PLOT.value and not _FIGURES.value:
        raise UserError("--plot needs the metrics to draw; add --figures, as --figures=think_loss")
    sources = report.load_folders(folders)
    groups = report.group_runs(sources)
    summaries = {group.name: [run.summary for run in group.runs] for group in groups}
    table = report.markdown_table(summaries, _FIGURES.value)
    if _PLOT.value:  # before the table is written: a plot refuses metrics that a table accepts
        report.write_comparison(groups, _FIGURES.value, Path(_PLOT.value))
    if _MARKDOWN.value:
        report.write_markdown(table, Path(_MARKDOWN.value))
    report.write_sources(sources, out)
    print(report.terminal_table(summaries, shutil.get_terminal_size((110, 24)).columns))
    print(f"\nreport: {out}")


if __name__ == "__main__":
    program.run(main, most_arguments=None)
