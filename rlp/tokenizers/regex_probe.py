"""Check in a child process whether the regular expressions of a tokenizer terminate.

The engine of the `tokenizers` library backtracks. It panics after ten million steps at one position
of a text, and may take almost that many at every position. Python cannot interrupt it.
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

SECONDS = 20.0  # limit for all texts; a common tokenizer takes a few hundredths of a second
LENGTH = 4000  # characters of a text
_START = 120.0  # limit in seconds for loading the tokenizer
MEMORY = 4 * limited_process.GIB
_REGEX = re.compile(r'"Regex"\s{0,9}:\s{0,9}("(?:[^"\\]|\\.)*")')
_CODE = (
    "import sys; sys.path[:0] = sys.argv[2:]; "
    "from rlp.tokenizers.regex_probe import try_out; try_out()"
)

# The expressions of GPT-4, Llama 3 and OLMo 2, and of Qwen 2 and later. Tokenizers that have no
# other expressions are not checked.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
COMMON = frozenset(f"{_WORDS}|{digits}{_REST}" for digits in (r"\p{N}{1,3}", r"\p{N}"))


def check(folder: str) -> None:
    """Run the expressions of a tokenizer on texts of one repeated character, unless all are common.

    Raises:
      UserError: If a text takes too long or makes the library fail.
    """
    file = Path(folder) / TOKENIZER
    if not file.is_file() or _patterns(file) <= COMMON:
        return
    status, tried = _try_in_process(file)
    timed_out = status == -signal.SIGALRM
    if status == 0 or not (tried or timed_out):  # an unreadable file is reported when it is loaded
        return
    failure = f"takes longer than {SECONDS:g} seconds" if timed_out else "fails"
    failure += f" on {tried} {LENGTH:,} times" if tried else " to compile"
    raise UserError(
        f"tokenizer {folder}: one of its regular expressions {failure}; correct the "
        f'"Regex" in its {TOKENIZER}, or use another tokenizer'
    )


def _patterns(file: Path) -> set[str]:
    """Return the regular expressions of a tokenizer.

    They are found by a search of the text, because parsing the JSON of a large vocabulary is slow.
    A damaged file is reported when it is loaded.
    """
    patterns = set()
    for text in _REGEX.findall(file.read_text(encoding="utf-8", errors="replace")):
        with contextlib.suppress(ValueError):
            patterns.add(parse(text))
    return patterns


def _try_in_process(file: Path) -> tuple[int, str]:
    """Return the exit status of a process that tries a tokenizer, and the last character tried."""
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
    """Return the characters to try: one of every kind, and all characters in the patterns."""
    in_patterns = {char for pattern in patterns for char in pattern}
    return sorted({*"a1 \n.\u4e00", *in_patterns})


def try_out() -> None:
    """Run the child process, which prints each character before it tries it."""
    limited_process.ignore_signals()
    signal.setitimer(signal.ITIMER_REAL, _START)
    from tokenizers import Tokenizer

    file = Path(sys.argv[1])
    tokenizer = Tokenizer.from_file(str(file))
    limited_process.limit_memory(MEMORY)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    for char in _characters(_patterns(file)):
        print(repr(char), flush=True)
        for text in (char * LENGTH, char * LENGTH + "\x01"):
            with contextlib.suppress(Exception):  # no token for this character; not a panic
                tokenizer.encode(text, add_special_tokens=False)
