"""Whether the regular expressions of a tokenizer end: tried in a process that can be killed.

The library's engine backtracks. It gives up on a text after ten million steps at one place of it,
by a panic, and may take that many at every place. What it does cannot be interrupted from Python.
"""

import contextlib
import re
import signal
import subprocess
import sys
from pathlib import Path

from rlp.runtime import limited_process
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import parse
from rlp.tokenizers.files import TOKENIZER

SECONDS = 20.0  # for all texts; a common tokenizer takes a few hundredths
LENGTH = 4000  # characters of a text
_START = 120.0  # seconds until it is read
MEMORY = 4 * limited_process.GIB
_REGEX = re.compile(r'"Regex"\s{0,9}:\s{0,9}("(?:[^"\\]|\\.)*")')
_CODE = (
    "import sys; sys.path[:0] = sys.argv[2:]; "
    "from rlp.tokenizers.regex_probe import try_out; try_out()"
)

# Of GPT-4, Llama 3 and OLMo 2, and of Qwen 2 and later: nothing is tried where these are all.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
COMMON = frozenset(f"{_WORDS}|{digits}{_REST}" for digits in (r"\p{N}{1,3}", r"\p{N}"))


def check(folder: str) -> None:
    """Tries the expressions of a tokenizer on texts of one character, repeated, unless they are
    common ones.

    Raises:
      UserError: a text takes too long, or makes the library fail.
    """
    file = Path(folder) / TOKENIZER
    if not file.is_file() or _patterns(file) <= COMMON:
        return
    status, tried = _try_in_process(file)
    late = status == -signal.SIGALRM
    if status == 0 or not (tried or late):  # what cannot be read says why where it is read
        return
    what = f"takes longer than {SECONDS:g} seconds on" if late else "fails on"
    on = f"{tried} {LENGTH:,} times" if tried else "no text: it cannot even be compiled"
    raise UserError(
        f"tokenizer {folder}: one of its regular expressions {what} {on}; correct the "
        f'"Regex" in its {TOKENIZER}, or take another tokenizer'
    )


def _patterns(file: Path) -> set[str]:
    """The regular expressions of a tokenizer. The file is searched, since reading the JSON of a
    large vocabulary takes long; one that is damaged is refused where it is read."""
    found = set()
    for text in _REGEX.findall(file.read_text(encoding="utf-8", errors="replace")):
        with contextlib.suppress(ValueError):
            found.add(parse(text))
    return found


def _try_in_process(file: Path) -> tuple[int, str]:
    """How a process ends that tries a tokenizer, and the last character that it began with."""
    command = [sys.executable, "-c", _CODE, str(file), str(Path(__file__).resolve().parents[2])]
    with limited_process.signals_blocked():
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    try:
        tried, _ = process.communicate()
    finally:
        process.kill()
    return process.returncode, tried.splitlines()[-1] if tried else ""


def _characters(patterns: set[str]) -> list[str]:
    """Those that are repeated to a text: one of every kind, and all that the patterns name."""
    named = {char for pattern in patterns for char in pattern}
    return sorted({*"a1 \n.\u4e00", *named})


def try_out() -> None:
    """What the process does; it prints each text before it tries it."""
    limited_process.ignore_signals()
    signal.setitimer(signal.ITIMER_REAL, _START)
    from tokenizers import Tokenizer

    file = Path(sys.argv[1])
    made = Tokenizer.from_file(str(file))
    limited_process.limit_memory(MEMORY)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    for char in _characters(_patterns(file)):
        print(repr(char), flush=True)
        for text in (char * LENGTH, char * LENGTH + "\x01"):
            with contextlib.suppress(Exception):  # no token for this character; a panic is another
                made.encode(text, add_special_tokens=False)
