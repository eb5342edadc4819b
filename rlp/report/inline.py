"""Tables and pages for notebooks and terminals.

Text from models and files is escaped: by `printable` in terminals, by `escape` in HTML.
"""

import base64
from collections.abc import Sequence
from typing import NamedTuple

from rlp.report.html_table import escape
from rlp.runtime.display import printable

LONGEST = 72  # most characters of a cell in a terminal


class Column(NamedTuple):
    """A column of a table.

    Attributes:
      name: The heading.
      cells: One text per row.
      text: Whether the cells are text, aligned left; otherwise numbers, aligned right.
      meaning: The tooltip of the heading.
    """

    name: str
    cells: Sequence[str]
    text: bool = False
    meaning: str = ""


def text_table(columns: Sequence[Column]) -> str:
    """Format the columns as a table for a terminal; long cells are truncated."""
    lines = [""] * (1 + max(len(column.cells) for column in columns))
    for column in columns:
        cells = [_truncate(printable(cell)) for cell in (column.name, *column.cells)]
        width = max(map(len, cells))
        pad = str.ljust if column.text else str.rjust
        lines = [
            f"{line}  {pad(cell, width)}" if line else pad(cell, width)
            for line, cell in zip(lines, cells, strict=True)
        ]
    return "\n".join(line.rstrip() for line in lines)


def html_table(columns: Sequence[Column], caption: str = "") -> str:
    """Format the columns as an HTML table."""
    align = lambda column: f'style="text-align:{"left" if column.text else "right"}"'
    heads = "".join(
        f'<th {align(column)} title="{escape(column.meaning)}">{escape(column.name)}</th>'
        for column in columns
    )
    rows = "".join(
        f"<tr>{''.join(f'<td {align(c)}>{escape(c.cells[row])}</td>' for c in columns)}</tr>"
        for row in range(len(columns[0].cells))
    )
    under = f"<caption {align(columns[-1])}>{escape(caption)}</caption>" if caption else ""
    return f"<table>{under}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def image(png: bytes, meaning: str) -> str:
    """Return an HTML image that embeds a PNG file; `meaning` is its alternative text."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(meaning)}" src="data:image/png;base64,{data}">'


class Inline:
    """An HTML page that a notebook shows in a frame; a terminal shows `text` instead."""

    def __init__(self, page: str, text: str, height: int = 720) -> None:
        """Create an inline page.

        Args:
          page: The HTML page.
          text: What a terminal shows.
          height: The height of the frame in pixels.
        """
        self.page, self.text, self.height = page, text, height

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape_attribute(self.page)}" width="100%" height="{self.height}" '
            'style="border:0"></iframe>'
        )


def escape_attribute(page: str) -> str:
    """Escape an HTML page so that it can be the value of an attribute."""
    return page.replace("&", "&amp;").replace('"', "&quot;")


def _truncate(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
