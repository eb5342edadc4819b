"""Who may import whom: every import of every file is held to the rules of the design.

Imports inside functions and under TYPE_CHECKING count like any other, and so do relative ones and
import_module("…").
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("benchmarks", "configs", "launch", "models", "rlp", "tests")

# The modules of a room (or of a part of it) import the standard library and nothing but these.
ONLY = {
    "models": ("jax", "flax", "numpy", "models"),
    "models.kernels": ("jax", "numpy", "models.kernels"),
    "configs": ("ml_collections", "configs"),
    "rlp.objective": (
        "jax",
        "flax",
        "numpy",
        "rlp.objective",
        "rlp.errors",
        "rlp.named",
        "rlp.user_code",
    ),
}
# They never import these.
NEVER = {
    "rlp": ("configs", "launch", "tests", "benchmarks"),
    "benchmarks": ("launch", "tests"),
    "launch": ("tests", "benchmarks"),
}
# These are imported nowhere else. Tests may import anything.
DOORS = {
    "absl.app": ("launch",),
    "absl.flags": ("launch",),
    "launch": ("launch",),
    "ml_collections": (
        "configs",
        "launch",
        "rlp.loop",
        "rlp.build",
        "rlp.build_data",
        "rlp.build_sizes",
        "rlp.exchange",
        "rlp.experiment",
        "rlp.run_config",
        "rlp.start",
    ),
    "orbax": ("rlp.checkpoint",),
    "grain": ("rlp.data",),
    "fsspec": ("rlp.data",),
    "yaml": ("launch.pods",),
    "optax": ("rlp.optimizer",),
    "transformers": ("rlp.tokenizer", "rlp.huggingface"),
    "tokenizers": ("rlp.tokenizer",),
    "safetensors": ("rlp.huggingface",),
    "huggingface_hub": ("rlp.huggingface",),
    "gguf": ("rlp.huggingface",),
    "torch": ("rlp.huggingface.verify", "benchmarks.attention_torch"),
    "math_verify": ("rlp.verifiers",),
    "sympy": ("rlp.verifiers",),
    "pebble": ("rlp.grading",),
    "matplotlib": ("rlp.report",),
    "tensorboardX": ("rlp.metrics",),
}


def within(module: str, *parents: str) -> bool:
    """Whether `module` is one of `parents` or inside one."""
    return any(module == parent or module.startswith(parent + ".") for parent in parents)


def imports(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that the file `path` imports, as module `module`."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = above + ([node.module] if node.module else [])
            yield from ((node.lineno, ".".join([*source, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            called = called.id if isinstance(called, ast.Name) else called
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def complaints(module: str, imported: str) -> Iterator[str]:
    """The rules that `module` breaks by importing `imported`."""
    if within(module, "tests"):
        return
    for part, allowed in ONLY.items():
        standard = imported.split(".")[0] in sys.stdlib_module_names
        if within(module, part) and not standard and not within(imported, *allowed):
            yield f"{part} imports only {', '.join(allowed)}"
    for part, forbidden in NEVER.items():
        if within(module, part) and within(imported, *forbidden):
            yield f"{part} never imports {', '.join(forbidden)}"
    for library, doors in DOORS.items():
        if within(imported, library) and not within(module, *doors):
            yield f"only {' and '.join(doors) or 'tests'} may import {library}"
    if imported == "absl":
        yield "name the module of absl that is meant"


def violations(root: Path) -> list[str]:
    """Every broken rule below `root`, as "file:line: import, rule"."""
    found = []
    for path in sorted(p for room in ROOMS for p in (root / room).rglob("*.py")):
        file = path.relative_to(root)
        module = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        for line, imported in imports(path, module):
            found += [f"{file}:{line}: {imported}, {rule}" for rule in complaints(module, imported)]
    return found


def test_every_import_of_the_project_is_allowed():
    assert "\n".join(violations(ROOT)) == ""


NAMED = {"models", "rlp.objective"}.union(*DOORS.values())


@pytest.mark.parametrize("module", sorted(NAMED))
def test_a_rule_is_about_a_module_that_exists(module):
    path = ROOT.joinpath(*module.split("."))
    assert any(path.glob("*.py")) or path.with_suffix(".py").exists()


@pytest.mark.parametrize(
    ("file", "line", "imported"),
    [
        ("models/layers.py", "from rlp import step", "rlp.step"),
        ("models/layers.py", "import optax", "optax"),
        ("models/kernels/gpu.py", "from flax import nnx", "flax.nnx"),
        ("models/kernels/gpu.py", "from ..config import Model", "models.config.Model"),
        ("configs/text.py", "import jax", "jax"),
        ("configs/text.py", "from rlp import errors", "rlp.errors"),
        ("rlp/__init__.py", "from ..launch import train", "launch.train"),
        ("rlp/data/text.py", "from configs import default", "configs.default"),
        ("rlp/data/text.py", "from ..loop import train; import launch.train", "launch.train"),
        ("rlp/objective/equations.py", "from .. import step", "rlp.step"),
        (
            "rlp/objective/equations.py",
            "from models.transformer import init",
            "models.transformer.init",
        ),
        ("rlp/rollout.py", "def f():\n    import torch", "torch"),
        ("rlp/rollout.py", "async def f():\n    from orbax import checkpoint", "orbax.checkpoint"),
        ("rlp/rollout.py", "if TYPE_CHECKING:\n    import ml_collections", "ml_collections"),
        (
            "rlp/rollout.py",
            "try:\n    import optax.tree\nexcept OSError:\n    x = 1",
            "optax.tree",
        ),
        ("rlp/rollout.py", "importlib.import_module('grain')", "grain"),
        ("rlp/rollout.py", "__import__('transformers')", "transformers"),
        ("rlp/loop.py", "from absl import logging, flags", "absl.flags"),
        ("rlp/loop.py", "from absl.flags import FLAGS", "absl.flags.FLAGS"),
        ("rlp/loop.py", "import absl", "absl"),
        ("rlp/datasets.py", "import grain", "grain"),  # a neighbour by name is not the door
        ("benchmarks/step.py", "from launch import program", "launch.program"),
    ],
)
def test_an_offence_is_found(tmp_path, file, line, imported):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f'"""Made up."""\n{line}\n')
    found = violations(tmp_path)
    assert found
    assert all(f": {imported}, " in offence for offence in found)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("models/layers.py", "import math\nimport jax.numpy as jnp\nfrom . import config"),
        ("models/kernels/gpu.py", "from jax.experimental import pallas\nfrom . import masks"),
        ("configs/text.py", "from ml_collections import ConfigDict\nfrom configs import default"),
        (
            "rlp/loop.py",
            "from absl import logging\nfrom models import layers\nimport ml_collections",
        ),
        ("rlp/checkpoint.py", "from orbax.checkpoint import v1"),
        ("rlp/data/sources.py", "import grain.python"),
        ("launch/train.py", "from absl import app, flags\nfrom launch import program"),
        ("tests/models/layers_test.py", "import torch, transformers\nfrom launch import program"),
    ],
)
def test_what_is_allowed_is_left_alone(tmp_path, file, line):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f'"""Made up."""\n{line}\n')
    assert violations(tmp_path) == []


def test_configs_are_made_without_jax():
    files = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")
    assert "default" in files
    code = f"""
import importlib, sys
for name in {files}:
    getattr(importlib.import_module("configs." + name), "get_config", dict)()
    assert "jax" not in sys.modules and "numpy" not in sys.modules, name
print("made")
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "made\n"), ran.stderr
