"""Check that programs accept command lines, by parsing their flags and building their config only.

    errors([(["launch.train", "--config=configs/demo.py", "--workdir=run"], folder)])

A server process imports the modules that the programs share, and forks for every command line. The
forked process runs the program until it has parsed its flags.
"""

import argparse
import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags

from tests.support.paths import ROOT

# This does not include the programs of launch and benchmarks, because each is run as `__main__`.
SHARED = ("launch.program", "launch.run_flags", "rlp.run.checks", "rlp.metrics.catalogue")
# Modules that are run; other modules only have to exist.
WITH_FLAGS = re.compile(r"(launch|benchmarks)\.|tests\.soak$")
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "SOAK_MOUNTS": "1"}


def errors(commands: Sequence[tuple[Sequence[str], Path]]) -> list[str]:
    """Return the error of each command; "" if its program accepts it.

    Args:
      commands: For each command the name of a module and its arguments, and the working directory,
        in which modules and config files are searched first.
    """
    request = json.dumps([(list(words), str(folder)) for words, folder in commands])
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.support.parsed_commands"],
        cwd=ROOT, input=request, capture_output=True, text=True, check=False,
        env=os.environ | ENVIRONMENT, timeout=400,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def _serve() -> None:
    for name in SHARED:
        importlib.import_module(name)
    print(json.dumps([_forked(words, folder) for words, folder in json.load(sys.stdin)]))


def _forked(words: list[str], folder: str) -> str:
    """Return the error of a command line, which is parsed in a forked process."""
    reading, writing = os.pipe()
    if not os.fork():
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(writing, 2)
        sys.stderr = os.fdopen(2, "w")
        os.chdir(folder)
        sys.path.insert(0, folder)
        _parse(words)
    os.close(writing)
    with os.fdopen(reading) as stderr:
        printed = stderr.read()
    _, status = os.wait()
    return "" if status == 0 else printed.strip() or f"wait status {status}"


def _parse(words: list[str]) -> NoReturn:
    """Run a program until it has parsed its flags, and end this process."""
    app.run = _parsed_by_absl
    argparse.ArgumentParser.parse_args = _then_end(argparse.ArgumentParser.parse_args)  # type: ignore[method-assign]
    sys.argv = list(words)
    status: Any = 0
    try:
        if importlib.util.find_spec(words[0]) is None:
            sys.exit(f"the module {words[0]} does not exist")
        if WITH_FLAGS.match(words[0]):
            runpy.run_module(words[0], run_name="__main__")
    except SystemExit as end:
        status = end.code or 0
    except BaseException:  # noqa: BLE001  it is printed, as Python does
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    sys.stderr.flush()
    os._exit(status)


def _then_end(parse: Callable[..., Any]) -> Callable[..., NoReturn]:
    def parse_and_end(*arguments: Any, **options: Any) -> NoReturn:
        parse(*arguments, **options)
        sys.exit(0)

    return parse_and_end


def _parsed_by_absl(
    main: Callable, argv: list[str] | None = None, flags_parser: Callable | None = None
) -> NoReturn:
    """Replace `absl.app.run`: parse the flags, and check their values."""
    from launch import config_flags

    (flags_parser or flags.FLAGS)(sys.argv)
    if sys.argv[0].startswith("launch.pods.") and "--" in sys.argv:
        _check_fields(config_flags.describe(sys.argv[sys.argv.index("--") + 1 :]))
    elif hasattr(config_flags._CONFIG, "described"):
        _check_fields(config_flags._CONFIG.described)
    if "figures" in flags.FLAGS:
        _check_metrics(flags.FLAGS["figures"].value)
    sys.exit(0)


def _check_fields(described: Any) -> None:
    """Raise UserError for values of flags that are invalid for their fields."""
    from rlp.run.checks import FIELDS
    from rlp.runtime.errors import UserError

    for path, value in described.values.items():
        field = FIELDS.get(path.split(".", 2)[2] if path.startswith("arms.") else path)
        if field and (problem := field.problem(value)):
            raise UserError.of(path, value, problem)


def _check_metrics(names: Sequence[str]) -> None:
    """Raise UserError for names of metrics that do not exist."""
    from rlp.metrics import catalogue
    from rlp.runtime.errors import UserError

    for name in names:
        if not {name, f"evaluation/{name}"} & {metric.key for metric in catalogue.CATALOGUE}:
            raise UserError(f"--figures={name}: this metric does not exist")


if __name__ == "__main__":
    _serve()
