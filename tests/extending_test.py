"""Every section of docs/extending.md runs as printed and has the stated number of lines."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BEFORE, *REST = re.split(r"^## ", PAGE, flags=re.MULTILINE)
SECTIONS = {text.partition("\n")[0]: text for text in REST}


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def python_files(text: str) -> dict[str, str]:
    """Return the Python blocks of a text by the file names in their first lines."""
    files = {}
    for block in blocks("python", text):
        first, _, code = block.partition("\n")
        (name,) = re.findall(r"^# (\w+\.py)$", first)
        assert name not in files, name
        files[name] = code
    return files


def write_files(text: str, folder: Path) -> None:
    for name, code in (python_files(BEFORE) | python_files(text)).items():
        (folder / name).write_text(code, encoding="utf-8")


@pytest.mark.parametrize("heading", SECTIONS)
def test_a_section_has_the_number_of_lines_in_its_heading(heading):
    code = "".join(python_files(SECTIONS[heading]).values())
    lines = sum(bool(line.strip()) for line in code.splitlines())
    assert heading.endswith(f": {lines} lines")


@pytest.mark.parametrize("heading", SECTIONS)
def test_a_section_is_in_the_table(heading):
    anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
    assert f"](#{anchor})" in BEFORE


@pytest.mark.parametrize("heading", SECTIONS)
def test_a_section_runs(heading, tmp_path, programs):
    """Its commands exit with status 0 and print the lines below them ("…" stands for any lines)."""
    write_files(SECTIONS[heading], tmp_path)
    consoles = blocks("console", SECTIONS[heading])
    assert consoles
    for console in consoles:
        for part in re.split(r"^\$ ", console.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
            command, *printed = part.strip().splitlines()
            python, module, *words = shlex.split(command)
            assert (python, module) == ("python", "-m")
            ran = programs.run(words, tmp_path)
            output = ran.out + ran.err
            assert ran.status == 0, output
            for line in printed:
                assert line == "…" or line.strip() in output, output
