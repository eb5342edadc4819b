"""metrics.jsonl and the event files: complete after a kill, truncated on resume, strict JSON."""

import errno
import io
import json
import math
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import Event, SessionLog

from rlp.metrics import metrics_file, watch
from rlp.metrics.writer import MetricsWriter
from rlp.runtime.errors import UserError
from rlp.runtime.progress import progress
from tests.support.paths import ROOT


def lines(folder: Path) -> list[dict]:
    """Read metrics.jsonl with a strict parser, which rejects NaN and Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def shown_by_tensorboard(folder: Path) -> dict[tuple[str, int], float]:
    """Return what TensorBoard shows: files in order of name; a restart drops later steps."""
    shown: dict[tuple[str, int], float] = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])  # followed by checksum, event, checksum
            event = Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]
            if event.session_log.status == SessionLog.START:
                shown = {key: value for key, value in shown.items() if key[1] < event.step}
            for value in event.summary.value:
                shown[value.tag, event.step] = value.simple_value
    return shown


def write(folder: Path, resume_step: int | None, steps: range, shift: float = 0.0) -> None:
    with MetricsWriter(folder, resume_step) as writer:
        for step in steps:
            writer.write(step, {"loss": step + shift, "evaluation/loss": np.float32(step)})


def test_a_warning_is_logged_once_and_kept_as_long_as_its_step(tmp_path, caplog):
    judge = lambda past, settings: f"loss {past.values('loss')[1][-1]:g}"
    rules = [watch.Rule("high", ("loss",), judge, 1, 3)]
    saved = lambda: json.loads((tmp_path / "warnings.json").read_text())

    def resume(resume_step: int | None, steps: range) -> list[str]:
        caplog.clear()
        with MetricsWriter(tmp_path, resume_step, watch.Watch({}, rules)) as writer:
            for step in steps:
                writer.write(step, {"loss": np.float32(step)})
        return caplog.messages

    expected = [{"name": "high", "step": 4, "message": "loss 4"}]
    assert resume(None, range(1, 4)) == []
    assert saved() == []
    assert resume(3, range(4, 8)) == ["step 4, high: loss 4"]
    assert saved() == expected
    assert resume(5, range(6, 9)) == []
    assert saved() == expected
    assert resume(2, range(0)) == []
    assert saved() == []  # its step has been discarded
    assert resume(2, range(3, 6)) == ["step 4, high: loss 4"]
    assert saved() == expected


@pytest.mark.parametrize("stopped", [4, 5, 6, 9])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, stopped):
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, None, range(1, 11))
    write(two, None, range(1, stopped + 1))
    with open(two / "metrics.jsonl", "a") as file:
        file.write('{"step": 10, "lo')  # the line truncated by the kill
    write(two, 4, range(5, 11))
    assert (one / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()
    assert shown_by_tensorboard(one) == shown_by_tensorboard(two)


def test_what_was_logged_after_the_checkpoint_is_replaced(tmp_path):
    write(tmp_path, None, range(1, 9))
    write(tmp_path, 3, range(4, 6), shift=0.5)
    losses = {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.5, 5: 5.5}
    assert {line["step"]: line["loss"] for line in lines(tmp_path)} == losses
    shown = shown_by_tensorboard(tmp_path)
    assert {step: value for (tag, step), value in shown.items() if tag == "loss"} == losses


def test_a_fresh_start_keeps_nothing(tmp_path):
    write(tmp_path, None, range(5))
    write(tmp_path, None, range(1))
    assert [line["step"] for line in lines(tmp_path)] == [0]
    assert {step for _, step in shown_by_tensorboard(tmp_path)} == {0}


def test_every_written_step_survives_a_kill(tmp_path):
    code = """
import os, signal, sys
from rlp.metrics.writer import MetricsWriter
writer = MetricsWriter(sys.argv[1], None)
for step in range(1, 8):
    writer.write(step, {"loss": step})
os.kill(os.getpid(), signal.SIGKILL)
"""
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, timeout=60)
    assert ran.returncode == -signal.SIGKILL
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 8))
    assert {step for _, step in shown_by_tensorboard(tmp_path)} == set(range(1, 8))


@given(st.lists(st.one_of(st.integers(), st.floats(width=32)), min_size=1, max_size=5))
def test_numbers_come_back_exactly_and_what_is_not_finite_as_null(tmp_path_factory, numbers):
    folder = tmp_path_factory.mktemp("run")
    values = {f"value {i}": number for i, number in enumerate(numbers)}
    with MetricsWriter(folder, None) as writer:
        writer.write(0, values)
    (line,) = lines(folder)
    expected = {name: v if math.isfinite(v) else None for name, v in values.items()}
    assert line == {"step": 0, **expected}
    assert list(line)[0] == "step"
    for name, value in values.items():
        assert type(line[name]) in (type(value), type(None))


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.array, jnp.float32, jnp.bfloat16])
def test_arrays_of_one_number_are_numbers(tmp_path, kind):
    with MetricsWriter(tmp_path, None) as writer:
        writer.write(1, {"loss": kind(2)})
    assert lines(tmp_path) == [{"step": 1, "loss": 2.0}]


def test_steps_only_go_forward(tmp_path):
    with MetricsWriter(tmp_path, None) as writer:
        writer.write(3, {"loss": 1.0})
        for step in (2, 3):
            with pytest.raises(ValueError, match=f"step {step} must be larger than step 3"):
                writer.write(step, {"loss": 2.0})
    assert lines(tmp_path) == [{"step": 3, "loss": 1.0}]


# ---- damage before the step that a run resumes from


def row(step: int, **metrics: float) -> bytes:
    return json.dumps({"step": step, "loss": step / 8} | metrics).encode() + b"\n"


def resume(folder: Path, content: bytes, step: int, watching: watch.Watch | None = None) -> None:
    (folder / "metrics.jsonl").write_bytes(content)
    MetricsWriter(folder, step, watching).close()


def aside(folder: Path) -> bytes:
    path = folder / "metrics.damaged.jsonl"
    return path.read_bytes() if path.exists() else b""


BAD = {
    "cut": b'{"step": 2, "lo',
    "a list": b"[1]",
    "no step": b'{"loss": 1.0}',
    "a string for a step": b'{"step": "many"}',
    "a step that is true": b'{"step": true}',
    "a string for a metric": b'{"step": 2, "loss": "low"}',
    "zeros": bytes(50),
    "nested": b"[" * 100_000,
    "a number beyond a float": b'{"step": 2, "loss": 1' + b"0" * 400 + b"}",
    "a number of too many digits": b'{"step": 2, "loss": 1' + b"0" * 5000 + b"}",
    "not text": b"\xff\xfe\x00{",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_damaged_line_is_moved_aside_and_its_step_is_named(tmp_path, bad, caplog):
    resume(tmp_path, row(1) + bad + b"\n" + row(3) + row(4), 3)
    assert (tmp_path / "metrics.jsonl").read_bytes() == row(1) + row(3)
    assert aside(tmp_path) == bad + b"\n"
    moved, missing = caplog.messages
    assert "moved 1 damaged line to metrics.damaged.jsonl" in moved
    assert "metrics of step 2 are missing" in missing


def test_an_endless_line_takes_no_memory_and_hides_no_other(tmp_path):
    resume(tmp_path, row(1) + bytes(3 * metrics_file.LONGEST + 5) + b"\n" + row(3), 3)
    assert (tmp_path / "metrics.jsonl").read_bytes() == row(1) + row(3)
    assert len(aside(tmp_path)) == metrics_file.LONGEST + 1


def test_a_line_that_was_glued_to_the_remains_of_another_is_kept(tmp_path, caplog):
    resume(tmp_path, row(1) + row(2)[:9] + row(3) + row(4), 4)
    assert (tmp_path / "metrics.jsonl").read_bytes() == row(1) + row(3) + row(4)
    assert aside(tmp_path) == row(2)[:9] + b"\n"
    assert "metrics of step 2 are missing" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        (None, "steps 1 to 6"),
        (b"", "steps 1 to 6"),
        (b"".join(map(row, range(1, 4))), "steps 4 to 6"),
        (b"".join(map(row, range(1, 4))) + row(4)[:8], "steps 4 to 6"),
        (b"".join(map(row, (2, 3, 5, 6))), "steps 1 and 4"),
        (b"".join(map(row, (1, 2, 4, 5, 6, 7, 8))), "step 3"),
    ],
)
def test_a_file_that_is_missing_cut_or_with_gaps_is_told_with_its_steps(
    tmp_path, content, missing, caplog
):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
    with MetricsWriter(tmp_path, 6) as writer:
        writer.write(7, {"loss": 7.0})
    (message,) = caplog.messages
    assert f"metrics of {missing} are missing" in message
    assert lines(tmp_path)[-1] == {"step": 7, "loss": 7.0}
    assert aside(tmp_path) == b""


def test_lines_of_two_processes_are_put_in_order_and_none_is_lost(tmp_path, caplog):
    ours = [row(step) for step in range(1, 9)]
    other = [row(step, loss=9.0) for step in (4, 5)]
    resume(tmp_path, b"".join([*ours[:3], *other, ours[5], *ours[3:5], *ours[6:]]), 7)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(ours[:7])
    assert aside(tmp_path) == b"".join(other)
    assert len(caplog.messages) == 1  # no step is missing


def test_a_file_in_order_stays_as_it_is_and_nothing_is_said(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_bytes(row(1) + row(2) + row(3))
    inode = (tmp_path / "metrics.jsonl").stat().st_ino
    MetricsWriter(tmp_path, 2).close()
    assert (tmp_path / "metrics.jsonl").stat().st_ino == inode
    assert (tmp_path / "metrics.jsonl").read_bytes() == row(1) + row(2)
    assert not (tmp_path / "metrics.damaged.jsonl").exists()
    assert caplog.messages == []


@given(
    st.integers(1, 20),
    st.sets(st.integers(1, 20)),
    st.binary(max_size=9).filter(lambda x: b"\n" not in x),
)
@settings(max_examples=30, deadline=None)
def test_every_line_that_was_not_damaged_is_kept(tmp_path_factory, last, damaged, garbage):
    folder = tmp_path_factory.mktemp("run")
    content = [garbage + b"\x00}\n" if step in damaged else row(step) for step in range(1, 21)]
    resume(folder, b"".join(content), last, Seen({}, ()))
    intact = [step for step in range(1, last + 1) if step not in damaged]
    assert (folder / "metrics.jsonl").read_bytes() == b"".join(map(row, intact))
    seen = json.loads((folder / "warnings.json").read_text())
    assert [warning["step"] for warning in seen] == intact
    assert aside(folder).count(b"\x00}\n") in (0, len(damaged))


class Seen(watch.Watch):
    """A watch that gives a warning for every step."""

    def add(self, row):
        self.given.append(watch.RunWarning("seen", row["step"], ""))
        return []


def test_what_is_not_a_regular_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    for step in (None, 3):
        with pytest.raises(UserError, match=r"metrics\.jsonl is not a regular file; move it away"):
            MetricsWriter(tmp_path, step)


# ---- a full disk


class Full(io.RawIOBase):
    """A file that accepts `room` bytes in total, at most 5 per write."""

    def __init__(self, file, room: int, error: bool) -> None:
        self.file, self.room, self.error = file, room, error

    def write(self, data) -> int:
        written = self.file.write(bytes(data[: min(5, self.room)]))
        self.room -= written
        if not written and self.error:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    def truncate(self, size=None) -> int:
        return self.file.truncate(size)

    def close(self) -> None:
        self.file.close()


@pytest.mark.parametrize("error", [True, False], ids=["an error", "nothing taken"])
@pytest.mark.parametrize("room", [0, 3, 20])
def test_a_line_is_in_the_file_whole_or_not_at_all(tmp_path, room, error):
    with MetricsWriter(tmp_path, None) as writer:
        writer.write(1, {"loss": 1.0})
        before = (tmp_path / "metrics.jsonl").read_bytes()
        writer._file = Full(writer._file, room, error)
        with pytest.raises(UserError, match="cannot be written: No space left on device; free"):
            writer.write(2, {"loss": 2.0})
        assert (tmp_path / "metrics.jsonl").read_bytes() == before
        writer._file.room = 1000
        writer.write(2, {"loss": 2.0})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_a_limit_of_the_system_in_the_middle_of_a_line_leaves_whole_lines(tmp_path):
    code = """
import resource, signal, sys
from rlp.runtime.errors import UserError
from rlp.metrics.writer import MetricsWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with MetricsWriter(sys.argv[1], None) as writer:
    writer.write(1, {"loss": 1.0})
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))
    try:
        writer.write(2, {"loss": 2.0})
    except UserError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
"""
    words = [sys.executable, "-c", code.replace("(40, 40)", "(40, -1)"), str(tmp_path)]
    ran = subprocess.run(words, cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert "cannot be written: File too large" in ran.stdout, ran.stderr
    assert [line["step"] for line in lines(tmp_path)] == [1]


class Screen(io.StringIO):
    """A fake stderr with a given `isatty`."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def watch_progress(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    """Return what the progress bar prints for 1000 steps, resumed at step 400."""
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    with progress(1000, initial=400, label="base") as bar:
        for _ in range(600):
            bar.update(1)
    return screen.getvalue()


def test_progress_away_from_a_terminal_is_a_few_plain_lines(monkeypatch):
    shown = watch_progress(monkeypatch, terminal=False)
    first, last = shown.splitlines()
    assert "\r" not in shown
    assert first.startswith("base:  40%")
    assert "400/1000" in first
    assert "1000/1000" in last
    assert "step/s" in last


def test_progress_on_a_terminal_redraws_one_line(monkeypatch):
    shown = watch_progress(monkeypatch, terminal=True)
    assert shown.count("\n") == 1
    assert "\r" in shown
    assert "1000/1000" in shown


def test_names_from_others_are_escaped_in_tags_and_kept_in_lines(tmp_path):
    names = ["accuracy/a<script>.jsonl", "accuracy/a\x1b[2J", "accuracy/\udcff", "accuracy/\u202ex"]
    with MetricsWriter(tmp_path, None) as writer:
        writer.write(1, dict.fromkeys(names, 1.0))
    (line,) = lines(tmp_path)
    assert list(line) == ["step", *names]
    tags = [tag for tag, _ in shown_by_tensorboard(tmp_path)]
    assert tags == [
        *("accuracy/a\\x3cscript\\x3e.jsonl", "accuracy/a\\x1b\\x5b2J"),
        *("accuracy/\\udcff", "accuracy/\\u202ex"),
    ]
