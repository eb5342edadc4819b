"""A tokenizer whose regular expressions break down or never end is refused by its folder."""

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
    """A tokenizer of bytes that splits by a regular expression first."""
    files = ByteTokenizer().files()
    made = json.loads(files["tokenizer.json"])
    if regex is not None:
        first = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated"}
        both = [first | {"invert": False}, made["pre_tokenizer"]]
        made["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": both}
    made["normalizer"] = normalizer
    (folder / "tokenizer.json").write_text(json.dumps(made))
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
    how = {"regex": EXPONENTIAL} if where == "split" else {"normalizer": replace}
    with pytest.raises(UserError, match=rf"{tmp_path}: .* fails on 'x' 4,000 times; correct"):
        regex_probe.check(make(tmp_path, **how))


def test_an_expression_that_does_not_end_is_refused(tmp_path, monkeypatch):
    slow = "import signal; print(repr('a'), flush=True); signal.setitimer(0, 0.1); signal.pause()"
    monkeypatch.setattr(regex_probe, "_CODE", slow)
    with pytest.raises(UserError, match=r"takes longer than 20 seconds on 'a' 4,000 times"):
        regex_probe.check(make(tmp_path, SPLITS_WORDS))


def test_what_cannot_be_read_is_left_to_the_reader(tmp_path):
    regex_probe.check(make(tmp_path, "((("))
    (tmp_path / "tokenizer.json").write_bytes(b'\xff{"Regex": "\\q"')
    regex_probe.check(str(tmp_path))


def test_a_panic_in_a_text_is_a_line_with_the_folder(tmp_path, monkeypatch):
    """Of one text, and of several, which the library encodes in threads."""
    monkeypatch.setattr(regex_probe, "check", lambda folder: None)
    made = FolderTokenizer(make(tmp_path, EXPONENTIAL))
    assert made.decode(made.encode("plain")) == "plain"
    texts = ["a", "x" * 100, "b"]
    for call in (lambda: made.encode(texts[1]), lambda: made.encode_all(texts)):
        with pytest.raises(UserError, match=rf"{tmp_path}: the library breaks down .*retry-limit"):
            call()
    with pytest.raises(UserError, match="breaks down"):
        made.encode_spans(texts)


def test_signals_end_a_trial(tmp_path):
    """The process that tries is gone, too."""
    folder = make(tmp_path, SPLITS_WORDS)
    code = (
        "import subprocess, sys; from rlp.tokenizers import regex_probe\n"
        "class Told(subprocess.Popen):\n"
        "    def communicate(self): print(self.pid, flush=True); return super().communicate()\n"
        "regex_probe._CODE = 'import time; time.sleep(600)'\n"
        "subprocess.Popen = Told\n"
        "regex_probe.check(sys.argv[1])"
    )
    command = [sys.executable, "-c", code, folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    child = int(process.stdout.readline())
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.wait(20)
    process.stdout.close()
    assert not _words(child)


def _words(process):
    """The command line of a process; empty for one that has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
