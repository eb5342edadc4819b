"""Run a sweep: `sweep()` of a config file returns the fields of each point.

    python -m launch.sweep --config=configs/ablations.py:demo_rollouts --workdir=runs/rollouts
    python -m launch.sweep --config=… --workdir=… --launcher=print > commands.sh

Each point runs in a subfolder of the workdir that is named after its fields, like a run of
`launch.train`. The same command resumes a sweep: finished points are skipped, and unfinished ones
are resumed. The sweep ends with report.html over the finished points.
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
    "where points run: on this machine (local), on a cluster, or nowhere: print their commands",
)
_MAX_PARALLEL = flags.DEFINE_integer(
    "max_parallel",
    0,
    "maximum number of points at a time; 0 = one on this machine, no limit on SLURM",
    lower_bound=0,
)
for _module in (jobs, slurm, gke, tpu):  # the flags of the clusters
    flags.adopt_module_key_flags(_module)


def main(arguments: Sequence[str]) -> None:
    """Run or submit the unfinished points, and write a report over the finished ones."""
    spec, config, workdir = _CONFIG.described.spec, _CONFIG.value, Path(_WORKDIR.value)
    for_all = list(_CONFIG.described.values)
    points = read_points(spec, config, for_all, workdir)
    ownership.refuse_foreign(workdir, "sweep")
    _check(points, config, for_all)
    python = gke.PYTHON if _LAUNCHER.value == "gke" else sys.executable
    commands = {point.name: command(point, spec, config, for_all, python) for point in points}
    unfinished = [point for point in points if not point.finished]
    if _LAUNCHER.value == "print":
        for point in unfinished:
            print(shell_line(point, points, commands[point.name]))
    elif _LAUNCHER.value == "local" and jobs.DRY_RUN.value:
        raise UserError("--dry_run is for clusters; use --launcher=print for local commands")
    elif _LAUNCHER.value == "local":
        _begin(workdir)
        _run_here(points, commands, workdir)
    elif unfinished:
        if _LAUNCHER.value == "slurm" and not jobs.DRY_RUN.value:
            _begin(workdir)  # the folder of GKE may not be visible here
        submit = cluster.submit_slurm if _LAUNCHER.value == "slurm" else cluster.submit_gke
        submit(points, commands, workdir, _MAX_PARALLEL.value)
    else:
        _compare(points, workdir)


def _check(points: Sequence[Point], config: ConfigDict, for_all: Sequence[str]) -> None:
    """Raise a UserError for invalid values, and for folders with a run of another config or with
    foreign files."""
    from rlp.interop import init_from  # imports jax
    from rlp.run import checks, experiment
    from rlp.run.objective_options import with_options

    for point in points:
        whole = point_config(config, point)
        saved = point.folder / run_folder.CONFIG
        try:
            ownership.refuse_foreign(point.folder, "experiment" if point.arms else "run")
            for arm in _arms(whole):
                run = experiment.arm_config(whole, arm, point.folder) if arm else whole
                checks.check(dict(fields(run)))
            if saved.exists():
                now = (
                    whole
                    if point.arms
                    else init_from.adopt(whole, point.folder, [*for_all, *point.fields])
                )
                _check_same(load_config(saved), with_options(now))
        except UserError as error:
            raise error.within(str(point.folder)) from error


def _arms(config: ConfigDict) -> list[str]:
    """Return the names of the arms of an experiment; [""] for a single run."""
    return list(config.arms) if "arms" in config else [""]


def _check_same(saved: ConfigDict, now: ConfigDict) -> None:
    if changes := check_same(saved, now):
        raise UserError(
            f"contains a run of another config ({'; '.join(changes)}); use another --workdir, or "
            "move the folder away"
        )


def _begin(workdir: Path) -> None:
    """Create the folder of the sweep, and claim it."""
    disk_errors.refuse_unwritable(workdir)
    with disk_errors.writing(workdir):
        ownership.claim(workdir, "sweep")


def _run_here(points: Sequence[Point], commands: dict[str, list[str]], workdir: Path) -> None:
    outcome = local.run_points(
        points, commands, workdir / run_folder.LOGS, _MAX_PARALLEL.value or 1, workdir.name
    )
    if outcome.left and not outcome.failed:
        count = len(outcome.left)
        print(f"stopped; {count} points are not finished; the same command resumes them")
        if outcome.stopped_by == signal.SIGINT:
            signals.die_at_exit(signal.SIGINT)  # so that a shell loop ends too
        return
    _compare(points, workdir)
    if outcome.failed:
        for name, what in outcome.failed.items():
            print(f"error: {name} {what}; its log: {workdir}/logs/{name}.log", file=sys.stderr)
        sys.exit(1)


def _compare(points: Sequence[Point], workdir: Path) -> None:
    """Write the report over the finished points, grouped over seeds, and print the table."""
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
