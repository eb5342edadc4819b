"""The pages link to files and headings that exist, and name files and modules that exist."""

import re

import pytest

from tests.support.pages import PAGES, anchors_of
from tests.support.paths import ROOT

FOLDERS = "rlp|models|launch|configs|tests|benchmarks|docs"
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())


def links_of(page):
    """Return path and anchor of each link of a page to the repository, including images."""
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    return [link.partition("#")[::2] for link in links if "://" not in link]


@every_page
def test_what_a_page_links_to_exists(page):
    assert [path for path, _ in links_of(page) if not (page.parent / path).exists()] == []


@every_page
def test_the_headings_that_a_page_links_to_exist(page):
    missing = []
    for path, anchor in links_of(page):
        target = (page.parent / path).resolve() if path else page
        if anchor and target.suffix == ".md" and anchor not in anchors_of(target):
            missing.append(f"{path}#{anchor}")
    assert missing == []


@every_page
def test_the_files_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(rf"(?<![\w./-])((?:{FOLDERS})/[\w/]+\.(?:py|md))\b", text))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@every_page
def test_the_modules_that_a_page_runs_exist(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"python -m ((?:launch|benchmarks|tests|rlp)[\w.]*)", text))
    paths = [ROOT.joinpath(*module.split(".")) for module in named]
    exists = lambda path: path.with_suffix(".py").exists() or (path / "__main__.py").exists()
    assert [str(path) for path in paths if not exists(path)] == []


def test_every_page_is_in_the_site():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = {
        (ROOT / "docs" / f"{name}.md").resolve() for name in re.findall(r"^[\w./]+$", index, re.M)
    }
    assert set(PAGES) - listed == {ROOT / "README.md", ROOT / "docs" / "index.md"}
