"""Benchmarks that a run evaluates while it trains: what they measure, and what they leave alone."""

import json
import shutil
from pathlib import Path

import pytest

from configs.default import Config
from configs.fields import flat
from rlp.evaluation.benchmarks import suites
from rlp.evaluation.runner.generation import GenerationTask
from rlp.evaluation.runner.model import EvaluatedModel
from rlp.evaluation.runner.settings import Settings
from rlp.metrics import catalogue
from rlp.report import load_folders
from rlp.report.compare import group_runs
from rlp.report.curves import build_plots
from rlp.run import experiment, loop, suite_fields
from rlp.run.checks import check
from rlp.run.evaluate import evaluate
from rlp.run.evaluated_models import open_on_mesh
from rlp.run.opened_model import one_device as one
from rlp.runtime import hosts
from rlp.runtime.errors import UserError
from tests.support import runs
from tests.support.chats import CHATML, model
from tests.support.runs import crash_at, one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device", "early_warnings")

TASK = """
from rlp.evaluation.benchmarks.benchmark import Benchmark, Extractor, OptionScoring, Problem, Prompt
from rlp.evaluation.benchmarks.files import read_table

def problems(path):
    for number, row in enumerate(read_table(path, {"q": ("q",)})):
        yield Problem(str(number), row.text("q"), "A", ("north", "east"))

def prompt(name, text):
    return Prompt(name, "2026-11", "here", text, chat=CHAT, complies=lambda text: odd(text[-1:]))

def odd(letter):
    return ord(letter or "a") % 2 == 1

def first(text):
    return text[:1] if odd(text[1:2]) else None

WORDS = Benchmark(
    name="words", title="Words", group="other", size=5, file="words/test", source="here",
    licence="CC0", read=problems, runs=2, max_tokens=5,
    prompts=(prompt("ask", "{problem} "), prompt("long", "{problem} " * 9)),
    extractors=(Extractor("first", "2026-11", first, "a letter"),),
    options=OPTIONS,
    equal=lambda answer, gold: odd(answer),
)
"""
OPTIONS = """(OptionScoring(
    Prompt("context", "2026-11", "here", "{problem}", chat=False),
    lambda problem: tuple(" " + x for x in problem.options)),)"""
TIMES = {"steps": 5, "checkpoint.every": 3, "evaluation.every": 3}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """Return the fields of a run that evaluates a task with generated answers."""
    folder = tmp_path_factory.mktemp("benchmarks")
    texts = ("Now he", "She turns", "north", "he faces east", "she")  # known to every tokenizer
    rows = [{"q": text} for text in texts]
    (folder / "words").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "words" / "test.jsonl").write_text(lines)
    task = TASK.replace("CHAT", "False")
    (folder / "words.py").write_text(task.replace("OPTIONS", OPTIONS))
    (folder / "plain.py").write_text(task.replace("OPTIONS", "()"))
    (folder / "chat.py").write_text(TASK.replace("CHAT", "True").replace("OPTIONS", "()"))
    fields = {"evaluation.suite": str(folder / "words.py"), "evaluation.suite_data": str(folder)}
    fields |= {"evaluation.suite_every": 2, "evaluation.best_metric": "benchmark/accuracy"}
    return fields | TIMES


def without_benchmarks(outcome):
    """Return what a run has in common with one that evaluates no benchmarks."""
    drop = lambda row: {name: x for name, x in row.items() if "benchmark/" not in name}
    return {
        "arrays": outcome["arrays"],
        "meta": outcome["meta"],
        "metrics": [drop(row) for row in outcome["metrics"]],
        "evaluation": drop(outcome["evaluation"]),
        "thoughts": outcome["thoughts"],
    }


SCORES = ("accuracy", "no_answer", "complies", "failed", "truncated")
MEASURED = ("accuracy", "no_answer", "format", "failed", "truncated")
LAST = ("5", "best")
KINDS = [
    "next_token",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("rlp on text", "rlvr")),
]


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_a_run_with_benchmarks_is_the_run_without_and_has_the_scores_of_its_checkpoints(
    kind, suite, tmp_path, finished
):
    _, _, config = kind
    config.update_from_flattened_dict(TIMES)
    plain = runs.outcome(finished(config))
    config.update_from_flattened_dict(suite)
    folder = finished(config)
    with_suite = runs.outcome(folder)
    assert without_benchmarks(with_suite) == without_benchmarks(plain)
    names = ["benchmark/accuracy", *(f"benchmark/words_avg@2/{name}" for name in MEASURED)]
    scores = {
        row["step"]: {name: row[f"evaluation/{name}"] for name in names}
        for row in with_suite["metrics"]
        if "evaluation/benchmark/accuracy" in row
    }
    scores[5] = {name: with_suite["evaluation"][name] for name in names}
    assert list(scores) == [2, 4, 5]
    assert all(catalogue.find(f"evaluation/{name}") for name in names)
    found = evaluate(
        suites.find(suite["evaluation.suite"]),
        Settings(),
        Path(suite["evaluation.suite_data"]),
        tmp_path / "out",
        {step: lambda step=step: open_on_mesh(step, f"{folder}@{step}", one()) for step in LAST},
    )
    last, best = (dict(zip(names[1:], map(x.get, SCORES), strict=True)) for x in found["results"])
    assert last | {names[0]: last[names[1]]} == scores[5]
    assert best[names[1]] == max(score[names[1]] for score in scores.values())
    assert len({tuple(score.values()) for score in scores.values()}) > 1
    plotted = [plot.metric.name for plot in build_plots(group_runs(load_folders([folder])))]
    assert {"benchmark/accuracy", "benchmark/words_avg@2/accuracy"} <= set(plotted)


@pytest.mark.parametrize("kind", ["next_token"], indirect=True)
def test_a_run_that_is_killed_or_stopped_while_it_evaluates_ends_like_one_that_never_was(
    kind, suite, tmp_path, finished
):
    _, _, config = kind
    config.update_from_flattened_dict(suite)
    with crash_at(GenerationTask, "_record", 7), pytest.raises(runs.Crash):
        loop.train(config, tmp_path, report=False)
    assert [row["step"] for row in runs.metrics(tmp_path)] == [1]
    # Stopped at steps 2 and 4, which are saved and evaluated again, and at the end.
    for response, step, lines in ((7, 2, 1), (17, 4, 3), (17, 5, 5)):
        assert runs.stopped_at(config, tmp_path, GenerationTask, "_record", response) == step
        assert len(runs.metrics(tmp_path)) == lines
    loop.train(config, tmp_path, report=False)
    assert runs.outcome(tmp_path) == runs.outcome(finished(config))


@pytest.mark.parametrize("kind", ["next_token"], indirect=True)
def test_a_run_whose_evaluation_fails_keeps_its_steps(kind, suite, tmp_path, finished, monkeypatch):
    _, _, config = kind
    config.update_from_flattened_dict(suite | {"evaluation.suite_every": 0})

    def fails(*_):
        raise MemoryError("8 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(GenerationTask, "_record", fails)
        with pytest.raises(
            UserError, match="out of memory .8 GiB.; lower evaluation.suite_max_tok"
        ):
            loop.train(config, tmp_path, report=False)
    assert max(runs.steps(tmp_path)) == 5
    loop.train(config, tmp_path, report=False)
    assert runs.outcome(tmp_path) == runs.outcome(finished(config))


@pytest.mark.parametrize("kind", ["next_token"], indirect=True)
@pytest.mark.parametrize("think", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_options_are_scored_by_their_likelihood(kind, suite, tmp_path, think):
    _, _, config = kind
    fields = {"steps": 1, "evaluation.suite_likelihood": True, "evaluation.suite_think": think}
    fields["evaluation.suite_limit"] = 3
    config.update_from_flattened_dict(suite | fields)
    result = loop.train(config, tmp_path, report=False)
    names = [name for name in result if name.startswith("benchmark/words_log-likelihood/")]
    measured = {"accuracy", "no_answer"} | ({"truncated"} if think else set())
    assert {name.rpartition("/")[2] for name in names} == measured
    assert result["benchmark/accuracy"] in (0, 1 / 3, 2 / 3, 1)


@pytest.mark.slow
def test_a_model_with_a_chat_template_is_asked_in_chats_also_after_a_stop(suite, text, tmp_path):
    base = model(tmp_path / "base", **{"chat_template.jinja": CHATML})
    chat = str(Path(suite["evaluation.suite_data"]) / "chat.py")
    fields = {"init_from": str(base), "evaluation.suite": chat, "steps": 3}
    config = runs.config(runs.TEXT, text, suite, fields)
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        prompt_ids = EvaluatedModel.prompt_ids
        patch.setattr(
            EvaluatedModel, "prompt_ids", lambda *args: asked.append(args) or prompt_ids(*args)
        )
        whole = loop.train(config, tmp_path / "whole", report=False)
    assert {(chat, think) for *_, chat, think in asked} == {(True, False)}
    assert runs.stopped_at(config, tmp_path / "run", GenerationTask, "_record", 7) == 2
    again = loop.train(config, tmp_path / "run", report=False)
    assert runs.timeless(again) == runs.timeless(whole)


# What is refused, before anything is written.

BAD = {
    "no such suite": ({"evaluation.suite": "wrods"}, "'wrods' is neither a suite nor a task"),
    "no such task": ({"evaluation.suite": "gsm8k,wrods"}, "task='wrods' is unknown"),
    "no data": ({"evaluation.suite_data": ""}, "needs evaluation.suite_data"),
    "no folder": ({"evaluation.suite_data": "no/such"}, "suite_data='no/such' is not a folder"),
    "no file": ({"evaluation.suite": "gsm8k"}, "gsm8k: no file"),
    "no prompt": ({"evaluation.suite_prompt": "aks"}, "has the prompt 'aks'; they have: ask, long"),
    "a long prompt": ({"evaluation.suite_prompt": "long"}, "choose a shorter prompt"),
    "long responses": ({"evaluation.suite_max_tokens": 99}, "lower evaluation.suite_max_tokens"),
    "no options": (
        {"evaluation.suite": "plain", "evaluation.suite_likelihood": True},
        "no options",
    ),
    "only chats": ({"evaluation.suite": "chat"}, "has no prompt that a base model continues"),
    "a limit that options do not have": (
        {"evaluation.suite_likelihood": True, "evaluation.suite_max_tokens": 4},
        "evaluation.suite_max_tokens=4 has no effect, since no answers to",
    ),
    "a best metric of another suite": (
        {"evaluation.best_metric": "benchmark/gsm8k_greedy/accuracy"},
        "use one of benchmark/accuracy, benchmark/words_avg@2/accuracy",
    ),
    "a best metric without a suite": (
        {"evaluation.suite": "", "evaluation.suite_data": "", "evaluation.suite_every": 0},
        "set evaluation.suite",
    ),
    "a field of no suite": (
        {"evaluation.suite": "", "evaluation.suite_data": ""},
        "evaluation.suite_every=2 has no effect without evaluation.suite; set it to 0",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(
    suite, text, tmp_path, name
):
    change, message = BAD[name]
    named = change.get("evaluation.suite")
    if named in ("plain", "chat"):
        own = Path(suite["evaluation.suite_data"]) / f"{named}.py"
        change = change | {"evaluation.suite": str(own)}
    config = runs.config(runs.TEXT, text, suite, change)
    with pytest.raises(UserError) as error:
        loop.train(config, tmp_path / "run")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_an_arm_whose_benchmarks_are_missing_is_refused_before_any_arm_runs(suite, text, tmp_path):
    config = runs.config(runs.TEXT, text)
    missing = {"evaluation": {"suite": "gsm8k", "suite_data": str(tmp_path)}}
    with config.unlocked():
        config.arms = {"a": {"steps": 1}, "b": missing}
    with pytest.raises(UserError, match="arm b: evaluation.suite='gsm8k': gsm8k: no file"):
        experiment.run(config, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_an_arm_inherits_the_chat_template_of_an_arm_that_has_not_run(suite, text, tmp_path):
    base, template = model(tmp_path / "base"), tmp_path / "chatml.jinja"
    template.write_text(CHATML)
    chat = str(Path(suite["evaluation.suite_data"]) / "chat.py")
    config = runs.config(runs.TEXT, text, suite, {"evaluation.suite": chat})
    with config.unlocked():
        config.arms = {
            "sft": {"init_from": str(base), "data": {"chat_template": str(template)}},
            "rl": {"init_from": "sft"},
            "base": {"init_from": "rl", "data": {"chat_template": "none"}},
        }
    with pytest.raises(UserError, match="arm base: .*no prompt that a base model continues"):
        experiment.run(config, tmp_path / "runs")


def test_several_processes_are_refused(suite, text, monkeypatch):
    monkeypatch.setattr(hosts, "count", lambda: 2)
    fields = flat(runs.config(runs.TEXT, text, suite), Config)
    with pytest.raises(UserError, match="is evaluated by runs of one process only"):
        check(fields)


@pytest.mark.parametrize("field", ["data.train", "data.problems.train"])
def test_generated_problems_that_a_run_trains_on_are_refused(text, field):
    suite = {"evaluation.suite": "reasoning_gym:chain_sum?size=20"}
    train = {"data.train": "", field: "reasoning_gym:chain_sum?seed=10&size=60"}
    with pytest.raises(UserError, match=f"suite='reasoning_gym:.* in {field} may have too"):
        suite_fields.check(Config.of(runs.config(runs.TEXT, text, suite, train)))


@pytest.mark.parametrize("kind", ["next_token"], indirect=True)
def test_other_problems_or_another_task_are_other_data(kind, suite, tmp_path):
    _, _, config = kind
    data = tmp_path / "data"
    shutil.copytree(suite["evaluation.suite_data"], data)
    own = {"evaluation.suite": str(data / "words.py"), "evaluation.suite_data": str(data)}
    config.update_from_flattened_dict(suite | own | {"evaluation.suite_limit": 4})
    with crash_at(GenerationTask, "_record", 9), pytest.raises(runs.Crash):
        loop.train(config, tmp_path / "run", report=False)
    problems = data / "words" / "test.jsonl"
    problems.write_text(problems.read_text().replace("turns", "faces"))
    with pytest.raises(UserError, match="evaluation.suite: other 4 problems"):
        loop.train(config, tmp_path / "run", report=False)
    shutil.copy(Path(suite["evaluation.suite_data"]) / "words" / "test.jsonl", problems)
    with (data / "words.py").open("a") as code:
        code.write("# another task\n")
    with pytest.raises(UserError, match="evaluation.suite: other 4 problems"):
        loop.train(config, tmp_path / "run", report=False)
