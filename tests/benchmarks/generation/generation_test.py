"""The benchmark of generation: its JSON line, its rows and its comparison."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

from benchmarks.generation import __main__, compare, timing
from benchmarks.generation.workload import Workload
from rlp.runtime.errors import UserError

TINY = Workload(
    rows=4, group=2, prompt=5, length=6, hidden=32, layers=1, heads=4, kv_heads=2, head_dim=8,
    ffn=48, vocab=16, warmup=1, steps=2,
)  # fmt: skip
ONE_ROW = {"rows": 1, "group": 1}

PEER = """
import json, sys
assert {"--rows=4", "--kv-heads=2", "--dtype=bfloat16", "--prompt=32"} <= set(sys.argv), sys.argv
assert not any(word.startswith("--engine") for word in sys.argv), sys.argv
print(json.dumps({"impl": "peer", "prefill_s": 1.0, "decode_s": 5.0, "step_s": 6.0, "cpu_s": 8.0,
                  "tokens_per_s": 100.0, "peak_mib": 50.0}))
"""
OURS = """
import json
print(json.dumps({"impl": "ours", "prefill_s": 1.0, "decode_s": 2.0, "step_s": 3.0, "cpu_s": 4.0,
                  "tokens_per_s": 200.0, "peak_mib": 100.0}))
"""


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation():
    """Set the compiler options of `tiny.jit` for programs that call jax.jit themselves."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize(
    "changes",
    [{}, {"dtype": "bfloat16"}, {"engine": "stream", **ONE_ROW}, {"engine": "requests"}],
    ids=str,
)
def test_all_rows_have_their_full_length_and_timed_steps_do_not_compile(changes):
    sizes = dataclasses.replace(TINY, **changes)
    line = json.loads(json.dumps(timing.measure(sizes)))
    assert line["compilations"] == 0
    assert line["tokens"] == sizes.rows * sizes.length
    assert line["tokens_per_s"] == pytest.approx(line["tokens"] / line["step_s"], rel=1e-3)
    assert line["prefill_s"] + line["decode_s"] == pytest.approx(line["step_s"], abs=1e-5)
    assert min(line[name] for name in (*compare.TIMES, "gflop_per_s")) > 0
    assert {name: line[name] for name in changes} == changes


def test_all_engines_generate_the_same_greedy_text():
    sizes = dataclasses.replace(TINY, temperature=0.0, **ONE_ROW)
    model = timing.make_model(sizes)
    rollout, stream = timing.Rollout(sizes, model), timing.Stream(sizes, model)
    requests = timing.Requests(sizes, model)
    for number in range(3):
        expected = stream.decode(stream.prefill(number))
        for engine in (rollout, requests):
            assert np.array_equal(engine.decode(engine.prefill(number)), expected)
        assert expected.shape == (1, sizes.length)


def test_a_response_is_sampled_from_words_that_do_not_end_it():
    assert set(timing.words(TINY).not_in_thoughts) == {
        timing.PAD, timing.EOS, timing.BOS, timing.OPENING,
    }  # fmt: skip


def test_prompts_differ_between_steps():
    first, again, second = (timing.prompt_tokens(TINY, number) for number in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert (first.shape, first[:, :-1].min() >= 8, first.max() < 16) == ((2, 5), True, True)


def test_a_comparison_prints_the_ratios(monkeypatch, capsys, tmp_path):
    for name, code in {"ours": OURS, "peer": PEER}.items():
        (tmp_path / f"{name}.py").write_text(code)
    command = lambda name: [sys.executable, str(tmp_path / f"{name}.py")]
    monkeypatch.setattr(Workload, "command", lambda sizes: command("ours"))
    flags = ["--rows=4", "--dtype=bfloat16"]
    assert compare.main(["--rounds=1", "--peer", " ".join(command("peer")), "--", *flags]) == 0
    *_, ratios = capsys.readouterr().out.splitlines()
    assert ratios == "| peer / ours | 1.00× | 2.50× | 2.00× | 2.00× | 0.50× | 0.50× |"


@pytest.mark.parametrize(
    "flag", ["--rows=0", "--prompt=1", "--length=1", "--group=3", "--engine=stream", "--docs=2"]
)
def test_a_bad_command_line_is_refused(flag):
    with pytest.raises(UserError, match=flag.partition("=")[0]):
        __main__.main([flag])
