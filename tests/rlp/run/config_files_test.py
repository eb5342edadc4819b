"""Configs loaded from files and changed by overrides."""

import re
import subprocess
import sys

import pytest

from configs import default, demo
from rlp.run import config_files
from rlp.runtime.config_json import fields
from rlp.runtime.errors import UserError
from tests.support.paths import ROOT

BEGIN = "def get_config():\n    c = default.get_config()\n"
HEAD = "from configs import default\nfrom ml_collections import ConfigDict\n"


@pytest.mark.parametrize(
    ("content", "argument", "message"),
    [
        ("def get_config(:", "", "line 3: SyntaxError"),
        ("import nothing_of_this_name", "", "line 3: ModuleNotFoundError"),
        ("config = 3", "", "has no function get_config"),
        ("def get_config():\n    return 3", "", "must return a ConfigDict, not int"),
        ("def get_config():\n    return 3", ":bad", "not take an argument, but 'bad' was given"),
        ("def get_config(size):\n    return 3", "", "needs an argument"),
        (
            "def get_config(size):\n    if size != 'big':\n        raise ValueError('only big')",
            ":bad",
            "line 5 for 'bad': ValueError: only big",
        ),
        (
            BEGIN + "    c.rlp.groop_size = 3\n    return c",
            "",
            "no field 'rlp.groop_size'; did you mean rlp.group_size?",
        ),
        (
            BEGIN + "    c.steps = 'many'\n    return c",
            "",
            "line 5: TypeError",
        ),
        (
            BEGIN + "    c.arms = ConfigDict({'a': {'stepz': 3}})\n    return c",
            "",
            "no field 'stepz'; did you mean steps?",
        ),
        (
            BEGIN + "    del c.steps\n    return c",
            "",
            "lacks the field steps",
        ),
        (
            BEGIN + "    c.data.kinds = [1]\n    return c",
            "",
            "data.kinds is a list",
        ),
    ],
)
def test_a_broken_config_file_is_refused_with_its_line(tmp_path, content, argument, message):
    path = tmp_path / "broken.py"
    path.write_text(HEAD + content + "\n")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        config_files.load(f"{path}{argument}")
    assert "\n" not in str(caught.value)


def test_a_missing_config_file_is_refused_with_one_that_is_there(tmp_path):
    (tmp_path / "demo.py").touch()
    message = r"the config file '.*dem\.py' does not exist; did you mean .*demo\.py\?"
    with pytest.raises(UserError, match=message):
        config_files.load(str(tmp_path / "dem.py"))


def test_a_config_of_this_repository_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.load("configs/text.py:rlp").objective == "rlp"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "text.py").write_text(
        "def get_config():\n    raise ValueError('own')\n"
    )
    with pytest.raises(UserError, match="own"):
        config_files.load("configs/text.py")


def test_a_notebook_makes_a_config_without_jax():
    code = """
import sys
from rlp.run import config_files
config = config_files.override(config_files.load("configs/text.py:rlp"), {"rlp.group_size": 4})
print(config.rlp.group_size, config.objective, "jax" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ran.stdout, ran.returncode) == ("4 rlp False\n", 0), ran.stderr


def test_an_override_changes_a_copy_and_keeps_the_type_of_the_field():
    config = default.get_config()
    before = config.to_json()
    changed = config_files.override(config, {"optimizer.clip_norm": 2, "data.pack": False})
    assert config.to_json() == before
    assert type(changed.optimizer.clip_norm) is float
    different = dict(set(fields(changed)) - set(fields(config)))
    assert different == {"optimizer.clip_norm": 2.0, "data.pack": False}


@pytest.mark.parametrize(
    ("path", "value", "cure"),
    [
        ("rlp.groop_size", 4, "did you mean rlp.group_size?"),
        ("rlp", {"group_size": 4}, "set them one by one: rlp."),
        ("steps", "many", "an integer"),
        ("steps", 2.0, "an integer"),
        ("steps", True, "an integer"),
        ("data.pack", 1, "true or false"),
        ("rlp.temperature", float("nan"), "a finite number"),
        ("data.train", 3, "a string"),
    ],
)
def test_an_override_that_no_field_can_take_is_refused(path, value, cure):
    with pytest.raises(UserError, match=re.escape(cure)) as caught:
        config_files.override(default.get_config(), {path: value})
    assert caught.value.field == path


def test_an_override_of_an_experiment_reaches_an_arm_or_is_refused():
    config = demo.get_config()
    changed = config_files.override(config, {"seed": 7, "arms.rlp.steps": 3})
    assert (changed.seed, changed.arms.rlp.steps) == (7, 3)
    config.arms.base.init_from = "x"  # the other arms already set it
    with pytest.raises(UserError, match=r"set arms\..*init_from.* instead") as caught:
        config_files.override(config, {"init_from": "y"})
    assert caught.value.field == "init_from"


def test_options_of_an_objective_are_kept_for_it_to_check(tmp_path):
    """Options are not declared in `configs/default.py`; all other fields must be."""
    config = config_files.override(
        default.get_config(), {"objective_options.alpha": 2, "objective_options.rule": "a"}
    )
    assert config.objective_options.to_dict() == {"alpha": 2, "rule": "a"}
    again = config_files.override(config, {"objective_options.alpha": 3})
    assert again.objective_options.alpha == 3
    path = tmp_path / "some.py"
    options = "    c.objective_options = ConfigDict({'a': 1.5})\n    return c\n"
    path.write_text(HEAD + BEGIN + options)
    assert config_files.load(str(path)).objective_options.a == 1.5
    for path, value in (("objective_options.list", [1]), ("objective_option.alpha", 1)):
        with pytest.raises(UserError) as caught:
            config_files.override(config, {path: value})
        assert caught.value.field == path
