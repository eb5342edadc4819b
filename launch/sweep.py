"""Runs the points of a sweep: `sweep()` of a config file yields what tells them apart.

    python -m launch.sweep --config=configs/ablations.py:demo_rollouts --workdir=runs/rollouts
    python -m launch.sweep --config=… --workdir=… --launcher=print > commands.sh

Each point has a folder in the workdir that is named by the fields it sets, and runs there as
`launch.train` would run it. Finished points are skipped and unfinished ones resumed, so the same
command goes on where it was stopped; when all are finished it writes report.html over them.
"""

import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from launch import cluster, config_flags, local, program
from launch.pods import gke, jobs, slurm, tpu
from launch.points import Point, command, point_config, read_points, shell_line
from rlp import report
from rlp.runtime import disk_errors, ownership, run_folder, signals
from rlp.runtime.config_json import check_same, fields, load_config
from rlp.runtime.errors import UserError

_CONFIG = config_flags.define()
_WORKDIR = program.define_output("workdir", "folder of the sweep, with a folder for each point")
_LAUNCHER = flags.DEFINE_enum(
    "launcher",
    "local",
    ["local", "print", "slurm", "gke"],
    "where points run: on this machine, nowhere (their commands are printed), or on a cluster",
)
_MAX_PARALLEL = flags.DEFINE_integer(
    "max_parallel", 0, "points at a time; 0 = one here, as many as SLURM gives there", lower_bound=0
)
for _module in (jobs, slurm, gke, tpu):  # how the clusters are to run a point
    flags.adopt_module_key_flags(_module)


def main(arguments: Sequence[str]) -> None:
    """Runs or submits the points that are not finished; reports on those that are."""
    spec, config, workdir = _CONFIG.described.spec, _CONFIG.value, Path(_WORKDIR.value)
    for_all = list(_CONFIG.described.values)
    points = read_points(spec, config, for_all, workdir)
    ownership.refuse_foreign(workdir, "sweep")
    _check(points, config, for_all)
    python = gke.PYTHON if _LAUNCHER.value == "gke" else sys.executable
    commands = {point.name: command(point, spec, config, for_all, python) for point in points}
    left = [point for point in points if not point.finished]
    if _LAUNCHER.value == "print":
        for point in left:
            print(shell_line(point, points, commands[point.name]))
    elif _LAUNCHER.value == "local" and jobs.DRY_RUN.value:
        raise UserError("--dry_run is for clusters; --launcher=print shows what would run here")
    elif _LAUNCHER.value == "local":
        _begin(workdir)
        _run_here(points, commands, workdir)
    elif left:
        if _LAUNCHER.value == "slurm" and not jobs.DRY_RUN.value:
            _begin(workdir)  # GKE's folder need not be one of this machine
        submit = cluster.submit_slurm if _LAUNCHER.value == "slurm" else cluster.submit_gke
        submit(points, commands, workdir, _MAX_PARALLEL.value)
    else:
        _compare(points, workdir)


def _check(points: Sequence[Point], config: ConfigDict, for_all: Sequence[str]) -> None:
    """Refuses values that no run can use, and folders that hold runs of other configs, or what no
    run has made."""
    from rlp.interop import init_from  # here: they bring jax
    from rlp.run import checks, experiment
    from rlp.run.objective_options import with_options

    for point in points:
        own = point_config(config, point)
        saved = point.folder / run_folder.CONFIG
        try:
            ownership.refuse_foreign(point.folder, "experiment" if point.arms else "run")
            for arm in _arms(own):
                run = experiment.arm_config(own, arm, point.folder) if arm else own
                checks.check(dict(fields(run)))
            if saved.exists():
                now = (
                    own
                    if point.arms
                    else init_from.adopt(own, point.folder, [*for_all, *point.fields])
                )
                _check_same(load_config(saved), with_options(now))
        except UserError as error:
            raise error.within(str(point.folder)) from error


def _arms(config: ConfigDict) -> list[str]:
    """Names of the arms of an experiment; "" stands for a plain run."""
    return list(config.arms) if "arms" in config else [""]


def _check_same(saved: ConfigDict, now: ConfigDict) -> None:
    if changes := check_same(saved, now):
        raise UserError(
            f"holds a run of another config ({'; '.join(changes)}); take another --workdir, or "
            "move that folder away"
        )


def _begin(workdir: Path) -> None:
    """Makes the folder that of this sweep."""
    disk_errors.refuse_unwritable(workdir)
    with disk_errors.writing(workdir):
        ownership.claim(workdir, "sweep")


def _run_here(points: Sequence[Point], commands: dict[str, list[str]], workdir: Path) -> None:
    outcome = local.run_points(
        points, commands, workdir / run_folder.LOGS, _MAX_PARALLEL.value or 1, workdir.name
    )
    if outcome.left and not outcome.failed:
        left = len(outcome.left)
        print(f"stopped; {left} points are not finished: the same command resumes them")
        if outcome.stopped_by == signal.SIGINT:
            signals.die_at_exit(signal.SIGINT)  # a loop of a shell ends with it
        return
    _compare(points, workdir)
    if outcome.failed:
        for name, what in outcome.failed.items():
            print(f"error: {name} {what}; its log: {workdir}/logs/{name}.log", file=sys.stderr)
        sys.exit(1)


def _compare(points: Sequence[Point], workdir: Path) -> None:
    """Writes the report over the finished points, seeds together, and prints their table."""
    finished = [point for point in points if point.finished]
    if not finished:
        return
    sources = report.load_folders([point.folder for point in finished])
    pools: dict[str, list[report.Source]] = {}
    for point, source in zip(finished, sources, strict=True):
        pools.setdefault(point.label, []).append(source)
    groups = report.group_pools(pools)
    report.write_sources(sources, workdir / run_folder.REPORT, groups, workdir.name)
    summaries = {group.name: [run.summary for run in group.runs] for group in groups}
    print(report.terminal_table(summaries, shutil.get_terminal_size((110, 24)).columns))
    if len(finished) < len(points):
        print(f"\n{len(points) - len(finished)} of {len(points)} points are missing")
    print(f"\nreport: {workdir / run_folder.REPORT}")


if __name__ == "__main__":
    program.run(main)
