"""Config flags: accepted and refused values, error messages, and fast starts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs import default
from launch import config_flags
from rlp.runtime.errors import UserError
from tests.support.paths import ROOT

DEFAULT = "--config=configs/default.py"


def start(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with the command in `folder`; its stderr also lists the imported modules."""
    return subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def messages(stderr: str) -> list[str]:
    """Return the lines of stderr that are not about imports."""
    return [line for line in stderr.splitlines() if not line.startswith("import time:")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.rlp.groop_size=16"], r"'rlp\.groop_size'; did you mean rlp\.group_size\?"),
        (["--config.group_size", "16"], r"'group_size'; did you mean rlp\.group_size\?"),
        (["--config.steps=many"], r"--config\.steps must be an integer; 'many' is not"),
        (["--workdri=x"], r"'workdri'.*workdir"),
        (["config.steps=3"], r"unexpected argument 'config\.steps=3'"),
        (["--config=configs/text.py"], r"--config is given 2 times"),
        (["--workdir=gs://bucket/run"], r"--workdir=gs://bucket/run: a workdir must be a folder"),
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
    assert not re.search(r"\| +jax\b", ran.stderr)  # importing jax takes seconds
    assert re.search(r"\| +ml_collections\b", ran.stderr)  # the list of imports was printed
    assert not (tmp_path / "run").exists()


def test_a_config_is_printed_at_once_and_without_a_workdir(tmp_path):
    arguments = ["--config.rlp.group_size=3", "--print_config"]
    config = f"--config={ROOT}/configs/text.py:rlp"
    ran = start("-m", "launch.train", config, *arguments, folder=tmp_path)
    assert (ran.returncode, messages(ran.stderr)) == (0, [])
    assert "config.rlp.group_size = 3  # [default: 16] G: thoughts per fork" in ran.stdout
    assert not re.search(r"\| +jax\b", ran.stderr)
    (tmp_path / "printed.py").write_text(ran.stdout)
    again = start(
        "-m", "launch.train", "--config=printed.py", "--print_config", folder=tmp_path
    ).stdout
    assert again.splitlines()[1:] == ran.stdout.splitlines()[1:]  # the first names the file


@pytest.mark.parametrize("missing", ["config", "workdir"])
def test_a_missing_flag_is_named(tmp_path, missing):
    given = {"config": f"--config={ROOT}/configs/default.py", "workdir": "--workdir=run"}
    del given[missing]
    ran = start("-m", "launch.train", *given.values(), folder=tmp_path)
    assert (ran.returncode, messages(ran.stderr)) == (2, [f"error: --{missing} is missing"])


PROGRAM = """
from launch import config_flags, program
from rlp.runtime.errors import UserError
_CONFIG = config_flags.define()
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
        "--config.optimizer.clip_norm=2",  # an int for a float field
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
        ("--config.steps=1.0", "an integer"),
        ("--config.steps=1e3", "an integer"),
        ("--config.steps=", "an integer"),
        ("--config.steps", "an integer"),
        ("--noconfig.steps", "use --config.steps=VALUE; the value must be an integer"),
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
        config_flags.describe([f"--config={ROOT}/configs/default.py", argument])


HELPERS = {f"{ROOT}/configs/{name}.py" for name in ("sweeps", "chains", "fields")}
CONFIGS = {str(p) for p in (ROOT / "configs").glob("[!_]*.py")} - HELPERS


@pytest.mark.parametrize("path", sorted(CONFIGS))
def test_every_config_of_the_project_is_accepted(path):
    config_flags.describe([f"--config={path}", "--config.seed=7"])


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("1e-3", 1e-3), ("true", True), ("False", False), ("mine", "mine")],
)
def test_an_option_of_an_objective_has_the_type_that_its_text_has(text, value):
    config = f"--config={ROOT}/configs/default.py"
    described = config_flags.describe([config, f"--config.objective_options.some={text}"])
    found = described.config.objective_options.some
    assert (found, type(found)) == (value, type(value))


def test_what_sets_no_field_is_left_for_the_other_flags():
    config = f"--config={ROOT}/configs/default.py"
    fields = ["--config.steps", "3", "--noconfig.data.pack", "--config.model.qkv_bias"]
    described = config_flags.describe(["--workdir", "a", config, *fields, "--", "b"])
    assert described.others == ["--workdir", "a", config, "--", "b"]
    assert described.values == {"steps": 3, "data.pack": False, "model.qkv_bias": True}
    with pytest.raises(AttributeError):  # a misspelled field of a locked config
        described.config.stepz = 3
