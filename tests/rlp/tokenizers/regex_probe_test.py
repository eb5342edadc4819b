"""A tokenizer whose regular expressions crash or never end is refused, and its folder is named."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlp.runtime.errors import UserError
from rlp.tokenizers import regex_probe
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.folder_tokenizer import FolderTokenizer


def make(folder, regex=None, normalizer=None):
    """Write a byte tokenizer that first splits texts by a regular expression."""
    files = ByteTokenizer().files()
    content = json.loads(files["tokenizer.json"])
    if regex is not None:
        first = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated"}
        both = [first | {"invert": False}, content["pre_tokenizer"]]
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": both}
    content["normalizer"] = normalizer
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(files["tokenizer_config.json"])
    return str(folder)


EXPONENTIAL = r"(x+x+)+y"
SPLITS_WORDS = r" ?\p{L}+| ?\p{N}+|[^\p{L}\p{N}]"


def test_expressions_that_end_pass_and_common_ones_are_not_tried(tmp_path, monkeypatch):
    regex_probe.check(make(tmp_path, SPLITS_WORDS))
    regex_probe.check(make(tmp_path))
    monkeypatch.setattr(regex_probe, "_try_in_process", None)
    for common in regex_probe.COMMON:
        regex_probe.check(make(tmp_path, common))
    regex_probe.check(make(tmp_path))
    regex_probe.check(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("where", ["split", "normalizer"])
def test_an_expression_that_makes_the_library_panic_is_refused(tmp_path, where):
    replace = {"type": "Replace", "pattern": {"Regex": EXPONENTIAL}, "content": "b"}
    options = {"regex": EXPONENTIAL} if where == "split" else {"normalizer": replace}
    with pytest.raises(UserError, match=rf"{tmp_path}: .* fails on 'x' 4,000 times; correct"):
        regex_probe.check(make(tmp_path, **options))


def test_an_expression_that_does_not_end_is_refused(tmp_path, monkeypatch):
    slow = "import signal; print(repr('a'), flush=True); signal.setitimer(0, 0.1); signal.pause()"
    monkeypatch.setattr(regex_probe, "_CODE", slow)
    with pytest.raises(UserError, match=r"takes longer than 20 seconds on 'a' 4,000 times"):
        regex_probe.check(make(tmp_path, SPLITS_WORDS))


def test_a_file_that_cannot_be_read_passes(tmp_path):
    """It is reported when it is loaded."""
    regex_probe.check(make(tmp_path, "((("))
    (tmp_path / "tokenizer.json").write_bytes(b'\xff{"Regex": "\\q"')
    regex_probe.check(str(tmp_path))


def test_a_panic_in_a_text_is_a_line_with_the_folder(tmp_path, monkeypatch):
    """Both for one text and for several, which the library encodes in threads."""
    monkeypatch.setattr(regex_probe, "check", lambda folder: None)
    tokenizer = FolderTokenizer(make(tmp_path, EXPONENTIAL))
    assert tokenizer.decode(tokenizer.encode("plain")) == "plain"
    texts = ["a", "x" * 100, "b"]
    for call in (lambda: tokenizer.encode(texts[1]), lambda: tokenizer.encode_all(texts)):
        with pytest.raises(UserError, match=rf"{tmp_path}: the tokenizers .* crashes .*retry-limi"):
            call()
    with pytest.raises(UserError, match="crashes on it"):
        tokenizer.encode_spans(texts)


def test_signals_end_a_check(tmp_path):
    """The child process ends, too."""
    folder = make(tmp_path, SPLITS_WORDS)
    code = (
        "import subprocess, sys; from rlp.tokenizers import regex_probe\n"
        "class PrintsPid(subprocess.Popen):\n"
        "    def communicate(self): print(self.pid, flush=True); return super().communicate()\n"
        "regex_probe._CODE = 'import time; time.sleep(600)'\n"
        "subprocess.Popen = PrintsPid\n"
        "regex_probe.check(sys.argv[1])"
    )
    command = [sys.executable, "-c", code, folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    child = int(process.stdout.readline())
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.wait(20)
    process.stdout.close()
    assert not _command_line(child)


def _command_line(process):
    """Return the command line of a process; b"" if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
