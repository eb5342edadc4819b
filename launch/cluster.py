"""Hands the points of a sweep to a cluster: SLURM, or Google Kubernetes Engine."""

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
    """Submits the points that are not finished, in arrays: first those that need none of the
    others, then those that need one of the first, and so on.

    Args:
      points: each after those that it needs.
      commands: words of the command of every point.
      workdir: of the sweep.
      at_once: points at a time; 0 for as many as the cluster gives.

    Raises:
      UserError: sbatch is not here, or refuses.
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
    """Submits the points that are not finished and need none that is not.

    Raises:
      UserError: `at_once` is asked for, which is the cluster's to decide, or kubectl fails.
    """
    if at_once:
        raise UserError("--max_parallel does not reach GKE: a queue there limits what runs at once")
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
            f"# when what they need is finished, submit with the same command: {', '.join(waiting)}"
        )


def _levels(points: Iterable[Point]) -> list[list[Point]]:
    """The points that are not finished, by how many of them must come before."""
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
