"""Every command on the pages is accepted by its program.

Programs of launch and benchmarks parse their flags and build their config; targets and variables of
make and tests of pytest must exist.
"""

import functools
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.documented_commands import Command, commands_of, files_of
from tests.support.pages import PAGES
from tests.support.parsed_commands import errors
from tests.support.paths import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# Variables with which make may have started these tests.
OF_MAKE = re.compile("|".join(["MAKE", *re.findall(r"^\w+(?= \?=)", MAKEFILE, re.M)]))
PLACEHOLDER_CONFIG = re.compile(r"(--config=)(…|<?config>?)$")


def problems_of(pages: Mapping[str, str], folder: Path) -> list[str]:
    """Return the problems of all commands of some pages, with page and line.

    Args:
      pages: Names and texts of the pages.
      folder: Folder for the files of the pages, in which the programs run.
    """
    problems: list[tuple[str, Command, str]] = []
    programs: list[tuple[str, Command]] = []
    lines: list[tuple[Sequence[str], Path]] = []
    for number, (page, text) in enumerate(pages.items()):
        (home := folder / str(number)).mkdir()
        for name, code in files_of(text).items():
            (home / name).write_text(code, encoding="utf-8")
        for command in commands_of(text):
            problem, started = checked(command.words)
            problems += [(page, command, problem)] if problem else []
            programs += [(page, command) for _ in started]
            lines += [(words, home) for words in started]
    for (page, command), error in zip(programs, errors(lines), strict=True):
        if error and (command.whole or not error.endswith(" is missing")):
            problems.append((page, command, error))
    return [f"{page}:{c.line}: {problem}\n    {' '.join(c.words)}" for page, c, problem in problems]


def checked(words: tuple[str, ...]) -> tuple[str, list[Sequence[str]]]:
    """Return the problem of a command, or "", and the programs of this project that it runs."""
    if words[0] == "make":
        return checked_make(words[1:])
    if words[2] == "pytest":
        return checked_pytest(words[3:]), []
    if words[2] == "pip":
        return "", []
    return "", [[PLACEHOLDER_CONFIG.sub(r"\1configs/default.py", word) for word in words[2:]]]


@functools.cache
def checked_make(words: tuple[str, ...]) -> tuple[str, list[Sequence[str]]]:
    """Return the problem of the arguments of make, or "", and the programs that it would run."""
    for word in words:
        if (name := re.match(r"(\w+)=", word)) and not re.search(
            rf"^{name[1]} \?=", MAKEFILE, re.M
        ):
            return f"the Makefile has no variable {name[1]}", []
    words = tuple(w for w in words if not w.endswith("=…") and not w.startswith("PYTHON="))
    ran = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *words],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        env={key: value for key, value in os.environ.items() if not OF_MAKE.match(key)},
    )  # fmt: skip
    if ran.returncode:
        return ran.stderr.strip(), []
    script = "".join(f"    {line}\n" for line in ran.stdout.splitlines())
    started = [command.words[2:] for command in commands_of(script) if command.words[0] != "make"]
    return "", [words for words in started if words[0].startswith("launch.")]


def checked_pytest(words: tuple[str, ...]) -> str:
    """Return the problem of the arguments of pytest, or ""."""
    paths = [ROOT / word.partition("::")[0] for word in words if word.startswith("tests/")]
    for path in paths:
        if not path.exists():
            return f"{path.relative_to(ROOT)} does not exist"
    if "-k" in words:
        pattern = words[words.index("-k") + 1]
        if not any(pattern in path.read_text(encoding="utf-8") for path in paths):
            return f"no test is called {pattern}"
    return ""


def test_every_command_is_accepted(tmp_path):
    pages = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in PAGES}
    assert problems_of(pages, tmp_path) == []


PAGE = """# A page

Run `python -m launch.train --config=configs/text.py --confg`, then `make demos` (or `make demo`),
and `python -m launch.nothing`, not `python -m launch.sweep`.

    for seed in 1 2; do python -m launch.train --config=configs/text.py --workdir=runs/$seed \\
        --config.seed=$seed --config.rlp.group_sise=4; done
    python -m launch.train --config=configs/txt.py --workdir=run
    python -m launch.train --config=configs/text.py

```console
$ JAX_PLATFORMS=cpu .venv/bin/python -m launch.train --config=mine.py --workdir=run \\
    --config.rlp.positions=everywhere
step 1: python -m launch.train
$ python -m launch.train --config=mine.py --workdir=<a folder> --config.steps=few …
```

```python
# mine.py
from configs.default import get_config
```

    make demo ARGS="--config.sed=3"
    make test WORKER=3
    python -m launch.pods.slurm --nodes=1 -- --config=configs/text.py --workdir=run --config.step=1
    python -m launch.report runs/a --markdown=table.md --figures=think_loss,think_los
    python -m benchmarks.step --document 4 && python -m pytest tests/no_test.py
    0 * * * *  cd somewhere && python -m launch.sweep --config=configs/demo.py --wrkdir=x
"""


def test_each_wrong_command_is_named_with_its_line(tmp_path):
    problems = problems_of({"page.md": PAGE}, tmp_path)
    expected = [
        ("page.md:3: ", "confg"),
        ("page.md:3: ", "demos"),
        ("page.md:4: ", "launch.nothing"),
        ("page.md:6: ", "rlp.group_sise"),
        (
            "page.md:6: ",
            "rlp.group_size",
        ),  # the same in the second turn of the loop: what was meant
        ("page.md:8: ", "configs/txt.py"),
        ("page.md:9: ", "--workdir is missing"),
        ("page.md:12: ", "rlp.positions='everywhere'"),
        ("page.md:15: ", "'few'"),
        ("page.md:23: ", "'sed'"),
        ("page.md:24: ", "no variable WORKER"),
        ("page.md:25: ", "'step'"),
        ("page.md:26: ", "think_los"),
        ("page.md:27: ", "--document"),
        ("page.md:27: ", "tests/no_test.py"),
        ("page.md:28: ", "wrkdir"),
    ]
    named = [problem.partition("\n    ")[0] for problem in problems]
    for start, part in expected:
        assert any(text.startswith(start) and part in text for text in named), (start, part, named)
    assert len(problems) == len(expected)
