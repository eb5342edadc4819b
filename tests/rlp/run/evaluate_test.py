"""Evaluations of models whose responses are scripted."""

import json
import re

import pytest

from rlp.evaluation.benchmarks import suites
from rlp.evaluation.runner.settings import Settings
from rlp.run.evaluate import evaluate
from rlp.runtime.errors import UserError
from tests.support.scripted import Killed, scripted_model

TASK = """
from rlp.evaluation.benchmarks.benchmark import Benchmark, Extractor, Problem, Prompt
from rlp.evaluation.benchmarks.files import read_table

def problems(path):
    for number, row in enumerate(read_table(path, {"q": ("q",), "a": ("a",)})):
        yield Problem(str(number), row.text("q"), row.answer("a"), group=f"part {number % 2}")

def last(response):
    return response.rpartition("=")[2].strip() or None

SUMS = Benchmark(
    name="sums", title="Sums", group="math", size=6, file="sums/test", source="here",
    licence="MIT", read=problems, private=PRIVATE, runs=3, max_tokens=40,
    prompts=(Prompt("plain", "2026-11", "here", "{problem}", chat=False, stop=("\\n\\n",),
                    complies=lambda response: "=" in response),),
    extractors=(Extractor("last", "2026-11", last, "the text after ="),),
)
"""
ROWS = [{"q": f"{a} + {a + 1}", "a": str(2 * a + 1)} for a in range(6)]
OPTIONS = [
    {"question": f"Which is {n}?", "choices": [str(n + k) for k in range(4)], "answer": 0}
    | {"subject": "counting"}
    for n in range(5)
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "sums").mkdir(parents=True)
    (tmp_path / "data" / "mmlu").mkdir()
    write = lambda name, rows: (tmp_path / "data" / name).write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    write("sums/test.jsonl", ROWS)
    write("mmlu/test.jsonl", OPTIONS)
    (tmp_path / "sums.py").write_text(TASK.replace("PRIVATE", "False"))
    (tmp_path / "secret.py").write_text(TASK.replace("PRIVATE", "True"))
    return tmp_path


def right(prompt, seed):
    a, b = map(int, re.findall(r"\d+", prompt)[-2:])
    return f" = {a + b}"


def sometimes(prompt, seed):
    return right(prompt, seed) if seed % 2 else " I do not know"


def run(folder, *models, task="sums.py", settings=None, out="out"):
    suite = suites.find(task if task == "mmlu" else str(folder / task))
    by_name = {model.name: lambda model=model: model for model in models}
    settings = settings or Settings()
    return evaluate(suite, settings, folder / "data", folder / out, by_name)


def test_right_answers_score_one_and_wrong_ones_nothing(folder):
    wrong = lambda prompt, seed: " = 0"
    content = run(folder, scripted_model("good", right), scripted_model("bad", wrong))
    good, bad = content["results"]
    assert (good["accuracy"], bad["accuracy"]) == (1, 0)
    assert (good["complies"], good["no_answer"], good["truncated"]) == (1, 0, 0)
    assert bad["over_first"] == (-1, 0)
    assert good["by_group"] == {f"part {n}": {"accuracy": 1, "problems": 3} for n in (0, 1)}
    saved = json.loads((folder / "out" / "results.json").read_text())
    assert saved["means"]["bad"][-1]["value"] == 0
    for name in ("results.md", "report.html"):
        assert "good" in (folder / "out" / name).read_text()


@pytest.mark.parametrize("task", ["sums.py", "secret.py"])
@pytest.mark.parametrize("most", [0, 1, 7, 17])
def test_a_killed_evaluation_repeats_nothing_and_ends_the_same(folder, task, most):
    whole = run(folder, scripted_model("m", sometimes), task=task, out="whole")
    killed = scripted_model("m", sometimes)
    killed.generator.most = most
    with pytest.raises(Killed):
        run(folder, killed, task=task)
    resumed = scripted_model("m", sometimes)
    assert run(folder, resumed, task=task) == whole
    assert len(killed.generator.requests) == most
    assert len(resumed.generator.requests) == 18 - most
    for name in ("results.json", "results.md", "report.html"):
        texts = [(folder / out / name).read_bytes() for out in ("out", "whole")]
        assert texts[0] == texts[1]


def test_a_response_does_not_depend_on_the_other_problems(folder):
    seeds = []
    for limit in (0, 2):
        model = scripted_model("m", sometimes)
        run(folder, model, settings=Settings(limit=limit), out=str(limit))
        seeds.append({(r.prompt, r.seed) for r in model.generator.requests})
    assert seeds[1] < seeds[0]
    assert len(seeds[1]) == 6


def test_an_evaluation_of_more_problems_keeps_the_responses_to_fewer(folder):
    run(folder, scripted_model("m", sometimes), settings=Settings(limit=2))
    more = scripted_model("m", sometimes)
    content = run(folder, more)
    assert len(more.generator.requests) == 12
    assert content == run(folder, scripted_model("m", sometimes), out="whole")
    (folder / "data" / "sums" / "test.jsonl").write_text('{"q": "5 + 6", "a": "11"}\n')
    with pytest.raises(UserError, match="problem 0 is to another prompt"):
        run(folder, scripted_model("m", sometimes))


def test_nothing_of_a_private_task_is_written(folder):
    asks = lambda prompt, seed: f"{prompt} = 3"
    run(folder, scripted_model("m", asks), task="secret.py")
    for path in (folder / "out").rglob("*"):
        if path.is_file():
            assert not any(row["q"] in path.read_text() for row in ROWS), path


def test_other_models_and_settings_are_refused(folder):
    run(folder, scripted_model("m", right))
    with pytest.raises(UserError, match="model was"):
        run(folder, scripted_model("m", right, identity={"parameters": "other"}))
    with pytest.raises(UserError, match="max_tokens was 40 and is now 8"):
        run(folder, scripted_model("m", right), settings=Settings(max_tokens=8))


def test_another_extractor_reads_the_same_responses(folder):
    run(folder, scripted_model("m", right))
    again = scripted_model("m", right)
    run(folder, again, settings=Settings(extractors=("last",)))
    assert not again.generator.requests


def test_a_cut_response_counts_as_truncated_and_a_thought_that_is_not_closed_has_no_answer(folder):
    thinks = lambda prompt, seed: "so" * 30 if seed % 2 else f"well </think>{right(prompt, 0)}"
    content = run(folder, scripted_model("m", thinks), settings=Settings(think=True))
    result = content["results"][0]
    assert 0 < result["truncated"] < 1
    assert result["no_answer"] == result["truncated"] == 1 - result["accuracy"]


def test_options_are_chosen_by_their_likelihood_and_a_killed_run_goes_on(folder):
    def first(context, option):
        return 1.0 if option.strip() == "A" else 0.0

    model = scripted_model("m", logprob=first)
    settings = Settings(likelihood=True, prompts=("harness-mmlu-0-shot",))
    content = run(folder, model, task="mmlu", settings=settings)
    result = content["results"][0]
    assert (result["entry"], result["accuracy"]) == ("mmlu log-likelihood", 1)
    assert model.scorer.questions == 5
    again = scripted_model("m", logprob=first)
    assert run(folder, again, task="mmlu", settings=settings) == content
    assert again.scorer.questions == 0


def test_a_problem_whose_options_have_no_finite_likelihood_is_failed_not_an_error(folder):
    nowhere = lambda context, option: float("nan") if "Which is 2?" in context else len(option)
    settings = Settings(likelihood=True, prompts=("harness-mmlu-0-shot",))
    for _ in range(2):  # as sampled, and as read from the file
        model = scripted_model("m", logprob=nowhere)
        result = run(folder, model, task="mmlu", settings=settings)["results"][0]
        assert (result["accuracy"], result["failed"], result["no_answer"]) == (0.8, 0.2, 0.2)


def test_bad_settings_are_refused_before_a_model_is_opened(folder):
    def opens():
        raise AssertionError("opened")

    suite = suites.find(str(folder / "sums.py"))
    for settings, data, message in (
        (Settings(prompts=("nosuch",)), "data", "has the prompt 'nosuch'; they have: plain"),
        (Settings(extractors=("nosuch",)), "data", "they have: last"),
        (Settings(likelihood=True), "data", "has no options"),
        (Settings(), "nodata", "is not a folder"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(suite, settings, folder / data, folder / "out", {"m": opens})
    assert not (folder / "out").exists()
    with pytest.raises(UserError, match=r"'mmlu greedy' twice|'mmlu avg@2' twice"):
        Settings(runs=2, temperature=0.7).of(
            suites.Suite("both", (suites.greedy("mmlu", "a"), suites.sampled("mmlu", "b", 4)))
        )


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_generated(folder):
    model = scripted_model("m", right, longest=10)
    with pytest.raises(UserError, match="lower --max_tokens"):
        run(folder, model, settings=Settings(max_tokens=20))
    assert not model.generator.requests
    run(folder, model)  # the limit of the task itself is lowered
    assert {len(r.prompt) + r.max_tokens for r in model.generator.requests} == {10}
