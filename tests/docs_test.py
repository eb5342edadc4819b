"""All files and modules that the pages name exist."""

import re

import pytest

from tests.support.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "benchmarks").glob("*.md"))
FOLDERS = "rlp|models|launch|configs|tests|benchmarks|docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_exists(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    files = [link for link in links if "://" not in link]
    assert [link for link in files if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(rf"(?<![\w./-])((?:{FOLDERS})/[\w/]+\.(?:py|md))\b", text))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_modules_that_a_page_runs_exist(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"python -m ((?:launch|benchmarks|tests|rlp)[\w.]*)", text))
    paths = [ROOT.joinpath(*module.split(".")) for module in named]
    exists = lambda path: path.with_suffix(".py").exists() or (path / "__main__.py").exists()
    assert [str(path) for path in paths if not exists(path)] == []
