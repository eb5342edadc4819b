"""Extract the commands of documentation pages as argument lists.

Code blocks (fenced or indented) and inline code are run by bash, in which every command does
nothing but record its arguments, so that line continuations, quotes, variables and loops have the
same effect as for a user. Pages may use two placeholders: `<anything>` is a word of the reader's
choice, and the word `…` stands for more arguments. A Python block whose first line is a comment
with a file name, such as `# my_sweep.py`, is the content of that file.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

STARTS = re.compile(r"(?:^|[\s(])(?:python[\d.]* -m|make) ", re.MULTILINE)
INTERPRETER = re.compile(r'"?[\w./~-]*/bin/python[\d.]*"?(?= -m )')  # does not exist here
# Records every command with its line; `cd` and the like do nothing. Commands of a pipeline run at
# the same time, so each is recorded by a single write.
RECORDER = """
record() { printf '%s\\0' "$LINE" "$@" $'\\36' >&9; }
command_not_found_handle() { LINE=${BASH_LINENO[0]} record "$@"; }
for name in cd source . exit exec mkdir kill; do eval "$name() { :; }"; done
PATH=/nonexistent
"""


class Command(NamedTuple):
    """A command of a page.

    Attributes:
      line: Line in the page, from 1.
      words: "python", "-m" or "make", and the arguments.
      whole: Whether all arguments are shown. If not, required arguments may be missing.
    """

    line: int
    words: tuple[str, ...]
    whole: bool


class Block(NamedTuple):
    """A piece of a page that may be shell code.

    Attributes:
      line: First line in the page, from 1.
      language: Language of a fenced block; "" for an indented block, "`" for inline code.
      text: The code without fence or indentation.
    """

    line: int
    language: str
    text: str


def commands_of(text: str) -> list[Command]:
    """Return the commands `python -m …` and `make …` of a page."""
    return [
        command
        for block in blocks_of(text)
        if block.language in ("", "`", "bash", "console", "shell", "sh", "text")
        for command in _commands_in(block)
    ]


def files_of(text: str) -> dict[str, str]:
    """Return the Python blocks of a page that begin with a file name in a comment, by that name."""
    files = {}
    for block in blocks_of(text):
        if match := re.match(r"# (\w+\.py)\n", block.text):
            files[match[1]] = block.text
    return files


def blocks_of(text: str) -> Iterator[Block]:
    """Yield the fenced and indented code blocks of a page, then its inline code."""
    lines = text.splitlines()
    prose = list(lines)
    number = 0
    while number < len(lines):
        first = number
        if fence := re.match(r"(\s*)(```+|:::+)\s*\{?([\w-]*)", lines[number]):
            number += 1
            while number < len(lines) and lines[number].strip() != fence[2]:
                number += 1
            indent = len(fence[1])
            inside = [line[indent:] for line in lines[first + 1 : number]]
            yield Block(first + 2, fence[3], "\n".join(inside) + "\n")
            number += 1
        elif lines[number].startswith("    ") and not "".join(lines[number - 1 : number]).strip():
            while number < len(lines) and (
                lines[number].startswith("    ") or not lines[number].strip()
            ):
                number += 1
            inside = [line[4:] for line in lines[first:number]]
            yield Block(first + 1, "", "\n".join(inside) + "\n")
        else:
            number += 1
            continue
        prose[first:number] = [""] * (number - first)
    for number, line in enumerate(prose, 1):
        for code in re.findall(r"(?<!`)`([^`]+)`", line):
            yield Block(number, "`", code + "\n")


def _commands_in(block: Block) -> Iterator[Command]:
    """Yield the commands of a block, which may be shell code or contain lines of shell code."""
    script = _as_shell(block)
    if not STARTS.search(script):
        return
    recorded = _recorded(script)
    if recorded is None:  # it is not shell code as a whole, but its lines may be
        lines = script.replace("\\\n", "").splitlines()
        recorded = []
        for number, line in enumerate(lines, 1):
            if STARTS.search(line):
                recorded += [(number, words) for _, words in _recorded(line + "\n") or ()]
    for number, words in recorded:
        yield from _command(block.line + number - 1, words, inline=block.language == "`")


def _as_shell(block: Block) -> str:
    """Convert the lines of a block to shell code: placeholders become words, and the times of cron
    jobs and all lines of a console without a prompt are removed."""
    lines, continued = [], False
    console = block.text.startswith("$ ")
    for line in block.text.splitlines():
        if console and not continued:
            line = line[2:] if line.startswith("$ ") else ""
        continued = line.endswith("\\")
        line = INTERPRETER.sub("python", line)
        line = re.sub(r"^(?:[\d*/,-]+ +){5}", "", line)
        lines.append(re.sub(r"(?<=[\s=:/])<([a-z][\w ]*)>", lambda m: _word(m[1]), line))
    return "\n".join(lines) + "\n"


def _word(placeholder: str) -> str:
    return placeholder.replace(" ", "_")


def _recorded(script: str) -> list[tuple[int, list[str]]] | None:
    """Return line and words of each command of a script; None if bash cannot parse it."""
    with tempfile.TemporaryDirectory() as folder:
        setup, record = Path(folder, "setup"), Path(folder, "record")
        setup.write_text(RECORDER, encoding="utf-8")
        with record.open("wb") as file:
            ran = subprocess.run(
                ["/bin/bash", "-c", f'exec 9>&{file.fileno()}; . "$0"; eval "$1"', setup, script],
                cwd=folder, capture_output=True, text=True, timeout=20, check=False,
                env={"HOME": folder, "LC_ALL": "C.UTF-8"}, pass_fds=[file.fileno()],
            )  # fmt: skip
        if "syntax error" in ran.stderr or "unexpected EOF" in ran.stderr:
            return None
        entries = record.read_text(encoding="utf-8").split("\0\36\0")[:-1]
    return [(int(line), words) for line, *words in (entry.split("\0") for entry in entries)]


def _command(line: int, words: list[str], inline: bool) -> Iterator[Command]:
    """Yield the part of a recorded command that begins with `python -m` or `make`."""
    for start, word in enumerate(words):
        name = word.rpartition("/")[2]
        if name == "make" or (name.startswith("python") and words[start + 1 : start + 2] == ["-m"]):
            shown = [word for word in words[start + 1 :] if word != "…"]
            whole = not inline and len(shown) == len(words) - start - 1
            yield Command(line, (name, *shown), whole)
            return
