"""What the programs of this folder share: the run to carry elsewhere, and how tools are called."""

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

NAME = flags.DEFINE_string(
    "name", "", "of the job or machine; that of the workdir if it is left out"
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "print what would run, and run nothing")

UNTIL_FINISHED = r"""
# Runs a command, and passes SIGTERM on to it, so that it saves. Gives its status, or 75 where it
# ended well before the file was there that a run leaves at its end: it is to go on another time.
until_finished() { # that file, command...
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
    """A run on its way to another machine.

    Attributes:
      name: of the job.
      words: its command.
      workdir: folder of the run, as those machines see it.
      finished: the file that is there when it has ended.
      needs: files that must be there before it starts: the ends of other runs.
      log: file to which it writes; None for its standard output.
    """

    name: str
    words: Sequence[str]
    workdir: Path
    finished: Path
    needs: Sequence[Path] = ()
    log: Path | None = None


def job_of(arguments: Sequence[str], python: str) -> Job:
    """The run that the arguments of `launch.train`, given behind --, describe.

    Args:
      arguments: such as --config=… and --workdir=….
      python: the interpreter there.

    Raises:
      UserError: they lack one of these, or set a field of the config that does not exist.
    """
    values = {}
    for flag in ("config", "workdir"):
        found = [m[1] for a in arguments if (m := re.fullmatch(rf"--?{flag}=(.*)", a))]
        if len(found) != 1:
            raise UserError(f"behind -- stand the flags of launch.train, among them one --{flag}=…")
        values[flag] = found[0]
    program.check_output("workdir", values["workdir"])
    arms = "arms" in config_flags.describe(arguments).config
    workdir = Path(values["workdir"])
    words = [python, "-m", "launch.train", *arguments]
    return Job(NAME.value or workdir.name, words, workdir, finishing_file(workdir, arms))


def with_flag(words: Sequence[str], flag: str) -> list[str]:
    """A command with a flag behind it, once."""
    return [*words, *([] if flag in words else [flag])]


def check_tool(name: str) -> None:
    """Refuses to go on without a program, unless nothing is to run."""
    if not DRY_RUN.value and shutil.which(name) is None:
        raise UserError(f"{name} is not installed here; --dry_run shows what it would be given")


def run_tool(words: Sequence[str], stdin: str = "") -> str:
    """Runs a tool of the cluster, or shows with --dry_run what it would be given.

    Args:
      words: of the command.
      stdin: what it reads.

    Returns:
      What it wrote; empty with --dry_run.

    Raises:
      UserError: it is not there, or it fails; what it says about that has then been shown.
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
