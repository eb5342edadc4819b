"""Objects are recorded by a name that another process can import, or refused."""

import importlib
import json
import subprocess
import sys
from types import ModuleType

import pytest

from rlp.objectives import Objective, rewards
from rlp.run.named_objects import name_of
from rlp.runtime.errors import UserError
from tests.support import easy_verifiers
from tests.support.bad_verifiers import number


def local(response: str, answer: str) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (json.dumps, "json:dumps"),
        (number, "tests.support.bad_verifiers:number"),
        (easy_verifiers.ANYTHING, "tests.support.easy_verifiers:ANYTHING"),
        (Objective, "rlp.objectives.record:Objective"),
    ],
)
def test_a_name_leads_back_to_its_object(value, name):
    assert name_of("objective", value) == name
    module, _, attribute = name.partition(":")
    assert getattr(importlib.import_module(module), attribute) is value


def unnamed():
    def inner(response: str, answer: str) -> float:
        return 1.0

    return inner


class Holder:
    @staticmethod
    def method(response: str, answer: str) -> float:
        return 1.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda response, answer: 1.0, "objective is a lambda"),
        (unnamed(), "objective is the local function 'inner'"),
        (
            Objective("", "", rewards.gain),
            "objective is an object of type Objective that",
        ),
        (Holder.method, "objective is an object of type function that"),
        (["some", "texts"], "objective is an object of type list that is not a"),
    ],
    ids=["lambda", "local", "record", "method", "list"],
)
def test_what_no_other_process_could_import_is_refused_with_the_cure(value, message):
    with pytest.raises(UserError) as caught:
        name_of("objective", value)
    assert str(caught.value).startswith(message)
    assert "define it in a module" in str(caught.value)


def test_what_a_notebook_defines_is_refused(monkeypatch):
    notebook = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    exec("def reward(response, answer): return 1.0\ntexts = ['a', 'b']", notebook.__dict__)
    for value in (notebook.reward, notebook.texts):
        with pytest.raises(UserError, match="is defined in the notebook or script itself"):
            name_of("data", value)


def test_what_a_notebook_imports_has_the_name_of_its_module(monkeypatch):
    notebook = ModuleType("__main__")
    notebook.ANYTHING = easy_verifiers.ANYTHING
    for name in ("__mp_main__", "__main__"):  # multiprocessing uses the former
        monkeypatch.setitem(sys.modules, name, notebook)
    name = name_of("data.problems.verifier", easy_verifiers.ANYTHING)
    assert name == "tests.support.easy_verifiers:ANYTHING"


def test_a_module_without_a_file_is_refused(monkeypatch):
    made = ModuleType("made_up")
    exec("def reward(response, answer): return 1.0", made.__dict__)
    monkeypatch.setitem(sys.modules, "made_up", made)
    with pytest.raises(UserError, match="in the module 'made_up', which has no file"):
        name_of("objective", made.reward)


def test_importing_the_package_brings_nothing_and_its_names_are_there():
    code = """
import sys, rlp
heavy = {"jax", "numpy", "ml_collections", "matplotlib", "transformers"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
names = set(dir(rlp))
for name in rlp.__all__:
    assert name in names
    assert getattr(rlp, name).__module__.startswith("rlp.run"), name
try:
    rlp.nothing
except AttributeError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "module 'rlp' has no attribute 'nothing'\n"), (
        ran.stderr
    )
