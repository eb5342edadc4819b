"""The timing program: its JSON line, the check against the naive layout, and bad command lines."""

import dataclasses
import json
import os
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import command
from benchmarks.measure import compilations
from benchmarks.step import __main__, check, memory, naive, timing
from benchmarks.step.product import batches, make_case
from benchmarks.step.workload import Workload

TINY = Workload(
    docs=2, positions=2, group=3, prefix=9, thought=5, horizon=3,
    hidden=32, layers=1, heads=4, kv_heads=2, head_dim=8, ffn=48, vocab=16,
    warmup=1, steps=2, temperature=0.9, max_branches_in_flight=6, micro_batch=2,
)  # fmt: skip

# What other implementations print too, except for their counts of FLOPs.
KEYS = {
    "impl", "rollout_s", "score_s", "update_s", "step_s", "cpu_s", "step_min_s",
    "thought_tokens_per_s", "rollout_tokens_per_s", "steps", "rows",
    "docs", "positions", "group", "prefix", "thought", "horizon", "hidden", "layers", "heads",
    "kv_heads", "head_dim", "ffn", "vocab", "micro", "threads", "device", "dtype", "params",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation():
    """Set the compiler options of `tiny.jit` for programs that call jax.jit themselves."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def refusal(monkeypatch, capsys, main, arguments: list[str]) -> str:
    """Return the error line of a program that refuses a command line."""
    monkeypatch.setattr("sys.argv", ["program", *arguments])
    with pytest.raises(SystemExit) as exit_:
        command.run(main)
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def complaints(differences: dict[str, float], sizes: Workload = TINY) -> list[str]:
    """Return the names of the differences that are too large."""
    return [line.split("=")[0] for line in check.complaints(differences, check.limits(sizes))]


def test_the_line_has_all_keys_and_timed_steps_do_not_compile():
    line = json.loads(json.dumps(timing.measure(TINY)))
    assert set(line) >= KEYS
    assert line["compilations"] == 0
    assert (line["rows"], line["steps"], line["ffn"]) == (12, 2, 48)
    stages = [line[name] for name in ("rollout_s", "score_s", "update_s")]
    assert min(stages) > 0
    assert line["gflop"] > 0
    assert 0 <= line["closed_fraction"] <= 1


def test_the_memory_of_every_stage_is_tabulated(monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    sizes = dataclasses.replace(TINY, max_branches_in_flight=0, micro_batch=0)
    compiled = memory.compiled_step(sizes)
    held = {arrays.name: arrays.bytes for arrays in compiled.held}
    state = held["parameters"] + held["optimizer"]
    for stage in compiled.stages:  # the state is in memory during every stage, with phi
        assert stage.arguments + stage.others >= state + held["baseline"]
    monkeypatch.setattr(memory, "compiled_step", lambda sizes: compiled)
    assert __main__.main(["--memory"]) == 0
    printed = capsys.readouterr().out
    assert all(stage.name in printed for stage in compiled.stages)


def test_a_compilation_is_counted():
    with compilations() as seconds:
        jax.jit(lambda x: x + 1)(np.float32(0))
    assert len(seconds) >= 1


@pytest.fixture(scope="module")
def both():
    """Return this project's results, the case and inputs of the naive step, and its results."""
    case, batch = make_case(TINY), batches(TINY, 1)[0]
    params, baseline = check.sharpened(case, 0), check.sharpened(case, 1)
    results, thoughts = check.product(case, params, baseline, batch, jax.random.key(0))
    inputs = (params, baseline, TINY.documents(TINY.docs), TINY.forks(), thoughts)
    return results, case, inputs, naive.step_results(case, *inputs)


def test_the_step_equals_the_naive_layout(both):
    results, _, _, expected = both
    assert complaints(check.differences(results, expected)) == []


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["M*-", "DDG"])
def test_the_step_of_a_hybrid_equals_the_naive_layout(pattern):
    sizes = dataclasses.replace(TINY, pattern=pattern, layers=3)
    assert complaints(check.differences_of(sizes), sizes) == []


def test_closed_and_unclosed_thoughts_are_compared(both):
    _, case, (*_, thoughts), _ = both
    ends = [(actions[-1],) for document in thoughts for group in document for actions in group]
    assert 0 < ends.count(case.vocabulary.think_close) < len(ends)


def test_another_temperature_is_detected(both):
    results, case, inputs, _ = both
    settings = dataclasses.replace(case.settings, temperature=TINY.temperature + 0.05)
    wrong = naive.step_results(dataclasses.replace(case, settings=settings), *inputs)
    differences = check.differences(results, wrong)
    assert complaints(differences) == ["logprob_error", "gradient_error"]


def test_another_fork_is_detected(both):
    results, case, (params, baseline, documents, forks, thoughts), _ = both
    moved = [forks[0] - 1, forks[1]]
    wrong = naive.step_results(case, params, baseline, documents, moved, thoughts)
    assert complaints(check.differences(results, wrong)) == list(check.LIMITS)


@pytest.mark.parametrize("change", [1.001, np.nan])
@pytest.mark.parametrize("field", ["reasoned", "baseline", "logprobs", "gradient"])
def test_a_wrong_result_is_detected(both, field, change):
    results, _, _, expected = both
    wrong = jax.tree.map(lambda x: np.asarray(x) * change, getattr(results, field))
    differences = check.differences(dataclasses.replace(results, **{field: wrong}), expected)
    assert len(complaints(differences)) == 1


# More layers than are unrolled: scans round at other places than straight code.
ROUNDED = dataclasses.replace(TINY, dtype="bfloat16", layers=9)


@pytest.fixture(scope="module")
def in_bfloat16():
    """Return this project's results in bfloat16; those of the naive layout in bfloat16 and in
    float32, with the same advantages; the case in float32, and the inputs of the naive step."""
    case, batch = make_case(ROUNDED), batches(ROUNDED, 1)[0]
    params, baseline = check.sharpened(case, 0), check.sharpened(case, 1)
    results, thoughts = check.product(case, params, baseline, batch, jax.random.key(0))
    inputs = (params, baseline, ROUNDED.documents(ROUNDED.docs), ROUNDED.forks(), thoughts)
    exact = check.in_dtype(case, "float32")
    naives = (naive.step_results(one, *inputs, results) for one in (case, exact))
    return results, *naives, exact, inputs


def test_the_step_in_bfloat16_differs_from_float32_by_the_rounding_of_the_naive_layout(in_bfloat16):
    results, rounded, expected, *_ = in_bfloat16
    assert complaints(check.roundings(results, rounded, expected), ROUNDED) == []
    assert complaints(check.differences(results, expected)) == list(check.LIMITS)


def wrong_in_bfloat16(in_bfloat16, change: dict[str, Any]) -> list[str]:
    """Return the complaints about a step whose inputs were changed: `given` or those of the case,
    the documents or the forks."""
    results, rounded, expected, exact, (params, baseline, documents, forks, thoughts) = in_bfloat16
    case = dataclasses.replace(exact, **change.get("case", {}))
    documents, forks = change.get("documents", documents), change.get("forks", forks)
    given = change.get("given", results)
    wrong = naive.step_results(case, params, baseline, documents, forks, thoughts, given)
    return complaints(check.roundings(wrong, rounded, expected), ROUNDED)


def test_another_temperature_is_detected_in_bfloat16(in_bfloat16):
    settings = dataclasses.replace(in_bfloat16[3].settings, temperature=TINY.temperature + 0.05)
    names = ["logprob_roundings", "gradient_roundings"]
    assert wrong_in_bfloat16(in_bfloat16, {"case": {"settings": settings}}) == names


@pytest.mark.parametrize("name", ["forks", "documents"])
def test_a_prefix_that_is_wrong_by_one_token_is_detected_in_bfloat16(in_bfloat16, name):
    *_, (_, _, documents, forks, _) = in_bfloat16
    other = lambda token: 8 + (token - 7) % 8  # another one of the eight words
    changed = [[other(document[0]), *document[1:]] for document in documents]
    change = {"forks": [forks[0] - 1, forks[1]], "documents": changed}[name]
    assert wrong_in_bfloat16(in_bfloat16, {name: change}) == list(check.limits(ROUNDED))


def test_a_dropped_advantage_is_detected_in_bfloat16(in_bfloat16):
    results = in_bfloat16[0]
    reasoned = np.array(results.reasoned)
    reasoned[0, 0] = reasoned[0, 0].mean()  # so the advantages of one group of four are 0
    given = dataclasses.replace(results, reasoned=reasoned)
    assert wrong_in_bfloat16(in_bfloat16, {"given": given}) == ["gradient_roundings"]


@pytest.mark.parametrize("change", [1.1, np.nan])
@pytest.mark.parametrize("field", ["reasoned", "baseline", "logprobs", "gradient"])
def test_a_wrong_result_is_detected_in_bfloat16(in_bfloat16, field, change):
    results, rounded, expected, *_ = in_bfloat16
    wrong = jax.tree.map(lambda x: np.asarray(x) * change, getattr(results, field))
    multiples = check.roundings(dataclasses.replace(results, **{field: wrong}), rounded, expected)
    assert len(complaints(multiples, ROUNDED)) == 1


@pytest.mark.parametrize("count", [2, 4, 16, 256])
def test_equally_distributed_errors_are_within_the_limit(count):
    errors = np.random.default_rng(0).normal(size=(2, 2000, count))
    first, second = np.sqrt(np.mean(errors**2, axis=-1))
    assert np.mean(first > check.rounding_limit(count) * second) <= 0.01


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "gradient_error=0.5 is above 0.0001\n"),
        (["--dtype=bfloat16"], "gradient_roundings=2.5 is above 1.71\n"),
    ],
)
def test_a_failed_check_exits_with_status_1(monkeypatch, capsys, flags, complaint):
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    right = dict.fromkeys([*check.LIMITS, *check.limits(ROUNDED)], 0.0)
    wrong = right | {"gradient_error": 0.5, "gradient_roundings": 2.5}
    monkeypatch.setattr(check, "differences_of", lambda sizes: wrong)
    assert __main__.main(["--check", *flags]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out) == wrong
    assert printed.err == complaint
    monkeypatch.setattr(check, "differences_of", lambda sizes: right)
    assert __main__.main(["--check", *flags]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--heads=3", "--heads=3 is not a multiple of --kv_heads=2"),
        ("--head_dim=7", "--head_dim=7 is odd"),
        ("--positions=4 --prefix=3", "--positions=4 do not fit into --prefix=3"),
        ("--threads=100000", "--threads=100000, but this process may use"),
        ("--threads=0", "--threads=0; it must be at least 1"),
        ("--max_branches_in_flight=15", "is less than --group=16"),
        ("--group=1", "--group=1; it must be at least 2"),
        ("--ema=2", "--ema=2.0; it must be at least 0 and at most 1"),
        ("--lr=nan", "--lr=nan"),
        ("--temperature=0", "--temperature=0.0"),
        ("--docs=many", "argument --docs"),
        ("--documents=3", "unrecognized arguments: --documents=3"),
        ("--pos_mode=first", "argument --pos_mode"),
        ("--check --memory", "argument --memory: not allowed with argument --check"),
    ],
)
def test_a_bad_command_line_is_refused_with_one_line(monkeypatch, capsys, flags, message):
    assert message in refusal(monkeypatch, capsys, __main__.main, flags.split())


def test_forks_are_those_of_other_implementations():
    spread = dataclasses.replace(TINY, positions=3, prefix=16)
    assert spread.forks() == [5, 10, 16]
    assert dataclasses.replace(spread, pos_mode="last").forks() == [14, 15, 16]


def test_documents_are_those_of_other_implementations():
    documents = Workload(seed=3, prefix=5, horizon=2, vocab=100).documents(2)
    assert documents == [[38, 83, 77, 24, 55, 85, 68], [88, 82, 16, 85, 9, 68, 41]]
