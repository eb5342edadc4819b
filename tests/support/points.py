"""Points of a sweep as shell commands that record when they begin and end."""

from launch import local
from launch.points import Point


def make(folder, needs=None):
    """Return points, given the names of the points that each one needs."""
    needs = {"a": [], "b": [], "c": ["a"], "d": ["c"], "e": []} if needs is None else needs
    return [Point(name, None, {}, folder / name, list(before)) for name, before in needs.items()]


def run(folder, points, bodies=None, max_parallel=1):
    """Run points as shell commands that record when they begin and end."""
    commands = {
        point.name: shell(folder, point, (bodies or {}).get(point.name)) for point in points
    }
    return local.run_points(points, commands, folder / "logs", max_parallel, "test")


def shell(folder, point, body=None):
    """Return a command that records "+name", runs `body`, and records "-name".

    The default body does the same as a run that succeeds.
    """
    succeed = f"mkdir -p {point.folder}; echo {{}} > {point.finished_by}"
    record = lambda sign: f"printf '%s\\n' {sign}{point.name} >>{folder}/notes"
    script = f"{record('+')}; {body or succeed}; status=$?; {record('-')}; exit $status"
    return ["bash", "-c", script]
