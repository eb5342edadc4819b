"""Links from pages to source files and folders, which lead to highlighted copies within the site.

A link such as `[gradient.py](../rlp/engine/gradient.py)` holds where the repository is hosted. In
the site it opens the page source/rlp/engine/gradient.py.html; a link to a folder opens a list of
its modules with the first lines of their docstrings.
"""

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.highlighting import PygmentsBridge

LANGUAGES = {".py": "python", ".toml": "toml", ".md": "markdown", ".css": "css", ".js": "js"}


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the handlers to Sphinx."""
    app.connect("doctree-read", link_to_sources, priority=400)  # before downloads are collected
    app.connect("env-purge-doc", forget)
    app.connect("html-collect-pages", source_pages)
    return {"parallel_read_safe": False}


def link_to_sources(app: Sphinx, doctree: nodes.document) -> None:
    """Let the links of a page to files and folders of the repository open their source pages."""
    page = app.env.docname
    folder = Path(app.srcdir, page).parent
    for link in [*doctree.findall(addnodes.download_reference), *_unresolved(doctree)]:
        path = (folder / link["reftarget"]).resolve()
        if not path.is_relative_to(app.srcdir) or not path.exists():
            continue
        source = path.relative_to(app.srcdir).as_posix()
        linked_sources(app.env).setdefault(page, set()).add(source)
        uri = app.builder.get_relative_uri(page, f"source/{source}")
        link.replace_self(nodes.reference("", "", *link.children, refuri=uri, internal=True))


def _unresolved(doctree: nodes.document) -> Iterator[addnodes.pending_xref]:
    """The links of a page that MyST takes for neither a file nor another page."""
    for link in doctree.findall(addnodes.pending_xref):
        if link.get("reftype") == "myst" and not link.get("refdomain"):
            yield link


def linked_sources(env: BuildEnvironment) -> dict[str, set[str]]:
    """The paths that each page links to; kept with the pages that Sphinx has read."""
    if not hasattr(env, "linked_sources"):
        env.linked_sources = {}
    return env.linked_sources


def forget(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    """Drop the links of a page that is read again."""
    linked_sources(env).pop(page, None)


def source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The source pages: name, variables and template of each."""
    root = Path(app.srcdir)
    linked = {root / path for paths in linked_sources(app.env).values() for path in paths}
    for folder in [path for path in linked if path.is_dir()]:
        linked.update(_modules(folder))
    highlighter = PygmentsBridge("html", app.config.pygments_style)
    for path in sorted(linked):
        name = path.relative_to(root).as_posix()
        if path.is_dir():
            body = _listing(path)
        else:
            language = LANGUAGES.get(path.suffix, "text")
            body = highlighter.highlight_block(path.read_text(encoding="utf-8"), language)
        title = html.escape(name)
        yield f"source/{name}", {"title": title, "body": f"<h1>{title}</h1>\n{body}"}, "page.html"


def _listing(folder: Path) -> str:
    """A list of the modules of a folder and what they are for."""
    rows = []
    for module in _modules(folder):
        docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
        summary = re.sub(
            r"`([^`]+)`", r"<code>\1</code>", html.escape(docstring.partition("\n")[0])
        )
        link = f'<a href="{folder.name}/{module.name}.html"><code>{module.name}</code></a>'
        rows.append(f"<li>{link}: {summary}</li>")
    return f"<ul>{''.join(rows)}</ul>"


def _modules(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.py"))
