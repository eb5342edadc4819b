r"""Run launch.train on a GPU cluster with SLURM: one process per GPU, requeued until finished.

    python -m launch.pods.slurm --nodes=2 --gpus_per_node=8 \
        --sbatch='--partition=gpu --time=8:00:00' \
        -- --config=configs/qwen3_1p7b_rlp.py --workdir=/shared/runs/qwen …

The workdir and this folder must be visible on all nodes. Five minutes before the time limit, and
when the job is preempted, the run saves its state; the job is then requeued and resumes.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from launch import program
from launch.pods import jobs
from launch.pods.jobs import Job
from rlp.runtime import run_folder
from rlp.runtime.errors import UserError

_NODES = flags.DEFINE_integer("nodes", 1, "number of nodes of a run", lower_bound=1)
_GPUS = flags.DEFINE_integer(
    "gpus_per_node", 0, "GPUs per node, with one process each; 0 = CPU only", lower_bound=0
)
_SBATCH = flags.DEFINE_string(
    "sbatch", "", "additional options of sbatch: '--partition=gpu --time=8:00:00'"
)
flags.adopt_module_key_flags(jobs)

_SECONDS_TO_SAVE = 300
_SCRIPT = r"""#!/bin/bash
# Written by {program}; submitted with sbatch.
set -euo pipefail
cd {folder}
{until_finished}
run() {{ # name, log, file that the run writes at its end, command...
  local name=$1 log=$2 finished=$3 status=0
  shift 3
  if [ -n "$log" ]; then exec >>"$log" 2>&1; fi
  echo "job $SLURM_JOB_ID: $name"
  # SLURM signals the processes of srun itself; srun would kill them on a signal of ours.
  until_finished "$finished" deaf srun --kill-on-bad-exit=1 "$@" || status=$?
  if [ "$status" -eq 75 ]; then
    echo "saved before its end; requeued"
    scontrol requeue "$SLURM_JOB_ID"
    status=0
  fi
  exit "$status"
}}
deaf() {{ # command...
  trap '' TERM
  "$@"
}}
need() {{ # file that another run writes at its end
  if [ ! -e "$1" ]; then
    echo "error: $1 is missing; finish the run that this one starts from" >&2
    exit 1
  fi
}}

{body}
"""


def main(arguments: Sequence[str]) -> None:
    """Submit a run."""
    run = jobs.job_of(arguments, sys.executable)
    submit([run], run.name, run.workdir.parent)


def submit(runs: Sequence[Job], name: str, folder: Path, after: str = "", at_once: int = 0) -> str:
    """Submit runs as one job, a job array if there are several.

    Args:
      runs: the runs.
      name: name of the job.
      folder: the output of the job goes to slurm/ in this folder.
      after: id of a job that must end first; "" for none.
      at_once: maximum number of runs at a time; 0 for no limit.

    Returns:
      The id of the job; a placeholder with --dry_run, which prints script and command.

    Raises:
      UserError: sbatch is not installed, or fails.
    """
    options = [f"--job-name={name}", f"--output={folder}/slurm/%j.log"]
    options += sbatch_options(len(runs), after, at_once)
    jobs.check_tool("sbatch")
    if not jobs.DRY_RUN.value:
        for path in [folder / run_folder.SLURM, *(run.log.parent for run in runs if run.log)]:
            path.mkdir(parents=True, exist_ok=True)
    shown = jobs.run_tool(["sbatch", "--parsable", *options], job_script(runs))
    return shown.strip().split(";")[0] if shown else f"ID_OF_{name}"


def sbatch_options(count: int, after: str, at_once: int) -> list[str]:
    """Return the options of sbatch; those of --sbatch come last and take precedence."""
    tasks = max(1, _GPUS.value)
    options = [f"--nodes={_NODES.value}", f"--ntasks-per-node={tasks}"]
    options += ["--requeue", "--open-mode=append", f"--signal=TERM@{_SECONDS_TO_SAVE}"]
    if _GPUS.value:
        options.append(f"--gpus-per-node={_GPUS.value}")
    if count > 1:
        options.append(f"--array=0-{count - 1}" + (f"%{at_once}" if at_once else ""))
    if after:
        options.append(f"--dependency=afterany:{after}")
    return options + _split(_SBATCH.value)


def job_script(runs: Sequence[Job]) -> str:
    """Return the script of a job, in which every value is quoted."""
    multihost = _NODES.value * max(1, _GPUS.value) > 1
    lines = [_lines(run, multihost) for run in runs]
    body = "\n".join(lines[0])
    if len(runs) > 1:
        cases = [
            f"{number})\n" + "".join(f"  {line}\n" for line in some) + "  ;;"
            for number, some in enumerate(lines)
        ]
        body = "\n".join(['case "$SLURM_ARRAY_TASK_ID" in', *cases, "esac"])
    return _SCRIPT.format(
        program="launch.pods.slurm",
        folder=shlex.quote(str(Path.cwd())),
        until_finished=jobs.UNTIL_FINISHED,
        body=body,
    )


def _lines(run: Job, multihost: bool) -> list[str]:
    words = jobs.with_flag(run.words, "--multihost") if multihost else run.words
    log = "" if run.log is None else str(run.log)
    needs = [f"need {shlex.quote(str(path))}" for path in run.needs]
    return [*needs, shlex.join(["run", run.name, log, str(run.finished), *words])]


def _split(options: str) -> list[str]:
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise UserError(f"--sbatch={options!r}: {error}") from error
    if values := [word for word in words if not re.match("-", word)]:
        raise UserError(f"--sbatch: {values[0]!r} is not an option; write --option=value")
    return words


if __name__ == "__main__":
    program.run(main, most_arguments=None)
