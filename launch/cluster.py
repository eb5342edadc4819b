"""Submit the points of a sweep to SLURM or Google Kubernetes Engine."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from launch.pods import gke, jobs, slurm
from launch.pods.jobs import Job
from launch.points import Point
from rlp.runtime import run_folder
from rlp.runtime.errors import UserError


def submit_slurm(
    points: Sequence[Point], commands: Mapping[str, Sequence[str]], workdir: Path, at_once: int
) -> None:
    """Submit the unfinished points as job arrays: first those that need no other point, then those
    that need a point of the first array, and so on.

    Args:
      points: each after those that it needs.
      commands: the command of every point.
      workdir: folder of the sweep.
      at_once: maximum number of points that run at a time; 0 for no limit.

    Raises:
      UserError: sbatch is not installed, or fails.
    """
    after = ""
    for number, level in enumerate(_levels(points)):
        runs = [_job(point, points, commands, workdir) for point in level]
        name = f"{jobs.NAME.value or workdir.name}-{number}"
        after = slurm.submit(runs, name, workdir, after, at_once)
        print(f"# {after}: {', '.join(run.name for run in runs)}")


def submit_gke(
    points: Sequence[Point], commands: Mapping[str, Sequence[str]], workdir: Path, at_once: int
) -> None:
    """Submit the unfinished points that need no unfinished point.

    Raises:
      UserError: `at_once` is set, which GKE does not support, or kubectl fails.
    """
    if at_once:
        raise UserError(
            "--max_parallel is not supported on GKE; a queue there limits parallel jobs"
        )
    by_name = {point.name: point for point in points}
    waiting = []
    for point in points:
        if point.finished:
            continue
        if all(by_name[name].finished for name in point.needs):
            gke.submit(_job(point, points, commands, workdir))
        else:
            waiting.append(point.name)
    if waiting:
        print(
            f"# waiting for other points; submit later with the same command: {', '.join(waiting)}"
        )


def _levels(points: Iterable[Point]) -> list[list[Point]]:
    """Return the unfinished points by depth, the length of the chain before them."""
    depth: dict[str, int] = {}
    levels: list[list[Point]] = []
    for point in points:
        if not point.finished:
            depth[point.name] = 1 + max((depth.get(name, -1) for name in point.needs), default=-1)
            levels += [[]] if depth[point.name] == len(levels) else []
            levels[depth[point.name]].append(point)
    return levels


def _job(
    point: Point, points: Sequence[Point], commands: Mapping[str, Sequence[str]], workdir: Path
) -> Job:
    needs = [other.finished_by for other in points if other.name in point.needs]
    return Job(
        f"{jobs.NAME.value or workdir.name}-{point.name}",
        commands[point.name],
        point.folder,
        point.finished_by,
        needs,
        workdir / run_folder.LOGS / f"{point.name}.log",
    )
