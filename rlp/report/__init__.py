"""Reports on runs and experiments: an HTML page, PNG plots, and a table for the terminal.

    folders -> load -> compare -> columns (of tables), curves -> plots (PNG) and page (HTML)

`load` reads the folders (`files` checks each file, `history` reads metrics.jsonl), `compare` finds
the runs that differ only by their seed, `columns` selects the metrics of tables, and `curves`
prepares the lines of plots. The page is a single file that loads nothing from the network; its
script and style are the .js and .css files in this folder. `chain` formats the table of a pipeline,
`markdown` formats Markdown tables, and `separate_process` writes a report in another process.
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
    """Write the page `out`, and PNG plots to `out.parent/plots`, for all `folders`.

    Args:
        folders: Run folders and experiment folders, in the order of the page.
        out: The HTML file to write; its folder is created if it does not exist.

    Raises:
        UserError: As in `load_folders`, or if `out` or a plot cannot be written or would overwrite
            a file that is not part of a report. Nothing is written in these cases.
    """
    write_sources(load_folders(folders), out)


def write_sources(
    sources: Sequence[Source], out: Path, groups: Sequence[Group] | None = None, title: str = ""
) -> None:
    """Write the report on folders that have been loaded.

    Args:
        sources: The loaded folders.
        out: The HTML file to write.
        groups: The rows of the table; None for those of `group_runs`.
        title: The title of the page; "" for the names of the sources.

    Raises:
        UserError: If `out` or a plot cannot be written or would overwrite a file that is not part
            of a report.
    """
    from rlp.report import page, plots  # imported lazily: training needs matplotlib only at its end

    groups = group_runs(sources) if groups is None else groups
    if out.is_dir():
        raise UserError(f"{out} is a folder; name a file, for example {out}/report.html")
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
    """Write a table made by `markdown_table` to a file.

    Raises:
        UserError: If `out` cannot be written, or is a file that does not contain such a table.
    """
    disk_errors.refuse_other(out, MARK)
    with disk_errors.writing(out):
        atomic_files.write_whole(out, f"{table}\n")
