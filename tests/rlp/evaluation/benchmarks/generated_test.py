"""Benchmarks of generated problems: the scorer of each problem judges it, and nothing is read."""

from pathlib import Path

import pytest

from rlp.answers.verifiers import gym
from rlp.evaluation import benchmarks
from rlp.evaluation.benchmarks import files, suites
from rlp.evaluation.benchmarks.grading import ResponseGrader
from rlp.runtime.errors import UserError

pytest.importorskip("reasoning_gym", reason="requirements-gym.txt")

SUMS = "reasoning_gym:chain_sum?size=12&seed=5"
NOWHERE = Path("no/such/folder")


@pytest.fixture(scope="module")
def sums():
    return files.load(benchmarks.find(SUMS), NOWHERE).problems


def answer(problem):
    return problem.gold.partition(" (")[0]


@pytest.mark.parametrize(
    ("prompt", "form"),
    [
        ("gym-tags", "So it is 1.\n<answer>{}</answer>"),
        ("gym-boxed", "$\\boxed{{{}}}$"),
        ("gym-line", " {}"),
        ("gym-line-zero-shot", " {}"),
    ],
)
def test_gold_answers_are_correct_and_those_of_other_problems_are_not(sums, prompt, form):
    grader = ResponseGrader(SUMS, prompt, workers=1)
    right = grader.grade(sums, [form.format(answer(problem)) for problem in sums])
    assert all(verdict.correct and verdict.complies and not verdict.failed for verdict in right)
    others = [*sums[1:], sums[0]]
    assert all(answer(a) != answer(b) for a, b in zip(sums, others, strict=True))
    wrong = grader.grade(sums, [form.format(answer(problem)) for problem in others])
    assert not any(verdict.correct for verdict in wrong)
    assert all(verdict.complies for verdict in wrong)


def test_an_answer_outside_of_what_the_prompt_asks_for_is_none(sums):
    texts = ["1", "<answer>1", "1</answer>", "<answer> </answer>"]
    verdicts = ResponseGrader(SUMS, "gym-tags", workers=1).grade([sums[0]] * len(texts), texts)
    assert [(verdict.answer, verdict.complies) for verdict in verdicts] == [(None, False)] * 4


@pytest.mark.parametrize("spec", [SUMS, "reasoning_gym:coin_flip?size=150"])  # repeats questions
def test_examples_are_not_among_the_problems(spec):
    task = benchmarks.find(spec)
    problems = files.load(task, NOWHERE).problems
    prompt = task.prompt(base=True)
    examples = prompt.load_examples(NOWHERE)
    shown = {example.problem.question for example in examples}
    assert len(shown) == prompt.shots
    assert not shown & {problem.question for problem in problems}
    text = prompt.fill(problems[0], examples)
    assert text.endswith(f"{problems[0].question}\nAnswer:")
    assert all(f"Answer: {example.problem.gold}\n\n" in text for example in examples)


def test_a_dataset_with_too_few_questions_has_no_examples():
    few = "reasoning_gym:chain_sum?size=500&min_terms=2&max_terms=2&min_digits=1&max_digits=1"
    with pytest.raises(UserError, match="gym-line-zero-shot"):
        benchmarks.find(few).prompt(base=True).load_examples(NOWHERE)


def test_a_list_of_tasks_may_have_generated_ones_with_commas_in_brackets():
    spec = f'gsm8k,reasoning_gym:chain_sum?operators=["+","-"]&size=3,{SUMS}'
    tasks = [entry.task for entry in suites.find(spec).entries]
    assert [task.partition("?")[0] for task in tasks] == [*["reasoning_gym:chain_sum"] * 2, "gsm8k"]
    assert suites.find(spec).reads_files
    assert not suites.find(SUMS).reads_files


def test_a_name_that_is_spelled_in_two_ways_is_one_task():
    other = "reasoning_gym:chain_sum?seed=5&size=12"
    (first,), (second,) = (suites.find(spec).entries for spec in (SUMS, other))
    assert first == second
    with pytest.raises(UserError, match="twice"):
        suites.find(f"{SUMS},{other}")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (f"reasoning_gym:{gym.EVALUATING[1]}", "Python"),
        ("reasoning_gym:chain_sums", "chain_sum"),
        ("reasoning_gym:chain_sum?sizes=3", "size"),
        ("reasoning_gym:word_ladder", "same entries"),
        ("reasoning_gym:list_functions", "same entries"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(spec, reason):
    with pytest.raises(UserError, match=reason) as caught:
        files.load(benchmarks.find(spec), NOWHERE)
    assert caught.value.value.startswith(spec.partition("?")[0])
