"""The benchmark of next-token training: its JSON line, its rows and its comparison."""

import json
import sys

import jax
import numpy as np
import pytest

from benchmarks.next_token import __main__, compare, timing
from benchmarks.next_token.workload import Workload
from rlp.runtime.errors import UserError

TINY = Workload(
    rows=2, length=9, hidden=32, layers=1, heads=4, kv_heads=2, head_dim=8, ffn=48, vocab=16,
    warmup=1, steps=2,
)  # fmt: skip

PEER = """
import json, sys
assert {"--rows=3", "--kv-heads=2", "--dtype=bfloat16"} <= set(sys.argv), sys.argv
print(json.dumps({"impl": "peer", "step_s": 3.0, "cpu_s": 8.0, "peak_mib": 50.0}))
"""
OURS = """
import json
print(json.dumps({"impl": "ours", "step_s": 2.0, "cpu_s": 4.0, "peak_mib": 100.0}))
"""


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation():
    """Set the compiler options of `tiny.jit` for programs that call jax.jit themselves."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_line_has_times_rates_and_memory_and_timed_steps_do_not_compile(dtype):
    line = json.loads(json.dumps(timing.measure(Workload(**(vars(TINY) | {"dtype": dtype})))))
    assert line["compilations"] == 0
    assert min(line[name] for name in compare.TIMES) > 0
    assert line["tokens_per_s"] == pytest.approx(2 * 9 / line["step_s"], rel=1e-3)
    assert line["gflop_per_s"] > 0
    assert (line["rows"], line["length"], line["ffn"], line["dtype"]) == (2, 9, 48, dtype)


def test_rows_are_words_and_differ_between_steps():
    first, again, second = (timing.batch(TINY, number).tokens for number in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert (first.shape, first.min() >= 8, first.max() < 16) == ((2, 9), True, True)


def test_a_comparison_prints_the_ratios(monkeypatch, capsys, tmp_path):
    for name, code in {"ours": OURS, "peer": PEER}.items():
        (tmp_path / f"{name}.py").write_text(code)
    command = lambda name: [sys.executable, str(tmp_path / f"{name}.py")]
    monkeypatch.setattr(Workload, "command", lambda sizes: command("ours"))
    flags = ["--rows=3", "--dtype=bfloat16"]
    assert compare.main(["--rounds=1", "--peer", " ".join(command("peer")), "--", *flags]) == 0
    *_, ratios = capsys.readouterr().out.splitlines()
    assert ratios == "| peer / ours | 1.50× | 2.00× | 0.50× |"


@pytest.mark.parametrize("flag", ["--rows=0", "--length=1", "--kv_heads=3", "--docs=2"])
def test_a_bad_command_line_is_refused(flag):
    with pytest.raises(UserError, match=flag.partition("=")[0]):
        __main__.main([flag])
