"""Points of a sweep as shell commands that note when they begin and end."""

from launch import local
from launch.points import Point


def make(folder, needs=None):
    """Points by name, each with those that it needs."""
    needs = {"a": [], "b": [], "c": ["a"], "d": ["c"], "e": []} if needs is None else needs
    return [Point(name, None, {}, folder / name, list(before)) for name, before in needs.items()]


def run(folder, points, bodies=None, max_parallel=1):
    """Runs points as shell commands that note when they begin and end."""
    commands = {
        point.name: shell(folder, point, (bodies or {}).get(point.name)) for point in points
    }
    return local.run_points(points, commands, folder / "logs", max_parallel, "test")


def shell(folder, point, body=None):
    """Notes "+name", does `body` (by default what a run does that ends well), notes "-name"."""
    well = f"mkdir -p {point.folder}; echo {{}} > {point.finished_by}"
    note = lambda sign: f"printf '%s\\n' {sign}{point.name} >>{folder}/notes"
    return ["bash", "-c", f"{note('+')}; {body or well}; status=$?; {note('-')}; exit $status"]
