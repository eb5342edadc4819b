"""Check every import of the project against the rules of docs/design.md.

Imports inside functions and under TYPE_CHECKING count like any other, and so do relative imports
and import_module("…").
"""

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Room:
    """A package of the project, or a module with rules of its own.

    Attributes:
      name: Dotted name. The room of a module is the one with the longest matching name.
      libraries: Libraries that its modules may import, besides the standard library.
      never: Rooms above it that it may not import.
    """

    name: str
    libraries: str = ""
    never: tuple[str, ...] = ()


# A room imports only itself and rooms above it. Tests may import anything; nothing imports tests.
ROOMS = (
    Room("configs.fields", "ml_collections"),
    Room("configs.default", "ml_collections"),  # rlp imports no other module of configs/ than these
    Room("models.kernels", "jax numpy", never=("configs",)),
    Room("models", "jax flax numpy", never=("configs",)),
    Room("rlp.runtime", "jax ml_collections numpy tqdm"),
    Room("rlp.metrics", "tensorboardX"),
    Room("rlp.objectives", "jax flax numpy", never=("models",)),
    Room("rlp.tokenizers", "numpy tokenizers transformers"),
    Room(
        "rlp.answers",
        "latex2sympy2_extended math_verify numpy pebble reasoning_gym sympy",
        never=("models",),
    ),
    Room("rlp.data", "flax fsspec grain jax numpy pyarrow tqdm zstandard"),
    Room("rlp.engine", "flax jax numpy optax"),
    Room("rlp.evaluation", "flax jax numpy"),
    Room("rlp.evaluation.harness", "lm_eval"),
    Room("rlp.serving", "jax starlette uvicorn", never=("models",)),
    Room("rlp.training.checkpoint", "absl.logging jax orbax"),
    Room("rlp.training", "jax numpy"),
    Room("rlp.interop.gguf", "gguf numpy transformers"),
    Room("rlp.interop.huggingface.verify", "jax numpy torch transformers"),
    Room("rlp.interop.huggingface", "huggingface_hub jax numpy safetensors transformers"),
    Room("rlp.interop", "jax ml_collections"),
    Room("rlp.capacity", "jax numpy"),
    Room("rlp.report", "matplotlib numpy", never=("models",)),
    Room("rlp.run", "jax ml_collections numpy"),
    Room("rlp"),
    Room("configs", "ml_collections", never=("models", "rlp")),
    Room("benchmarks", "flax jax numpy torch"),
    Room(
        "launch", "absl.app absl.flags absl.logging jax ml_collections yaml", never=("benchmarks",)
    ),
)
PROJECT = {room.name.split(".")[0] for room in ROOMS} | {"tests"}


def within(module: str, *parents: str) -> bool:
    """Whether `module` is one of `parents` or inside one."""
    return any(module == parent or module.startswith(parent + ".") for parent in parents)


def imports(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the full dotted name of every import in the file of a module."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else []
            source = parent + ([node.module] if node.module else [])
            yield from ((node.lineno, ".".join([*source, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            called = called.id if isinstance(called, ast.Name) else called
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def room_of(module: str) -> Room | None:
    """Return the room of a module; None for a test."""
    rooms = [room for room in ROOMS if within(module, room.name)]
    return max(rooms, key=lambda room: len(room.name), default=None)


def complaint(module: str, imported: str) -> str:
    """Return the rule that `module` breaks by importing `imported`; "" if it breaks none."""
    top = imported.split(".")[0]
    if within(module, "tests") or top in sys.stdlib_module_names:
        return ""
    room = room_of(module)
    if top not in PROJECT:
        allowed = within(imported, *room.libraries.split())
        return "" if allowed else f"{room.name} imports only {room.libraries}"
    if within(imported, *room.never):
        return f"{room.name} never imports {', '.join(room.never)}"
    other = room_of(imported)
    if imported != "rlp" and (other is None or ROOMS.index(other) > ROOMS.index(room)):
        return f"{room.name} is above it"
    return ""


def violations(root: Path) -> list[str]:
    """Return all broken rules in a project, as "file:line: import, rule"."""
    lines = []
    for file, line, module, imported in all_imports(root):
        if rule := complaint(module, imported):
            lines.append(f"{file}:{line}: {imported}, {rule}")
    return lines


def all_imports(root: Path) -> Iterator[tuple[Path, int, str, str]]:
    """Yield (file, line, module, imported) for every import of a project."""
    for path in sorted(p for top in PROJECT for p in (root / top).rglob("*.py")):
        file = path.relative_to(root)
        module = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        for line, imported in imports(path, module):
            yield file, line, module, imported


def test_every_import_of_the_project_is_allowed():
    assert "\n".join(violations(ROOT)) == ""


@pytest.mark.parametrize("room", [room.name for room in ROOMS])
def test_every_room_exists_and_has_a_docstring(room):
    path = ROOT.joinpath(*room.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_no_room_may_import_a_library_that_it_does_not_use():
    used = {
        (room.name, library)
        for _, _, module, imported in all_imports(ROOT)
        if (room := room_of(module))
        for library in room.libraries.split()
        if within(imported, library)
    }
    listed = {(room.name, library) for room in ROOMS for library in room.libraries.split()}
    assert listed - used == set()


def test_every_module_of_rlp_is_in_a_room():
    assert [path.name for path in (ROOT / "rlp").glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize(
    ("file", "line", "imported"),
    [
        ("models/layers.py", "from rlp.engine import step", "rlp.engine.step"),
        ("models/layers.py", "import optax", "optax"),
        ("models/kernels/gpu.py", "from flax import nnx", "flax.nnx"),
        ("models/kernels/gpu.py", "from ..config import Model", "models.config.Model"),
        ("configs/text.py", "import jax", "jax"),
        ("configs/text.py", "from rlp.runtime import errors", "rlp.runtime.errors"),
        ("rlp/__init__.py", "from ..launch import train", "launch.train"),
        ("rlp/data/text.py", "from configs import demo", "configs.demo"),
        ("models/layers.py", "from configs import default", "configs.default"),
        ("rlp/data/text.py", "import launch.train", "launch.train"),
        ("rlp/objectives/equations.py", "from ..engine import step", "rlp.engine.step"),
        (
            "rlp/objectives/equations.py",
            "from models.transformer import init",
            "models.transformer.init",
        ),
        ("rlp/engine/rollout.py", "def f():\n    import torch", "torch"),
        (
            "rlp/engine/rollout.py",
            "async def f():\n    from orbax import checkpoint",
            "orbax.checkpoint",
        ),
        ("rlp/engine/rollout.py", "if TYPE_CHECKING:\n    import ml_collections", "ml_collections"),
        (
            "rlp/training/cost.py",
            "try:\n    import optax.tree\nexcept OSError:\n    x = 1",
            "optax.tree",
        ),
        ("rlp/engine/rollout.py", "importlib.import_module('grain')", "grain"),
        ("rlp/engine/rollout.py", "__import__('transformers')", "transformers"),
        ("rlp/training/checkpoint/store.py", "from absl import logging, flags", "absl.flags"),
        ("rlp/run/loop.py", "from absl.flags import FLAGS", "absl.flags.FLAGS"),
        ("rlp/run/loop.py", "import absl", "absl"),
        ("rlp/datasets.py", "import grain", "grain"),  # a similar name is another room
        ("rlp/data/text.py", "from ..engine import rollout", "rlp.engine.rollout"),
        ("rlp/report/page.py", "import rlp.run.loop", "rlp.run.loop"),
        ("rlp/engine/rollout.py", "from rlp import hosts", "rlp.hosts"),
        ("benchmarks/step.py", "from launch import program", "launch.program"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path, file, line, imported):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f'"""An example."""\n{line}\n')
    lines = violations(tmp_path)
    assert lines
    assert all(f": {imported}, " in text for text in lines)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("models/layers.py", "import math\nimport jax.numpy as jnp\nfrom . import config"),
        ("models/kernels/gpu.py", "from jax.experimental import pallas\nfrom . import masks"),
        ("configs/text.py", "from ml_collections import ConfigDict\nfrom configs import default"),
        (
            "rlp/run/loop.py",
            "from rlp.report import page\nfrom models import layers\nimport ml_collections",
        ),
        ("rlp/training/checkpoint.py", "from orbax.checkpoint import v1"),
        ("rlp/data/sources.py", "import grain.python"),
        ("rlp/run/config_fields.py", "from configs import default"),
        ("launch/train.py", "from absl import app, flags\nfrom launch import program"),
        ("tests/models/layers_test.py", "import torch, transformers\nfrom launch import program"),
    ],
)
def test_an_allowed_import_is_not_reported(tmp_path, file, line):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f'"""An example."""\n{line}\n')
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
