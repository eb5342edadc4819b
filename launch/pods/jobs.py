"""What the programs of this folder share: the run to submit, and calls of command-line tools."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from launch import config_flags, program
from launch.points import finishing_file
from rlp.runtime.errors import UserError

NAME = flags.DEFINE_string("name", "", "name of the job or machine; '' = that of the workdir")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the commands, and run nothing")

UNTIL_FINISHED = r"""
# Runs a command, and forwards SIGTERM to it, so that it saves. Returns its status, or 75 if it
# succeeded without the file that a run writes at its end: the run must be resumed later.
until_finished() { # file, command...
  local finished=$1 asked='' child='' status=0
  shift
  trap 'asked=yes; if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null; fi' TERM
  "$@" &
  child=$!
  if [ -n "$asked" ]; then kill -TERM "$child"; fi
  while :; do
    wait "$child" && status=0 || status=$?
    kill -0 "$child" 2>/dev/null || break
  done
  if [ "$status" -ne 0 ]; then return "$status"; fi
  for _ in {1..60}; do # seconds; another host may still be writing it
    if [ -e "$finished" ]; then return 0; fi
    if [ -n "$asked" ]; then break; fi
    sleep 1
  done
  return 75
}
"""


@dataclass(frozen=True)
class Job:
    """A run to submit to other machines.

    Attributes:
      name: name of the job.
      words: its command.
      workdir: folder of the run, as those machines see it.
      finished: the file that the run writes at its end.
      needs: files that must exist before it starts: those of other runs.
      log: file for its output; None for stdout.
    """

    name: str
    words: Sequence[str]
    workdir: Path
    finished: Path
    needs: Sequence[Path] = ()
    log: Path | None = None


def job_of(arguments: Sequence[str], python: str) -> Job:
    """Return the run that is described by the arguments of `launch.train`, which follow --.

    Args:
      arguments: --config=…, --workdir=… and others.
      python: the Python interpreter on the other machines.

    Raises:
      UserError: --config or --workdir is missing, or a field of the config does not exist.
    """
    values = {}
    for flag in ("config", "workdir"):
        matches = [m[1] for a in arguments if (m := re.fullmatch(rf"--?{flag}=(.*)", a))]
        if len(matches) != 1:
            raise UserError(
                f"give the flags of launch.train after --, with --{flag}=… exactly once"
            )
        values[flag] = matches[0]
    program.check_output("workdir", values["workdir"])
    arms = "arms" in config_flags.describe(arguments).config
    workdir = Path(values["workdir"])
    words = [python, "-m", "launch.train", *arguments]
    return Job(NAME.value or workdir.name, words, workdir, finishing_file(workdir, arms))


def with_flag(words: Sequence[str], flag: str) -> list[str]:
    """Return a command with a flag appended, unless it already has the flag."""
    return [*words, *([] if flag in words else [flag])]


def check_tool(name: str) -> None:
    """Raise a UserError if a program is not installed, except with --dry_run."""
    if not DRY_RUN.value and shutil.which(name) is None:
        raise UserError(f"{name} is not installed here; --dry_run prints what it would receive")


def run_tool(words: Sequence[str], stdin: str = "") -> str:
    """Run a command-line tool of the cluster, or print the command with --dry_run.

    Args:
      words: the command.
      stdin: its standard input.

    Returns:
      Its standard output; "" with --dry_run.

    Raises:
      UserError: The tool is not installed, or fails; its own error message is printed before.
    """
    if DRY_RUN.value:
        print(shlex.join(words) + (f" <<'END'\n{stdin.rstrip()}\nEND" if stdin else ""))
        return ""
    check_tool(words[0])
    ran = subprocess.run(words, input=stdin or None, stdout=subprocess.PIPE, text=True, check=False)
    sys.stdout.write(ran.stdout)
    if ran.returncode:
        raise UserError(f"{shlex.join(words[:5])} … ended with status {ran.returncode}")
    return ran.stdout
