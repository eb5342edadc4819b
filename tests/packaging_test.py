"""pyproject.toml has the packages that requirements.txt pins, and packages all data files."""

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


def by_name(lines):
    """Parse requirements and group them by name; a name may have several, with markers."""
    requirements = {}
    for line in lines:
        if (text := line.partition("#")[0].strip()) and not text.startswith("-r"):
            requirement = Requirement(text)
            requirements.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return requirements


@pytest.mark.parametrize(
    ("file", "dependencies"),
    [
        ("requirements.txt", PROJECT["project"]["dependencies"]),
        ("requirements-test.txt", EXTRAS["test"]),
        ("requirements-gguf.txt", EXTRAS["gguf"]),
        ("requirements-gym.txt", EXTRAS["gym"]),
        ("requirements-harness.txt", EXTRAS["harness"]),
        ("requirements-serve.txt", EXTRAS["serve"]),
        ("requirements-docs.txt", EXTRAS["docs"]),
    ],
)
def test_the_pinned_packages_are_the_dependencies(file, dependencies):
    pinned = by_name((ROOT / file).read_text(encoding="utf-8").splitlines())
    required = by_name(dependencies)
    assert pinned.keys() - PINNED_APART == required.keys() - {"rlp-jax"}
    for name, (dependency,) in required.items():
        lowest = (
            min(s.version for s in dependency.specifier if s.operator == ">=")
            if name in pinned
            else ""
        )
        pins = [next(iter(pin.specifier)).version for pin in pinned.get(name, [])]
        assert all(dependency.specifier.contains(pin) for pin in pins), name
        assert not pins or lowest in pins, name


def test_another_version_of_reasoning_gym_is_not_installed():
    """Other scorers of it may pass a model's text to `eval`."""
    (gym,) = map(Requirement, EXTRAS["gym"])
    assert list(gym.specifier.filter(["0.1.24", "0.1.25", "0.1.26", "0.2.0", "1.0"])) == ["0.1.25"]


def test_every_data_file_is_packaged():
    tool = PROJECT["tool"]["setuptools"]
    folders = [pattern.removesuffix("*") for pattern in tool["packages"]["find"]["include"]]
    package_data = tool["package-data"]
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                package = ".".join(path.relative_to(ROOT).parent.parts)
                patterns = package_data.get(package, [])
                assert any(fnmatch.fnmatch(PurePosixPath(path).name, p) for p in patterns), path
