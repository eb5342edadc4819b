"""Docstrings of this project in Sphinx: indented blocks are code, and `*` and `|` mean themselves."""

import re
from typing import Any

from sphinx.application import Sphinx

# *emphasis*, which is kept, or a character that reStructuredText would interpret.
MARKUP = re.compile(r"(?<![*\w])(\*\w[^*]*\w\*)(?![*\w])|([*|])")
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the conversion to autodoc, ahead of napoleon."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", convert, priority=400)
    return {"parallel_read_safe": True}


def convert(
    app: Sphinx, kind: str, name: str, documented: Any, options: Any, lines: list[str]
) -> None:
    """Turn a docstring into reStructuredText, in place."""
    converted: list[str] = []
    in_code = in_section = False
    for line in lines:
        indented = line.startswith("    ")
        in_section = in_section or bool(SECTION.match(line))
        if in_code and line and not indented:
            in_code = False
        if indented and not in_code and not in_section and converted[-1:] == [""]:
            in_code = True
            converted += ["::", ""]
        converted.append(line if in_code else _escaped(line))
        in_code = in_code or line.endswith("::")
    lines[:] = converted


def _escaped(line: str) -> str:
    """A line whose `*` and `|` outside of backticks and emphasis are plain characters."""
    parts = line.split("`")
    parts[::2] = [MARKUP.sub(lambda m: m[1] or f"\\{m[2]}", part) for part in parts[::2]]
    return "`".join(parts)
