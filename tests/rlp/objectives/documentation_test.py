"""docs/objectives.md says what the code does, and its example runs."""

import re
from pathlib import Path

import jax.numpy as jnp

from rlp.objectives.equations import ADVANTAGES
from rlp.objectives.registry import OBJECTIVES, find
from tests.support.outcomes import outcome

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "objectives.md").read_text(encoding="utf-8")


def test_the_table_is_the_registry():
    names = {function: name for name, function in ADVANTAGES.items()}
    expected = [
        f"| `{name}` | {o.formula} | `{names[o.advantages]}` | "
        f"{'yes' if o.target_weights else ''} | {o.source} |"
        for name, o in OBJECTIVES.items()
    ]
    rows = [line.replace("\\|", "|") for line in PAGE.splitlines() if line.startswith("| `")]
    assert rows[1 : len(expected) + 1] == expected  # below the head


def test_the_example_is_an_objective(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert code.count("\n") <= 30
    (tmp_path / "my_objectives.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    found = outcome()
    gain = found.reasoned - found.baseline[..., None]
    worth = find("my_objectives:BRIEF").reward(found)
    assert jnp.allclose(gain - worth, 0.01 * found.length, atol=1e-6)
