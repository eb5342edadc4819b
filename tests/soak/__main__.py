"""Runs are stopped at random moments in random ways, and must end as if nothing had happened:

    python -m tests.soak --kills=100

Draws kinds of runs, moments and ways, starts the same command again until it ends, and compares
bits, figures and names of files with a run that was left alone. It prints a line for each
disturbance and a table at the end. The exit status is 1 if anything was not as promised.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from absl import app, flags, logging

from tests.soak.cases import Bench, Disturbance, Plan
from tests.soak.kinds import KINDS
from tests.soak.table import Table
from tests.soak.ways import WAYS

_KILLS = flags.DEFINE_integer("kills", 100, "disturbances in all", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of what is drawn")
_ONLY = flags.DEFINE_integer("only", None, "number of the one case to run")
_KINDS = flags.DEFINE_multi_enum("kind", list(KINDS), list(KINDS), "kinds of runs to draw from")
_WAYS = flags.DEFINE_multi_enum("way", list(WAYS), list(WAYS), "ways to draw from")
_FOLDER = flags.DEFINE_string("folder", None, "where it works; what went wrong stays there")
_MOUNTS = "SOAK_MOUNTS"  # set in a process that has mounts of its own


def main(_: list[str]) -> None:
    """Runs the cases, and exits with 1 if one of them went wrong."""
    # A shell that starts this in the background lets it, and so its programs, ignore these.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    logging.set_verbosity(logging.WARNING)  # Orbax tells every file it reads
    warnings.filterwarnings("ignore", "Sharding info not provided")
    folder = Path(_FOLDER.value or tempfile.mkdtemp(prefix="soak-"))
    bench, table, start = Bench(folder, _MOUNTS in os.environ), Table(), time.monotonic()
    if not bench.disk:
        print("no disk can be mounted here: instead of a full one, there is a limit on files")
    try:
        _run_cases(bench, table)
    except KeyboardInterrupt:  # the table shows what was done until then
        print("stopped", flush=True)
    bench.close()
    minutes = (time.monotonic() - start) / 60
    print(f"\n`{_command()}`, {table.tried} disturbances in {minutes:.0f} minutes\n\n{table}")
    if not table.wrong:
        return shutil.rmtree(folder) if _FOLDER.value is None else None
    print("\nWhat went wrong can be repeated by")
    for number in table.wrong:
        print(f"    {_command(number)}")
    print(f"and what it left is in {folder}")
    sys.exit(1)


def _run_cases(bench: Bench, table: Table) -> None:
    for number in itertools.count() if _ONLY.value is None else [_ONLY.value]:
        plan = Plan.drawn(_SEED.value, number, _KINDS.value, _WAYS.value)
        if _ONLY.value is None:
            plan.ways = plan.ways[: _KILLS.value - table.tried]
        table.add(*_carried_out(bench, plan))
        if table.tried >= _KILLS.value:
            break


def _carried_out(bench: Bench, plan: Plan) -> tuple[Plan, list[Disturbance], list[str]]:
    """The plan, what came of its disturbances, and what was wrong in the end; told on the way."""
    whole = bench.whole(plan.kind)
    print(f"{plan.number}: {plan.kind}, which takes {whole.seconds:.1f} s undisturbed", flush=True)
    done, faults = [], []
    for part in bench.run(plan):
        if isinstance(part, Disturbance):
            done.append(part)
            print(f"{plan.number}: {part}", flush=True)
        else:
            faults = part
    end = "as an undisturbed run ends" if not faults else f"WRONG: {'; '.join(faults)}"
    print(f"{plan.number}: started again, it ended {end}", flush=True)
    return plan, done, faults


def _command(only: int | None = None) -> str:
    """The command line that makes these cases, or one of them."""
    lists = ((_KINDS, KINDS), (_WAYS, WAYS))
    some = [
        f"--{flag.name}={x!r}" for flag, all_ in lists if flag.value != [*all_] for x in flag.value
    ]
    which = f"--kills={_KILLS.value}" if only is None else f"--only={only}"
    return " ".join(["python -m tests.soak", which, f"--seed={_SEED.value}", *some])


def _with_own_mounts() -> None:
    """Goes on as a process that may mount a small disk, where the system lets it."""
    words = ["unshare", "--user", "--map-root-user", "--mount"]
    if _MOUNTS in os.environ or not shutil.which(words[0]):
        return
    if subprocess.run([*words, "true"], capture_output=True).returncode == 0:
        command = [*words, sys.executable, "-m", "tests.soak", *sys.argv[1:]]
        os.execvpe(words[0], command, os.environ | {_MOUNTS: "1"})


if __name__ == "__main__":
    _with_own_mounts()
    app.run(main)
