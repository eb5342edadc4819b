"""The report of one run, one experiment, or several of either: a page, plots, a terminal table.

    folders -> load -> compare -> columns (of tables), curves -> plots (PNG) and page (HTML)

`load` reads the folders (`files` checks each file, `history` reads the one with a line per step),
`compare` decides which runs are seeds of one another, `columns` which metrics tables show, `curves`
holds the lines of the plots. The page is one file that asks nothing of a network; its script and
style are the .js and .css files beside this one. `chain` has the table of a chain of stages,
`markdown` tables for other documents; `separate_process` makes a report in another process.
"""

from collections.abc import Sequence
from pathlib import Path

from rlp.report.chain import arm_stages, chain_table
from rlp.report.compare import Group, group_pools, group_runs
from rlp.report.load import Run, Source, load_folders
from rlp.report.markdown import MARK, markdown_table
from rlp.report.separate_process import write_report_separately
from rlp.report.terminal_table import terminal_table
from rlp.runtime import atomic_files, disk_errors, run_folder
from rlp.runtime.errors import UserError

__all__ = [
    "Group",
    "Run",
    "Source",
    "chain_table",
    "group_pools",
    "group_runs",
    "load_folders",
    "markdown_table",
    "write_comparison",
    "write_markdown",
    "arm_stages",
    "terminal_table",
    "write_report",
    "write_report_separately",
    "write_sources",
]


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Writes the page `out` and the PNG plots `out.parent/plots` over all `folders`.

    Args:
        folders: run folders and experiment folders, in the order of the page.
        out: the HTML file to write; its folder is made if missing.

    Raises:
        UserError: as `load_folders` does, `out` cannot be written, or another file has its name or
            that of a plot. Nothing is written then.
    """
    write_sources(load_folders(folders), out)


def write_sources(
    sources: Sequence[Source], out: Path, groups: Sequence[Group] | None = None, title: str = ""
) -> None:
    """`write_report` of folders already read.

    Args:
        sources: what was read.
        out: the HTML file to write.
        groups: the rows of the table; None for those of `group_runs`.
        title: of the page; empty for the names of the sources.

    Raises:
        UserError: `out` cannot be written, or another file has its name or that of a plot.
    """
    from rlp.report import page, plots  # here: a training run needs matplotlib only at its end

    groups = group_runs(sources) if groups is None else groups
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a file, for example {out}/report.html")
    with disk_errors.writing(out):
        disk_errors.refuse_other(out, f"<title>{page.TITLE}")
        out.parent.mkdir(parents=True, exist_ok=True)
        plots.write_plots(groups, out.parent / run_folder.PLOTS)
        page.write_page(sources, groups, out, title)


def write_comparison(groups: Sequence[Group], keys: Sequence[str], out: Path) -> None:
    """Draw held-out metrics over training FLOPs; see `rlp.report.comparison_plot`."""
    from rlp.report import comparison_plot  # imports matplotlib, so only when it is needed

    comparison_plot.write_comparison(groups, keys, out)


def write_markdown(table: str, out: Path) -> None:
    """Writes a table of `markdown_table`.

    Raises:
        UserError: `out` cannot be written, or is a file with something else.
    """
    disk_errors.refuse_other(out, MARK)
    with disk_errors.writing(out):
        atomic_files.write_whole(out, f"{table}\n")
