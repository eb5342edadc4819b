"""The program that evaluates models on benchmarks."""

import json

import pytest

from tests.support import folders

TASK = """
from rlp.evaluation.benchmarks.benchmark import Benchmark, Extractor, OptionScoring, Problem, Prompt
from rlp.evaluation.benchmarks.files import read_table

def problems(path):
    for number, row in enumerate(read_table(path, {"q": ("q",)})):
        yield Problem(str(number), row.text("q"), "A", ("yes", "no"))

CONTEXT = Prompt("context", "2026-11", "here", "{problem} Yes or no?", chat=False)
WORDS = Benchmark(
    name="words", title="Words", group="other", size=3, file="words/test", source="here",
    licence="CC0", read=problems, max_tokens=6,
    prompts=(Prompt("ask", "2026-11", "here", "{problem} Answer:", chat=False),),
    extractors=(Extractor("first", "2026-11", lambda text: text[:1] or None, "the first letter"),),
    options=(OptionScoring(CONTEXT, lambda problem: tuple(f" {x}" for x in problem.options)),),
)
"""


@pytest.fixture
def folder(tmp_path):
    folders.write(tmp_path / "model")
    (tmp_path / "words.py").write_text(TASK)
    (tmp_path / "data" / "words").mkdir(parents=True)
    rows = [{"q": text} for text in ("Is it cold?", "Is a cat an animal?", "Is 3 even?")]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "data" / "words" / "test.jsonl").write_text(lines)
    return tmp_path


def words_of(out, *flags):
    models = "--checkpoint=one=model,two=model"
    return ["launch.evaluate", models, "--suite=words.py", "--data=data", f"--out={out}", *flags]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint="], "--checkpoint is missing"),
        (["--checkpoint=one=model,two=modle"], "modle"),
        (["--suite=wrods"], "'wrods' is neither a suite nor a task"),
        (["--data=dta"], "--data=dta is not a folder"),
        (["--prompt=aks"], "no task of words.py has the prompt 'aks'; they have: ask"),
        (["--top_p=1.5"], "--top_p=1.5; it must be above 0 and at most 1"),
        (["--data="], "--data is missing"),
        (["--shots=2"], "--shots has no effect without --harness"),
        (["--harness=arc_easy"], "--suite has no effect with --harness"),
        (["--likelihood", "--runs=2"], "--runs has no effect with --likelihood"),
        (["--thoughts=2"], "--thoughts has no effect without --likelihood and --think"),
        (["--out=data"], "data has files that are not of an evaluation"),
        (["--checkpoint=a b=model,a_b=model"], "two models would have the folder 'a_b'"),
    ],
)
def test_bad_input_gets_one_line_before_anything_is_generated(programs, folder, flags, message):
    pytest.importorskip("transformers")
    ran = programs.run(words_of("out", *flags), folder)
    assert ran.status == 2
    *logged, line = ran.err.splitlines()
    assert all("is imported from" in record for record in logged)
    assert line.startswith("error: ")
    assert message in line
    assert not (folder / "out").exists()


def test_the_list_of_tasks_has_those_of_the_paper(programs, tmp_path):
    ran = programs.run(["launch.evaluate", "--list"], tmp_path)
    assert ran.status == 0
    for task in ("gsm8k", "math500", "minerva_math", "amc23", "mmlu", "mmlu_pro", "gpqa_diamond"):
        assert f"| {task} " in ran.out


@pytest.mark.slow  # compiles and runs a network
@pytest.mark.parametrize(
    "flags",
    [
        ["--runs=2", "--temperature=1"],
        ["--likelihood"],
        ["--likelihood", "--think", "--thoughts=2", "--thought_length=6"],
    ],
    ids=" ".join,
)
def test_equal_models_have_equal_scores_and_a_second_run_computes_nothing(programs, folder, flags):
    pytest.importorskip("transformers")
    flags = [*flags, "--seed=3"]
    ran = programs.run(words_of("out", *flags), folder)
    assert ran.status == 0, ran.err
    results = json.loads((folder / "out" / "results.json").read_text())["results"]
    one, two = ({k: v for k, v in r.items() if k not in ("model", "over_first")} for r in results)
    assert one == two
    assert results[1]["over_first"] == [0, 0]
    before = {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}
    again = programs.run(words_of("out", *flags), folder)
    assert again.out == ran.out
    assert before == {path: path.read_bytes() for path in before}
