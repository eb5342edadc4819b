"""Disturb runs at random moments in random ways, and check that they end as if undisturbed:

    python -m tests.soak --kills=100

The soak test draws kinds of runs, moments and ways to disturb them. It starts the same command
again until the run finishes, and compares array bits, metrics and file names with an undisturbed
run. It prints a line for each disturbance and a table at the end. The exit status is 1 if a run did
not do what docs/failures.md promises.
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

_KILLS = flags.DEFINE_integer("kills", 100, "total number of disturbances", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "random seed")
_ONLY = flags.DEFINE_integer("only", None, "run only the case with this number")
_KINDS = flags.DEFINE_multi_enum("kind", list(KINDS), list(KINDS), "kinds of runs to draw from")
_WAYS = flags.DEFINE_multi_enum("way", list(WAYS), list(WAYS), "disturbances to draw from")
_FOLDER = flags.DEFINE_string("folder", None, "working directory; failed cases are kept there")
_MOUNTS = "SOAK_MOUNTS"  # environment variable of a process in its own mount namespace


def main(_: list[str]) -> None:
    """Run the cases, and exit with status 1 if one of them fails."""
    # A shell starts background processes with these signals ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    logging.set_verbosity(logging.WARNING)  # Orbax logs every file it reads
    warnings.filterwarnings("ignore", "Sharding info not provided")
    folder = Path(_FOLDER.value or tempfile.mkdtemp(prefix="soak-"))
    bench, table, start = Bench(folder, _MOUNTS in os.environ), Table(), time.monotonic()
    if not bench.disk:
        print("cannot mount a disk here: a limit on file sizes replaces the full disk")
    try:
        _run_cases(bench, table)
    except KeyboardInterrupt:  # the table shows the cases so far
        print("stopped", flush=True)
    bench.close()
    minutes = (time.monotonic() - start) / 60
    print(f"\n`{_command()}`, {table.tried} disturbances in {minutes:.0f} minutes\n\n{table}")
    if not table.failed:
        return shutil.rmtree(folder) if _FOLDER.value is None else None
    print("\nRepeat the failed cases by")
    for number in table.failed:
        print(f"    {_command(number)}")
    print(f"Their files are in {folder}")
    sys.exit(1)


def _run_cases(bench: Bench, table: Table) -> None:
    for number in itertools.count() if _ONLY.value is None else [_ONLY.value]:
        plan = Plan.drawn(_SEED.value, number, _KINDS.value, _WAYS.value)
        if _ONLY.value is None:
            plan.ways = plan.ways[: _KILLS.value - table.tried]
        table.add(*_run_case(bench, plan))
        if table.tried >= _KILLS.value:
            break


def _run_case(bench: Bench, plan: Plan) -> tuple[Plan, list[Disturbance], list[str]]:
    """Run a case and print its progress.

    Returns:
      The plan, its disturbances, and the faults found after the run has finished.
    """
    undisturbed = bench.undisturbed(plan.kind)
    print(
        f"{plan.number}: {plan.kind}, which takes {undisturbed.seconds:.1f} s undisturbed",
        flush=True,
    )
    disturbances, faults = [], []
    for result in bench.run(plan):
        if isinstance(result, Disturbance):
            disturbances.append(result)
            print(f"{plan.number}: {result}", flush=True)
        else:
            faults = result
    end = "like an undisturbed run" if not faults else f"WRONG: {'; '.join(faults)}"
    print(f"{plan.number}: started again, it finished {end}", flush=True)
    return plan, disturbances, faults


def _command(only: int | None = None) -> str:
    """Return the command line that repeats all cases, or only one of them."""
    lists = ((_KINDS, KINDS), (_WAYS, WAYS))
    choices = [
        f"--{flag.name}={x!r}" for flag, all_ in lists if flag.value != [*all_] for x in flag.value
    ]
    which = f"--kills={_KILLS.value}" if only is None else f"--only={only}"
    return " ".join(["python -m tests.soak", which, f"--seed={_SEED.value}", *choices])


def _enter_mount_namespace() -> None:
    """Restart this program in its own mount namespace, if the system allows it.

    There it can mount a small disk.
    """
    prefix = ["unshare", "--user", "--map-root-user", "--mount"]
    if _MOUNTS in os.environ or not shutil.which(prefix[0]):
        return
    if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
        command = [*prefix, sys.executable, "-m", "tests.soak", *sys.argv[1:]]
        os.execvpe(prefix[0], command, os.environ | {_MOUNTS: "1"})


if __name__ == "__main__":
    _enter_mount_namespace()
    app.run(main)
