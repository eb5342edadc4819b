"""Config flags: what is accepted, what is refused and how, and how fast."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from configs import default
from launch import program
from rlp.runtime.config_json import fields
from rlp.runtime.errors import UserError
from tests.support.paths import ROOT

KNOWN = dict(fields(default.get_config()))
DEFAULT = "--config=configs/default.py"


def start(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python with the command in `folder`; its stderr also lists the modules it imports."""
    return subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def messages(stderr: str) -> list[str]:
    """The lines of stderr that are not about imports."""
    return [line for line in stderr.splitlines() if not line.startswith("import time:")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.rlp.groop_size=16"], r"'rlp\.groop_size'; did you mean rlp\.group_size\?"),
        (["--config.group_size", "16"], r"'group_size'; did you mean rlp\.group_size\?"),
        (["--config.steps=many"], r"--config\.steps must be a whole number; 'many' is not"),
        (["--workdri=x"], r"'workdri'.*workdir"),
        (["config.steps=3"], r"unexpected argument 'config\.steps=3'"),
        (["--config=configs/text.py"], r"--config is given 2 times"),
        (["--workdir=gs://bucket/run"], r"--workdir=gs://bucket/run: a workdir is a folder"),
    ],
)
def test_a_bad_flag_gets_one_line_before_any_work(tmp_path, arguments, message):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    ran = start("-m", "launch.train", DEFAULT, "--workdir=run", *arguments, folder=tmp_path)
    assert ran.returncode == 2
    assert ran.stdout == ""
    (line,) = messages(ran.stderr)
    assert line.startswith("error: ")
    assert re.search(message, line)
    assert not re.search(r"\| +jax\b", ran.stderr)  # which takes seconds to import
    assert re.search(r"\| +ml_collections\b", ran.stderr)  # the list of imports is there
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("missing", ["config", "workdir"])
def test_a_missing_flag_is_named(tmp_path, missing):
    given = {"config": f"--config={ROOT}/configs/default.py", "workdir": "--workdir=run"}
    del given[missing]
    ran = start("-m", "launch.train", *given.values(), folder=tmp_path)
    assert (ran.returncode, messages(ran.stderr)) == (2, [f"error: --{missing} is missing"])


PROGRAM = """
from launch import program
from rlp.runtime.errors import UserError
_CONFIG = program.define_config()
def main(arguments):
    print({result})
if __name__ == "__main__":
    program.run(main, most_arguments=None)
"""


def test_overrides_reach_the_program(tmp_path):
    result = "arguments, _CONFIG.value.to_json_best_effort()"
    (tmp_path / "show.py").write_text(PROGRAM.format(result=result))
    flags = [
        "--config.rlp.group_size=3",
        "--config.optimizer.learning_rate=1e-4",
        "--config.optimizer.clip_norm=2",  # a whole number for a field of floats
        "--config.model.tie_embeddings=false",
        "--noconfig.data.pack",
        "--config.data.train",
        "a b=c",
    ]
    ran = start("show.py", f"--config={ROOT}/configs/default.py", *flags, "x", folder=tmp_path)
    config = default.get_config()
    config.rlp.group_size = 3
    config.optimizer.learning_rate = 1e-4
    config.optimizer.clip_norm = 2.0
    config.model.tie_embeddings = False
    config.data.pack = False
    config.data.train = "a b=c"
    assert ran.stdout == f"['x'] {config.to_json_best_effort()}\n"


def test_an_error_of_the_user_inside_a_program_is_one_line(tmp_path):
    (tmp_path / "show.py").write_text(
        PROGRAM.format(result="exec('raise UserError(\"first\\\\n  second\")')")
    )
    ran = start("show.py", f"--config={ROOT}/configs/default.py", folder=tmp_path)
    assert (ran.returncode, messages(ran.stderr)) == (2, ["error: first second"])


def test_any_other_error_keeps_its_traceback(tmp_path):
    (tmp_path / "show.py").write_text(PROGRAM.format(result="1 / 0"))
    ran = start("show.py", f"--config={ROOT}/configs/default.py", folder=tmp_path)
    assert ran.returncode == 1
    assert "Traceback" in ran.stderr
    assert messages(ran.stderr)[-1].startswith("ZeroDivisionError")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.steps=1.0", "whole number"),
        ("--config.steps=1e3", "whole number"),
        ("--config.steps=", "whole number"),
        ("--config.steps", "whole number"),
        ("--noconfig.steps", "write --config.steps=VALUE"),
        ("--config.optimizer.learning_rate=fast", "finite number"),
        ("--config.optimizer.learning_rate=nan", "finite number"),
        ("--config.optimizer.learning_rate=-inf", "finite number"),
        ("--config.data.pack=maybe", "true or false"),
        ("--config.rlp={}", "rlp is a group of fields"),
        ("--config.steps.more=1", "no field 'steps.more'"),
        ("--config.=1", "no field ''"),
        ("-config.stepz=1", "did you mean steps?"),
    ],
)
def test_a_wrong_value_or_name_is_refused(argument, message):
    with pytest.raises(UserError, match=re.escape(message)):
        program.check_config_flags([f"--config={ROOT}/configs/default.py", argument])


@given(st.sampled_from(sorted(KNOWN)), st.data())
def test_one_slip_of_the_finger_never_hides_the_field_that_was_meant(field, data):
    group, dot, name = field.rpartition(".")
    at = data.draw(st.integers(0, len(name) - 1))
    before, letter, after = name[:at], name[at], name[at + 1 :]
    slips = [
        f"{before}{after}",  # left out
        f"{before}{letter}q{after}",  # one too many
        f"{before}q{after}",  # another
        f"{before}{after[:1]}{letter}{after[1:]}",  # swapped
    ]
    path = group + dot + data.draw(st.sampled_from(slips))
    assume(path not in KNOWN)
    assert field in program.nearest_fields(path, KNOWN)


@given(st.sampled_from(sorted(KNOWN)), st.sampled_from(["", "model.", "rlp.", "no_such_group."]))
def test_a_right_name_under_a_wrong_group_is_found(field, group):
    name = field.rpartition(".")[2]
    path = group + name
    if path not in KNOWN:
        nearest = program.nearest_fields(path, KNOWN)
        assert nearest
        assert {other.rpartition(".")[2] for other in nearest} == {name}


def test_a_name_like_no_other_gets_the_list_of_its_group():
    message = program.unknown_field("mesh.xyzzy", KNOWN)
    assert message == "the config has no field 'mesh.xyzzy'; mesh has data, fsdp, tensor"


BEGIN = "def get_config():\n    c = default.get_config()\n"
HEAD = "from configs import default\nfrom ml_collections import ConfigDict\n"


@pytest.mark.parametrize(
    ("content", "argument", "message"),
    [
        ("def get_config(:", "", "line 3: SyntaxError"),
        ("import nothing_of_this_name", "", "line 3: ModuleNotFoundError"),
        ("config = 3", "", "has no function get_config"),
        ("def get_config():\n    return 3", "", "returns no ConfigDict but int"),
        ("def get_config():\n    return 3", ":bad", "takes no argument, but 'bad' was given"),
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
            "lacks steps",
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
        program.check_config_flags([f"--config={path}{argument}"])
    assert "\n" not in str(caught.value)


def test_a_missing_config_file_is_refused_with_one_that_is_there(tmp_path):
    (tmp_path / "demo.py").touch()
    with pytest.raises(UserError, match=r"no config file '.*dem\.py'; did you mean .*demo\.py\?"):
        program.check_config_flags(["--config", str(tmp_path / "dem.py")])


HELPERS = {f"{ROOT}/configs/{name}.py" for name in ("sweeps", "chains")}
CONFIGS = {str(p) for p in (ROOT / "configs").glob("*.py")} - HELPERS


@pytest.mark.parametrize("path", sorted(CONFIGS))
def test_every_config_of_the_project_is_accepted(path):
    program.check_config_flags([f"--config={path}", "--config.seed=7"])
