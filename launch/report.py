"""Writes one report over runs and experiments, and prints their table.

    python -m launch.report runs/demo                       -> runs/demo/report.html
    python -m launch.report runs/a runs/b --out=both.html   -> both.html, plots/ beside it

Experiments that differ in nothing but the seed are shown as one, with the mean over seeds and the
smallest and largest of them. For a document of one's own the table is there as Markdown, too:

    python -m launch.report runs/41 runs/42 --markdown=table.md --figures=think_loss,flops
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
_FIGURES = flags.DEFINE_list(
    "figures", [], "its columns, by the names of summary.json, as think_loss,flops; all if empty"
)


def main(arguments: Sequence[str]) -> None:
    """Reports on the folders that are named."""
    folders = [Path(name) for name in arguments]
    out = Path(_OUT.value or run_folder.REPORT)
    if not _OUT.value and len(folders) == 1:
        out = folders[0] / run_folder.REPORT
    if _FIGURES.value and not _MARKDOWN.value:
        raise UserError("--figures are columns of the table of --markdown=FILE, which is not given")
    sources = report.load_folders(folders)
    groups = report.group_runs(sources)
    summaries = {group.name: [run.summary for run in group.runs] for group in groups}
    if _MARKDOWN.value:
        table = report.markdown_table(summaries, _FIGURES.value)
        report.write_markdown(table, Path(_MARKDOWN.value))
    report.write_sources(sources, out)
    print(report.terminal_table(summaries, shutil.get_terminal_size((110, 24)).columns))
    print(f"\nreport: {out}")


if __name__ == "__main__":
    program.run(main, most_arguments=None)
