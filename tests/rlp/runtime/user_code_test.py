"""Errors in the user's code are one line that names the code, and the frames of that code only."""

import logging
import pickle
import re

import jax
import jax.numpy as jnp
import pytest

from rlp.answers.grading import Grader
from rlp.objectives import Outcome
from rlp.objectives.registry import find
from rlp.runtime.errors import UserCodeError, UserError

OBJECTIVE = """
from rlp.objectives import Objective, equations

def helper(outcome):
    return outcome.no_such_field

def reward(outcome):
    return helper(outcome)

MINE = Objective(formula="", source="", reward=reward)
OURS = Objective(formula="", source="", reward=len, advantages=equations.ADVANTAGES["standardized"])
"""
VERIFIER = """
from rlp.answers.verifiers import Verifier, whole_text

def equal(found, answer):
    return found[1000] == answer

MINE = Verifier(whole_text, equal)
"""


MEASURING = """
from rlp.metrics.watch import rule
from rlp.objectives import Metric, Objective

@rule("mine")
def wrong(past, settings):
    return past.no_such_field

MINE = Objective(
    formula="", source="", reward=len, warnings=(wrong,),
    metrics={Metric("mine", "Mine", "", ""): lambda outcome: outcome.no_such_field},
)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that writes a module of the user and returns its file."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, content):
        (tmp_path / f"{name}.py").write_text(content)
        return tmp_path / f"{name}.py"

    return write


def frames(error):
    """Return (file, function) of the frames that are shown."""
    return re.findall(r'File "(.*)", line \d+, in (.*)', error.frames)


def test_an_objective_that_raises_is_named_with_its_own_frames(module):
    file = str(module("mine_raises", OBJECTIVE))
    made = find("mine_raises:MINE")
    with pytest.raises(UserCodeError) as caught:
        jax.jit(lambda x: made.reward(x))(3)
    message = str(caught.value)
    assert message.startswith("reward of objective='mine_raises:MINE' raised AttributeError: ")
    assert "\n" not in message
    assert frames(caught.value) == [(file, "reward"), (file, "helper")]


def test_metrics_and_warnings_that_raise_are_named(module):
    file = str(module("mine_measures", MEASURING))
    made = find("mine_measures:MINE")
    ((metric, value),) = made.metrics.items()
    message = "of objective='mine_measures:MINE' raised AttributeError"
    with pytest.raises(UserCodeError, match=f"^metric 'mine' {message}") as caught:
        value(3)
    assert frames(caught.value) == [(file, "<lambda>")]
    with pytest.raises(UserCodeError, match=f"^warning 'wrong' {message}") as caught:
        made.warnings[0].judge(3, {})
    assert frames(caught.value) == [(file, "wrong")]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("None", "returns a NoneType instead of an array"),
        (
            "jnp.zeros(3)",
            r"returns an array of shape \[3\] instead of \[B, K, G\], which is \[2, 1, 3\] here",
        ),
    ],
)
def test_an_objective_that_returns_something_else_is_named(module, result, message):
    name = f"mine_gives_{len(result)}"
    reward = f"def reward(outcome):\n    return {result}\n"
    made = "MINE = Objective(formula='', source='', reward=reward, advantages=lambda r, c: r)\n"
    module(name, f"import jax.numpy as jnp\nfrom rlp.objectives import Objective\n{reward}{made}")
    outcome = Outcome(
        **dict.fromkeys(Outcome.__dataclass_fields__) | {"closed": jnp.ones((2, 1, 3))}
    )
    with pytest.raises(UserError, match=f"^reward of objective='{name}:MINE' {message}"):
        find(f"{name}:MINE").reward(outcome)
    assert find(f"{name}:MINE").advantages(outcome.closed, None).shape == (2, 1, 3)


def test_an_objective_is_one_object_and_keeps_what_is_ours(module):
    module("mine_ours", OBJECTIVE)
    made = find("mine_ours:OURS")
    assert made is find("mine_ours:OURS")
    assert made.advantages is find("rlpr").advantages


@pytest.mark.parametrize(
    ("content", "message", "functions"),
    [
        ("import not_there_at_all", "No module named 'not_there_at_all'", ["<module>"]),
        ("def f():\n    1 / 0\nf()", "ZeroDivisionError: division by zero", ["<module>", "f"]),
        ("def (:", "SyntaxError: ", []),
        ("import sys\nsys.exit(3)", "SystemExit: 3", ["<module>"]),
        ("", "has no attribute 'X'", []),
    ],
)
def test_a_module_that_cannot_be_imported_says_why(module, content, message, functions):
    name = f"mine_broken_{abs(hash(content))}"
    file = str(module(name, content))
    with pytest.raises(UserError, match=f"^objective='{name}:X' cannot be imported: ") as caught:
        find(f"{name}:X")
    assert message in str(caught.value)
    assert frames(caught.value) == [(file, function) for function in functions]


def test_a_module_from_elsewhere_is_logged_once(module, caplog):
    caplog.set_level(logging.INFO)
    file = module("mine_named", OBJECTIVE)
    for _ in range(2):
        find("mine_named:MINE")
    find("rlp")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"objective mine_named:MINE is imported from {file}"]


def test_a_verifier_that_raises_is_named_with_its_own_frames(module):
    file = str(module("mine_verifies", VERIFIER))
    grader = Grader("mine_verifies:MINE", time_limit=60, workers=1, close="</think>")
    with pytest.raises(UserCodeError) as caught:
        grader.grade(["a"], "b")
    assert str(caught.value).startswith(
        "data.problems.verifier='mine_verifies:MINE' raised IndexError: "
    )
    assert frames(caught.value) == [(file, "equal")]


def test_the_frames_survive_the_way_from_another_process():
    error = pickle.loads(pickle.dumps(UserCodeError("raised", "  File …\n")))
    assert (str(error), error.frames) == ("raised", "  File …\n")
