"""The cells of docs/notebook.ipynb run, and its stored outputs are small and up to date.

The cells run as in a kernel: in one namespace, in a temporary folder, and each displays the value
of its last expression. So the tests do not need a kernel and its dozens of packages.
"""

import ast
import contextlib
import io
import json
import sys
from types import ModuleType

import matplotlib as mpl
import pytest

from tests.support.paths import ROOT
from tests.support.runs import one_device  # noqa: F401  a fixture

NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
FEW_STEPS = "base_steps, rlp_steps, text_steps = 2, 2, 1"
LARGEST = 500_000  # bytes of the file; half of them are the thought browser


def source_of(cell):
    """Return the code of a cell; the cell with the tag "parameters" gets fewer steps."""
    code = "".join(cell["source"])
    if "parameters" in cell["metadata"].get("tags", ()):
        assert FEW_STEPS.partition("=")[0] == code.partition("=")[0]
        return FEW_STEPS
    return code


def shown(cell, namespace):
    """Run a cell and return its display: that of the last expression, or None."""
    tree = ast.parse(source_of(cell))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), namespace)
    if last is None:
        return None
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)
    return value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_every_cell_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    mpl.use("agg")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for cell in CELLS:
            display = shown(cell, main.__dict__)
            stored = [out for out in cell["outputs"] if out["output_type"] == "execute_result"]
            html = any("text/html" in out["data"] for out in stored)
            expected = bool(display and display.startswith(("<table", "<iframe")))
            assert html == expected, source_of(cell)
    assert "objective is a lambda" in printed.getvalue()


def test_the_stored_outputs_are_small_and_without_errors():
    assert (ROOT / "docs" / "notebook.ipynb").stat().st_size < LARGEST
    outputs = [out for cell in CELLS for out in cell["outputs"]]
    assert {out["output_type"] for out in outputs} <= {"stream", "execute_result", "display_data"}
    assert not [out for out in outputs if out.get("name") == "stderr"]
    assert all(cell["execution_count"] for cell in CELLS)
