"""Every task on invented rows in the format of its file: problems, prompts, and what is refused."""

import csv
import dataclasses
import hashlib
import json
import math
import random
import re

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from rlp.answers.verifiers import Tags
from rlp.evaluation import benchmarks
from rlp.evaluation.benchmarks import gsm8k
from rlp.evaluation.benchmarks.benchmark import LETTERS, Problem
from rlp.evaluation.benchmarks.files import find_file, load
from rlp.evaluation.benchmarks.grading import read_response, same_answer
from rlp.runtime.errors import UserError

COUNT = 8
TAGS = Tags("<think>", "</think>", False)
GOLDS = ("12", r"\frac{1}{2}", "-3.5", "[2,5)", "Evelyn", r"1.2 \times 10^{-3}", r"7\%", "0")
SIZES = (4, 10, 4, 9, 3, 1, 10, 5)  # numbers of options of MMLU-Pro


def gsm8k_row(n):
    return {"question": f"Sum {n}?", "answer": f"It is <<{n}*1000={n}000>>{n}000.\n#### {n},000"}


def arc_row(n):
    labels = list("ABCD" if n % 2 else "1234")
    choices = {"text": [f"text {x}" for x in range(4)], "label": labels}
    row = {"id": f"q{n}", "question": f"Which {n}?", "choices": choices}
    return row | {"answerKey": labels[n % 4]}


def gpqa_row(n):
    wrong = {f"Incorrect Answer {x}": f"wrong {n}.{x}\n" for x in (1, 2, 3)}
    row = {"Question": f"\nSecret {n}, line 1\nline 2", "Correct Answer": f"right {n}", **wrong}
    return row | {"Subdomain": "Optics", "Record ID": f"rec{n}"}


ROWS = {
    "gsm8k": gsm8k_row,
    "math500": lambda n: {"problem": f"p{n}", "answer": GOLDS[n], "unique_id": f"t/{n}.json"},
    "minerva_math": lambda n: {"problem": f"p{n}", "solution": rf"\boxed{{}}\boxed{{{GOLDS[n]}}}"},
    "amc23": lambda n: {"id": n, "problem": f"p{n}", "question": f"p{n}", "answer": 27.0 + n / 2},
    "aime24": lambda n: {"id": str(n), "problem": f"p{n}", "answer": f"0{n + 20}"},
    "aime25": lambda n: {"id": f"a-{n}", "problem": f"p{n}", "expected_answer": str(n)},
    "mmlu": lambda n: {
        "subject": f"high_school_{n % 2}", "question": f"q{n}", "choices": list("wxyz"),
        "answer": n % 4,
    },
    "mmlu_pro": lambda n: {
        "question_id": n, "category": "computer science", "question": f"q{n}",
        "options": [f"o{x}" for x in range(SIZES[n])], "answer": LETTERS[SIZES[n] - 1],
    },
    "gpqa_diamond": gpqa_row,
    "arc_easy": arc_row,
    "arc_challenge": lambda n: {
        "id": f"q{n}", "answerKey": "ABCD"[n % 4],
        "question": {"stem": f"Which {n}?", "choices": [{"text": x, "label": x} for x in "ABCD"]},
    },
    "hellaswag": lambda n: {
        "activity_label": "Baking", "ctx_a": f"Mix {n}  eggs [step].", "ctx_b": "then she",
        "endings": [f"e{x}" for x in range(4)], "label": str(n % 4),
    },
}  # fmt: skip
GENERATED = [name for name, task in benchmarks.BENCHMARKS.items() if task.prompts]


def write(folder, name, rows):
    """Write the file of a task: .csv for GPQA, .parquet for the tasks of the hub, else .jsonl."""
    path = folder / benchmarks.find(name).file
    path.parent.mkdir(exist_ok=True, parents=True)
    if name == "gpqa_diamond":
        with path.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    elif name in ("mmlu_pro", "arc_easy"):
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, path.parent / f"{path.name}-00000-of-00001.parquet")
    else:
        path.with_suffix(".jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def folder(tmp_path):
    for name, row in ROWS.items():
        write(tmp_path, name, [row(n) for n in range(COUNT)])
    for n, subject in enumerate(("high_school_0", "high_school_1")):
        row = ROWS["mmlu"](n) | {"subject": subject}
        path = tmp_path / "mmlu" / "dev.jsonl"
        with path.open("a") as file:
            file.writelines(json.dumps(row | {"question": f"dev {n}.{x}"}) + "\n" for x in range(5))
    reasons = {"cot_content": "A: Let's think step by step. Like that. The answer is (D)."}
    rows = [ROWS["mmlu_pro"](n) | reasons | {"question": f"dev {n}"} for n in range(COUNT)]
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows), tmp_path / "mmlu_pro" / "validation.parquet"
    )
    rows = [json.dumps(gsm8k_row(n)) for n in range(20, 26)]
    (tmp_path / "gsm8k" / "train.jsonl").write_text("\n".join(rows))
    return tmp_path


def response(prompt, gold):
    """Return a response with the format that a prompt asks for."""
    if prompt.name.startswith("final-answer"):
        return f"We compute.\nThe final answer is {gold}"
    if prompt.name == "harness-gsm8k":
        return f"We compute.\n#### {gold}"
    if "mcq" in prompt.name:
        return "Therefore.\n\nAnswer: " + (rf"\boxed{{{gold}}}" if "boxed" in prompt.name else gold)
    return rf"<think>\boxed{{no}}</think> It is $\boxed{{{gold}}}$."


def test_rows_of_every_task_are_tested():
    assert set(ROWS) == set(benchmarks.BENCHMARKS)


@pytest.mark.parametrize("name", GENERATED)
def test_gold_answers_score_everything_and_rotated_ones_what_chance_says(name, folder):
    """Over all rotations of the gold answers, the accuracy is the sum of their squared shares."""
    task = benchmarks.find(name)
    golds = [problem.gold for problem in load(task, folder).problems]
    for prompt in task.prompts:
        read = [read_response(name, prompt.name, "", response(prompt, x), TAGS) for x in golds]
        assert all(complies for _, complies in read), prompt.name
        answers = [answer for answer, _ in read]
        assert all(same_answer(name, *pair) for pair in zip(answers, golds, strict=True))
    correct = np.mean([[same_answer(name, answer, gold) for answer in answers] for gold in golds])
    shares = np.unique(golds, return_counts=True)[1] / COUNT
    assert correct == (shares**2).sum() < 0.5


@pytest.mark.parametrize("name", ROWS)
def test_problems_have_unique_ids_and_a_part_is_labelled(name, folder):
    task = benchmarks.find(name)
    problems = load(task, folder)
    assert len({problem.id for problem in problems.problems}) == COUNT
    assert problems.part.startswith(f"8 of {task.size:,} problems")
    assert all(x.gold in LETTERS[: len(x.options)] for x in problems.problems if x.options)
    assert load(task, folder).digest == problems.digest != problems.sample(3).digest
    assert problems.sample(3).problems == tuple(problems.problems[n] for n in (0, 2, 5))
    assert problems.sample(0) is problems.sample(9) is problems


def test_a_part_of_mmlu_names_its_subjects(folder):
    part = load(benchmarks.find("mmlu"), folder).part
    assert part == "8 of 14,042 problems; 2 of 57 subjects: high_school_0 4, high_school_1 4"


def test_the_original_files_of_mmlu_are_read_from_their_folder(tmp_path):
    test = tmp_path / "mmlu" / "test"
    test.mkdir(parents=True)
    (test / "high_school_physics_test.csv").write_text('"a ""b""\nc",1,2,3,4,B\nq,w,x,y,z,D\n')
    problems = load(benchmarks.find("mmlu"), tmp_path).problems
    assert [x.question for x in problems] == ['a "b"\nc', "q"]
    assert [(x.gold, x.group) for x in problems] == [
        ("B", "high_school_physics"), ("D", "high_school_physics"),
    ]  # fmt: skip
    (test / "x_test.csv").write_text("q,1,2,3,B\n")
    with pytest.raises(UserError, match=r"x_test.csv, line 1: must be a question, four options"):
        load(benchmarks.find("mmlu"), tmp_path)


def test_the_options_of_gpqa_are_shuffled_row_after_row_by_one_generator(folder):
    random.seed(42)
    for problem in load(benchmarks.find("gpqa_diamond"), folder).problems:
        n = problem.id
        options = [f"wrong {n}.{x}" for x in (1, 2, 3)] + [f"right {n}"]
        assert [options[index] for index in problem.order] == list(problem.options)
        random.shuffle(options)
        assert list(problem.options) == options
        assert problem.options[LETTERS.index(problem.gold)] == f"right {n}"
        assert problem.order[LETTERS.index(problem.gold)] == 3


def test_gpqa_alone_is_private():
    private = [name for name, task in benchmarks.BENCHMARKS.items() if task.private]
    assert private == ["gpqa_diamond"]


@pytest.mark.parametrize("name", GENERATED)
def test_prompts_contain_the_problem_last_and_no_unfilled_field(name, folder):
    task = benchmarks.find(name)
    assert {prompt.chat for prompt in task.prompts} == {True, False}
    assert len({prompt.name for prompt in task.prompts}) == len(task.prompts)
    problem = load(task, folder).problems[0]
    for prompt in task.prompts:
        text = prompt.fill(problem, prompt.load_examples(folder))
        assert not re.search(r"\{(problem|examples|subject|solution|steps|answer)\}", text)
        assert text.count(problem.question.strip()) == 1
        assert prompt.shots == 0 or not prompt.chat


def test_prompts_of_chats_are_those_of_nemo_skills(folder):
    """generic/math, and eval/aai/mcq-4choices of NVIDIA/NeMo-Skills at 0b012df."""
    problem = load(benchmarks.find("gsm8k"), folder).problems[0]
    assert benchmarks.find("gsm8k").prompt().fill(problem) == (
        "Solve the following math problem. Make sure to put the answer (and only answer) inside "
        "\\boxed{}.\n\nSum 0?"
    )
    problem = load(benchmarks.find("mmlu"), folder).problems[0]
    options = "q0\n\nA) w\nB) x\nC) y\nD) z"
    boxed, plain = (benchmarks.find("mmlu").prompts[n].fill(problem) for n in (0, 1))
    assert boxed == (
        "Answer the following multiple choice question. The last line of your response should be "
        "in the following format: 'Answer: \\boxed{A/B/C/D}' (e.g. 'Answer: \\boxed{A}').\n\n"
        + options
    )
    assert plain == boxed.replace(r"\boxed{A/B/C/D}", "A/B/C/D").replace(r"\boxed{A}", "A")
    pro = benchmarks.find("mmlu_pro").prompt().fill(problem)
    assert "format: 'Answer: A/B/C/D/E/F/G/H/I/J' (e.g. 'Answer: A')" in pro


def test_examples_of_mmlu_have_the_subject_of_the_problem(folder):
    task = benchmarks.find("mmlu")
    for problem in load(task, folder).problems[:2]:
        for prompt in (task.prompt(base=True), task.scoring().context):
            text = prompt.fill(problem, prompt.load_examples(folder))
            other = 1 - int(problem.group[-1])
            assert (text.count("dev "), text.count(f"dev {other}.")) == (5, 0)


def test_the_context_of_mmlu_is_that_of_the_harness(folder):
    task = benchmarks.find("mmlu")
    scoring = task.scoring("harness-mmlu-0-shot")
    problem = load(task, folder).problems[0]
    assert scoring.context.fill(problem) == (
        "The following are multiple choice questions (with answers) about high school 0.\n\n"
        "q0\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    )
    assert scoring.options(problem) == (" A", " B", " C", " D")
    assert scoring.chosen(problem, [-1, -3, -0.5, -0.5]) == "C"


def test_options_of_arc_and_hellaswag_are_scored_per_character(folder):
    for name in ("arc_easy", "arc_challenge"):
        problem = load(benchmarks.find(name), folder).problems[1]
        scoring = benchmarks.find(name).scoring()
        assert scoring.context.fill(problem) == "Question: Which 1?\nAnswer:"
        assert problem.gold == "B"
    task = benchmarks.find("hellaswag")
    problem = load(task, folder).problems[1]
    assert task.scoring().context.fill(problem) == "Baking: Mix 1 eggs . Then she"
    longer = problem.__class__("x", "q", "A", ("aaaa", "bb"))
    assert task.scoring().options(longer) == (" aaaa", " bb")
    assert task.scoring().chosen(longer, [-4, -3]) == "A"  # -1 and -1.5 nats per character


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["mmlu", "hellaswag"])
def test_options_without_a_finite_log_likelihood_give_no_answer(name, unknown):
    problem = Problem("x", "q", "A", ("a", "b", "c"))
    scoring = benchmarks.find(name).scoring()
    for place in range(3):
        logprobs = [-1.0, -2.0, -3.0]
        assert scoring.chosen(problem, logprobs) == "A"
        logprobs[place] = unknown
        assert scoring.chosen(problem, logprobs) is None


def test_few_shot_prompts_of_gsm8k_and_mmlu_pro(folder):
    task = benchmarks.find("gsm8k")
    prompt = task.prompt("harness-gsm8k")
    text = prompt.fill(load(task, folder).problems[1], prompt.load_examples(folder))
    first = "Question: Sum 20?\nAnswer: It is 20000.\n#### 20000\n\nQuestion: Sum 21?\n"
    assert text.startswith(first)
    assert text.endswith("#### 24000\n\nQuestion: Sum 1?\nAnswer:")
    task = benchmarks.find("mmlu_pro")
    prompt = task.prompt(base=True)
    text = prompt.fill(load(task, folder).problems[0], prompt.load_examples(folder))
    assert text.count("D) o3\n\nLike that.\nAnswer: D\n\n\n") == 2


def test_examples_of_nemo_skills_for_mmlu_pro(folder):
    options = "A. x\nB. y z"
    row = {"category": "math", "problem": f"Sum?{options}", "options": options}
    row["solution"] = r"Add. The answer is \boxed{B}."
    path = folder / "mmlu_pro" / "fewshot_cot.jsonl"
    path.write_text(json.dumps(row))
    (example,) = benchmarks.find("mmlu_pro").prompt(base=True).load_examples(folder)
    problem = example.problem
    assert (problem.question, problem.options, problem.gold) == ("Sum?", ("x", "y z"), "B")
    assert example.solution == "Add."


def test_answers_that_nemo_skills_corrects_are_found_by_their_question(folder, monkeypatch):
    assert len(gsm8k.CORRECTED) == 11
    assert "07:30" in gsm8k.CORRECTED.values()
    monkeypatch.setitem(gsm8k.CORRECTED, hashlib.sha256(b"Sum 3?").hexdigest()[:16], "07:30")
    golds = [problem.gold for problem in load(benchmarks.find("gsm8k"), folder).problems]
    assert golds[2:5] == ["2000", "07:30", "4000"]


def test_examples_that_are_missing_get_one_line(folder):
    task = benchmarks.find("mmlu")
    problem = load(task, folder).problems[0]
    (folder / "mmlu" / "dev.jsonl").write_text(json.dumps(ROWS["mmlu"](0)))
    prompt = task.prompt(base=True)
    with pytest.raises(UserError, match="shows 5 examples of high_school_0, but only 1 are there"):
        prompt.fill(problem, prompt.load_examples(folder))
    (folder / "mmlu" / "dev.jsonl").unlink()
    with pytest.raises(UserError, match=r"mmlu: no file .*mmlu/dev.jsonl \(or .parquet or .csv\)"):
        prompt.load_examples(folder)


BAD = [  # task, changes of the second row, the problem
    ("gsm8k", {"answer": "12"}, "line 2: column 'answer' has no number after '####'"),
    ("gsm8k", {"question": " "}, "line 2: column 'question' is empty"),
    ("math500", {"answer": None}, "line 2: column 'answer' must be a text but is null"),
    ("minerva_math", {"solution": "5"}, r"line 2: column 'solution' has no answer in \boxed"),
    ("aime24", {"answer": "2.5"}, "line 2: column 'answer' must be an integer"),
    ("mmlu", {"answer": 4}, "line 2: column 'answer' is not one of the options ABCD"),
    ("mmlu", {"choices": "wxyz"}, "line 2: column 'choices' must be a list of texts"),
    ("mmlu_pro", {"answer": "K"}, "row 2: column 'answer' is not one of the options ABCDEFGHIJ"),
    ("mmlu_pro", {"question_id": 0}, "problems 1 and 2 have the same id"),
    ("arc_easy", {"answerKey": "E"}, "row 2: answerKey 'E' is not one of the labels"),
    ("arc_challenge", {"question": "?"}, "line 2: the options need 'text' and 'label'"),
    ("hellaswag", {"label": ""}, "line 2: column 'label' is empty"),
]


@pytest.mark.parametrize(("name", "changes", "problem"), BAD)
def test_a_row_that_cannot_be_used_gets_one_line(name, changes, problem, tmp_path):
    write(tmp_path, name, [ROWS[name](0), ROWS[name](1) | changes])
    with pytest.raises(UserError) as caught:
        load(benchmarks.find(name), tmp_path)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def private_csv(names, *rows):
    quoted = [[f'"{cell}"' for cell in row] for row in (names, *rows) if row]
    return "\n".join(map(",".join, quoted))


COLUMNS = list(gpqa_row(0))
SECRETS = [f"Secret {n}" for n in range(len(COLUMNS))]
JSON_SECRETS = json.dumps(dict.fromkeys(SECRETS, "Secret"))
PRIVATE = [  # name of the file, content
    (".csv", private_csv([], SECRETS, SECRETS)),  # without its header
    (".csv", private_csv(COLUMNS[1:], SECRETS[1:])),
    (".csv", private_csv(COLUMNS, SECRETS, SECRETS[:-1])),
    (".csv", private_csv(COLUMNS, [*SECRETS, "Secret"])),
    (".csv", private_csv(COLUMNS, [*SECRETS[:1], " ", *SECRETS[2:]])),
    (".csv", private_csv(COLUMNS, SECRETS)[:-1]),
    (".csv", private_csv(COLUMNS, SECRETS).replace("Secret 1", 'Secret "1')),
    (".jsonl", JSON_SECRETS),  # a table without its header, converted
    (".jsonl", json.dumps(dict(zip(COLUMNS, SECRETS, strict=True))) + '\n{"Question": "Secret"}'),
    (".jsonl", json.dumps(dict(zip(COLUMNS, SECRETS, strict=True))) + '\n{"Question": "Secret'),
    (".jsonl", json.dumps(dict(zip(COLUMNS, SECRETS, strict=True)) | {"Question": ["Secret"]})),
]


def private_error(task, folder, caplog):
    """Return the message of the error that loading a private task raises, and all logs."""
    with caplog.at_level("DEBUG"), pytest.raises(UserError) as caught:
        load(task, folder)
    return str(caught.value) + caplog.text


@pytest.mark.parametrize(("ending", "content"), PRIVATE)
def test_no_message_contains_a_private_text(ending, content, tmp_path, caplog):
    (tmp_path / "gpqa_diamond").mkdir()
    (tmp_path / "gpqa_diamond" / f"gpqa_diamond{ending}").write_text(content)
    message = private_error(benchmarks.find("gpqa_diamond"), tmp_path, caplog)
    assert f"gpqa_diamond{ending}" in message
    assert "secret" not in message.lower()


def test_messages_contain_no_private_column_of_parquet_and_no_private_id(tmp_path, caplog):
    (tmp_path / "gpqa_diamond").mkdir()
    table = pyarrow.Table.from_pylist([dict.fromkeys(SECRETS, "Secret")])
    pyarrow.parquet.write_table(table, tmp_path / "gpqa_diamond" / "gpqa_diamond.parquet")
    task = benchmarks.find("gpqa_diamond")
    assert "Secret" not in private_error(task, tmp_path, caplog)
    ids = [Problem("Secret", f"Secret {n}", "A") for n in range(2)]
    message = private_error(dataclasses.replace(task, read=lambda path: ids), tmp_path, caplog)
    assert "problems 1 and 2 have the same id" in message
    assert "Secret" not in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "none of its 0 columns is called 'Question'"),
        (b"Question,Subdomain\n", "none of its 2 columns is called 'Incorrect Answer 1'"),
        (b"Question,Subdomain,%s\n", "no problems; download it again"),
        (b"\xff\n", "gpqa_diamond.csv, line 1: not valid UTF-8"),
        (b'a,"b\n', "line 1: not valid CSV: unexpected end of data"),
        (b"Question,Subdomain,%s\n1,2\n", "line 2: has 2 cells, but the first record has 6"),
    ],
)
def test_a_damaged_csv_file_gets_one_line(content, problem, tmp_path):
    names = [f"Incorrect Answer {n}" for n in (1, 2, 3)] + ["Correct Answer"]
    (tmp_path / "gpqa_diamond").mkdir()
    path = tmp_path / "gpqa_diamond" / "gpqa_diamond.csv"
    path.write_bytes(content.replace(b"%s", ",".join(names).encode()))
    with pytest.raises(UserError, match=re.escape(problem)):
        load(benchmarks.find("gpqa_diamond"), tmp_path)


def test_a_file_is_found_by_its_name_or_else_by_its_beginning(tmp_path):
    (tmp_path / "x").mkdir()
    find = lambda: find_file(tmp_path, "x/test", "x", "example.org").name
    with pytest.raises(UserError, match=r"x: no file .*get it from example.org"):
        find()
    (tmp_path / "x" / "test-0.parquet").touch()
    (tmp_path / "x" / "test.txt").touch()
    (tmp_path / "x" / "tests.jsonl").touch()
    assert find() == "test-0.parquet"
    (tmp_path / "x" / "test_1.csv").touch()
    with pytest.raises(UserError, match="has both test-0.parquet and test_1.csv; keep one"):
        find()
    (tmp_path / "x" / "test.jsonl.zst").touch()
    assert find() == "test.jsonl.zst"


def test_a_file_that_is_one_of_several_parts_is_refused(tmp_path):
    """Keeping one of them would leave out the problems of the others."""
    find = lambda: find_file(tmp_path, "test", "x", "example.org").name
    (tmp_path / "test-00000-of-00001-0f.parquet").touch()
    assert find() == "test-00000-of-00001-0f.parquet"
    (tmp_path / "test-00000-of-00001-0f.parquet").unlink()
    for number in range(2):
        (tmp_path / f"test-0000{number}-of-00002-0f.parquet").touch()
        with pytest.raises(UserError, match=r"00-of-00002-0f.parquet is one of 2 parts; join them"):
            find()
    (tmp_path / "test.parquet").touch()
    assert find() == "test.parquet"


def test_prompts_and_extractors_are_found_by_name():
    task = benchmarks.find("gsm8k")
    for prompt in task.prompts:
        assert task.prompt(prompt.name) is prompt
        assert task.extractor(prompt=prompt).name == (prompt.extractor or "skills-boxed")
    assert task.extractor("skills-boxed", task.prompt("final-answer")).name == "skills-boxed"
    for find, problem in [
        (lambda: task.prompt("x"), "task gsm8k has no prompt 'x'; use one of skills-math"),
        (lambda: task.extractor("x"), "task gsm8k has no extractor 'x'; use one of skills-boxed"),
        (task.scoring, "task gsm8k has no options to score"),
        (benchmarks.find("hellaswag").prompt, "task hellaswag has no prompt for a chat; it has"),
        (benchmarks.find("hellaswag").extractor, "task hellaswag has no extractors"),
        (lambda: benchmarks.find("mmlu").scoring("x"), "no context 'x'; use one of harness-mmlu"),
    ]:
        with pytest.raises(UserError, match=problem):
            find()
