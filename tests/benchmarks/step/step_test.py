"""The timing program: its line, its comparison with the naive layout, and what it refuses."""

import dataclasses
import json
import os

import jax
import numpy as np
import pytest

from benchmarks import command
from benchmarks.step import __main__, check, naive, timing
from benchmarks.step.product import batches, make_case
from benchmarks.step.workload import Workload

TINY = Workload(
    docs=2, positions=2, group=3, prefix=9, thought=5, horizon=3,
    hidden=32, layers=1, heads=4, kv_heads=2, head_dim=8, ffn=48, vocab=16,
    warmup=1, steps=2, temperature=0.9, max_branches_in_flight=6, micro_batch=2,
)  # fmt: skip

# What other implementations print, but for their own counts of FLOPs.
KEYS = {
    "impl", "rollout_s", "score_s", "update_s", "step_s", "cpu_s", "step_min_s",
    "thought_tokens_per_s", "rollout_tokens_per_s", "steps", "rows",
    "docs", "positions", "group", "prefix", "thought", "horizon", "hidden", "layers", "heads",
    "kv_heads", "head_dim", "ffn", "vocab", "micro", "threads", "device", "dtype", "params",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation():
    """What `tiny.jit` asks of the compiler, for programs that call jax.jit themselves."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def refusal(monkeypatch, capsys, main, arguments: list[str]) -> str:
    """What a program says when it refuses a command line."""
    monkeypatch.setattr("sys.argv", ["program", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.run(main)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_the_line_has_what_others_print_and_nothing_is_compiled_in_timed_steps():
    line = json.loads(json.dumps(timing.measure(TINY)))
    assert set(line) >= KEYS
    assert line["compilations"] == 0
    assert (line["rows"], line["steps"], line["ffn"]) == (12, 2, 48)
    stages = [line[name] for name in ("rollout_s", "score_s", "update_s")]
    assert min(stages) > 0
    assert line["gflop"] > 0
    assert 0 <= line["closed_fraction"] <= 1


def test_a_compilation_is_counted():
    with timing.compilations() as seen:
        jax.jit(lambda x: x + 1)(np.float32(0))
    assert len(seen) >= 1


@pytest.fixture(scope="module")
def both():
    """The product's figures, the inputs of the naive ones, and these."""
    case, batch = make_case(TINY), batches(TINY, 1)[0]
    params, baseline = check.sharpened(case, 0), check.sharpened(case, 1)
    found, thoughts = check.product(case, params, baseline, batch, jax.random.key(0))
    inputs = (params, baseline, TINY.documents(TINY.docs), TINY.forks(), thoughts)
    return found, case, inputs, naive.figures(case, *inputs)


def test_the_product_equals_the_naive_layout(both):
    found, _, _, expected = both
    assert check.complaints(check.differences(found, expected)) == []


def test_thoughts_that_closed_and_that_did_not_are_compared(both):
    _, case, (*_, thoughts), _ = both
    ends = [(actions[-1],) for document in thoughts for group in document for actions in group]
    assert 0 < ends.count(case.vocabulary.think_close) < len(ends)


def test_another_temperature_is_found(both):
    found, case, inputs, _ = both
    settings = dataclasses.replace(case.settings, temperature=TINY.temperature + 0.05)
    wrong = naive.figures(dataclasses.replace(case, settings=settings), *inputs)
    differences = check.differences(found, wrong)
    assert differences["evidence_error"] <= check.LIMITS["evidence_error"]
    names = {complaint.split("=")[0] for complaint in check.complaints(differences)}
    assert names == {"logprob_error", "gradient_error"}


def test_another_fork_is_found(both):
    found, case, (params, baseline, documents, forks, thoughts), _ = both
    wrong = naive.figures(case, params, baseline, documents, [forks[0] - 1, forks[1]], thoughts)
    assert len(check.complaints(check.differences(found, wrong))) == len(check.LIMITS)


@pytest.mark.parametrize("change", [1.001, np.nan])
@pytest.mark.parametrize("field", ["reasoned", "baseline", "logprobs", "gradient"])
def test_a_figure_that_is_off_is_found(both, field, change):
    found, _, _, expected = both
    wrong = jax.tree.map(lambda x: np.asarray(x) * change, getattr(found, field))
    differences = check.differences(dataclasses.replace(found, **{field: wrong}), expected)
    assert len(check.complaints(differences)) == 1


def test_a_check_that_fails_ends_with_one(monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    wrong = dict.fromkeys(check.LIMITS, 0.0) | {"gradient_error": 0.5}
    monkeypatch.setattr(check, "differences_of", lambda sizes: wrong)
    assert __main__.main(["--check"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == wrong
    assert said.err == "gradient_error=0.5 is above 0.0001\n"
    monkeypatch.setattr(check, "differences_of", lambda sizes: dict.fromkeys(check.LIMITS, 0.0))
    assert __main__.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--heads=3", "--heads=3 is no multiple of --kv_heads=2"),
        ("--head_dim=7", "--head_dim=7 is odd"),
        ("--positions=4 --prefix=3", "--positions=4 do not fit into --prefix=3"),
        ("--threads=100000", "--threads=100000, but this process may use"),
        ("--threads=0", "--threads=0; it must be at least 1"),
        ("--max_branches_in_flight=15", "is less than a --group=16"),
        ("--group=1", "--group=1; it must be at least 2"),
        ("--ema=2", "--ema=2.0; it must be at least 0 and at most 1"),
        ("--lr=nan", "--lr=nan"),
        ("--temperature=0", "--temperature=0.0"),
        ("--docs=many", "argument --docs"),
        ("--documents=3", "unrecognized arguments: --documents=3"),
        ("--pos_mode=first", "argument --pos_mode"),
        ("--check --dtype=bfloat16", "--check compares float32"),
    ],
)
def test_a_bad_command_line_is_refused_with_one_line(monkeypatch, capsys, flags, said):
    assert said in refusal(monkeypatch, capsys, __main__.main, flags.split())


def test_forks_stand_where_others_put_them():
    spread = dataclasses.replace(TINY, positions=3, prefix=16)
    assert spread.forks() == [5, 10, 16]
    assert dataclasses.replace(spread, pos_mode="last").forks() == [14, 15, 16]


def test_documents_are_drawn_as_others_draw_them():
    documents = Workload(seed=3, prefix=5, horizon=2, vocab=100).documents(2)
    assert documents == [[38, 83, 77, 24, 55, 85, 68], [88, 82, 16, 85, 9, 68, 41]]
