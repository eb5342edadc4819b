"""pyproject.toml says what requirements.txt pins, and packs every file that the code reads."""

import fnmatch
import tomllib
from pathlib import PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
PINNED_APART = {"antlr4-python3-runtime"}  # an extra of math-verify


def named(lines):
    """Requirements by name; markers may give several of a name."""
    found = {}
    for line in lines:
        if (text := line.partition("#")[0].strip()) and not text.startswith("-r"):
            requirement = Requirement(text)
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


@pytest.mark.parametrize(
    ("file", "dependencies"),
    [
        ("requirements.txt", PROJECT["project"]["dependencies"]),
        ("requirements-test.txt", EXTRAS["test"]),
        ("requirements-gguf.txt", EXTRAS["gguf"]),
        ("requirements-docs.txt", EXTRAS["docs"]),
    ],
)
def test_what_is_pinned_is_what_the_package_asks_for(file, dependencies):
    pinned = named((ROOT / file).read_text(encoding="utf-8").splitlines())
    asked = named(dependencies)
    assert pinned.keys() - PINNED_APART == asked.keys() - {"rlp-jax"}
    for name, (wanted,) in asked.items():
        lowest = (
            min(s.version for s in wanted.specifier if s.operator == ">=") if name in pinned else ""
        )
        pins = [next(iter(pin.specifier)).version for pin in pinned.get(name, [])]
        assert all(wanted.specifier.contains(pin) for pin in pins), name
        assert not pins or lowest in pins, name


def test_every_file_that_is_not_code_is_packed():
    tool = PROJECT["tool"]["setuptools"]
    folders = [pattern.removesuffix("*") for pattern in tool["packages"]["find"]["include"]]
    packed = tool["package-data"]
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                package = ".".join(path.relative_to(ROOT).parent.parts)
                patterns = packed.get(package, [])
                assert any(fnmatch.fnmatch(PurePosixPath(path).name, p) for p in patterns), path
