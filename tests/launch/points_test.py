"""Points of a sweep: combinations, names, references, and the commands that run them."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import ablations, default, demo
from configs.sweeps import chain, product, zipit
from launch import config_flags, points
from rlp.run import config_files
from rlp.runtime.config_json import fields
from rlp.runtime.errors import UserError
from tests.support.paths import ROOT

LISTS = st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(), max_size=4), max_size=3)


def read(tmp_path, values, start=default.get_config, for_all=()):
    """Return the points of a config file whose sweep() yields these values."""
    path = tmp_path / "some.py"
    path.write_text(f"def sweep():\n    yield from {list(values)!r}\n")
    return points.read_points(str(path), start(), for_all, Path("runs"))


# Combinations.


@given(LISTS, st.lists(st.fixed_dictionaries({"d": st.integers()}), max_size=3))
def test_a_product_has_every_combination_once_in_order(lists, others):
    found = product(lists, others)
    count = len(others)
    for values in lists.values():
        count *= len(values)
    assert len(found) == count
    assert all(point.keys() == lists.keys() | {"d"} for point in found)
    for field, values in lists.items():
        if count:
            assert {point[field] for point in found} == set(values)
    assert found[: len(others)] == [found[0] | other for other in others] if found else True


@given(st.lists(st.tuples(st.integers(), st.text()), min_size=1))
def test_zipit_is_side_by_side_and_chain_one_after_the_other(pairs):
    a, b = ([pair[i] for pair in pairs] for i in (0, 1))
    side_by_side = [{"a": x, "b": y} for x, y in pairs]
    assert zipit({"a": a, "b": b}) == zipit({"a": a}, [{"b": y} for y in b]) == side_by_side
    assert chain(side_by_side, {"a": a, "c": 1}) == side_by_side + [{"a": x, "c": 1} for x in a]


def test_what_does_not_combine_is_refused():
    with pytest.raises(ValueError, match="a is set by two parts"):
        product({"a": [1]}, {"a": [2]})
    with pytest.raises(ValueError, match="parts and lists of the same length, not 2, 3"):
        zipit({"a": [1, 2]}, {"b": [1, 2, 3]})


# Names.

POINTS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 9),
        "rlp.horizon": st.integers(1, 9),
        "rlp.temperature": st.floats(0.1, 9),
        "data.pack": st.booleans(),
        "data.train": st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
        "data.evaluation": st.sampled_from(["", "a/b", "a,b", "a=b", ".", "..", "a%2Fb", "é"]),
    },
)


@settings(deadline=None)  # because it writes files
@given(st.lists(POINTS, unique_by=lambda p: json.dumps(p, sort_keys=True), min_size=1, max_size=9))
def test_different_points_have_different_names_that_folders_can_have(tmp_path_factory, values):
    found = read(tmp_path_factory.mktemp("names"), values)
    assert len({point.name for point in found}) == len(values)
    for point in found:
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_.~%+=,-]*", point.name), point.name
        assert point.folder == Path("runs") / point.name


def test_names_are_short_and_tell_fields_apart(tmp_path):
    found = read(tmp_path, product({"rlp.group_size": [4, 8], "seed": [1, 2], "data.pack": [True]}))
    assert [point.name for point in found][:2] == [
        "group_size=4,pack=true,seed=1",
        "group_size=4,pack=true,seed=2",
    ]
    twice = {"mesh.data": 1, "data.compass.thought_share": 0.5, "model.rope.theta": 1e-6}
    (point,) = read(tmp_path, [twice])
    assert point.name == "data=1,theta=1e-06,thought_share=0.5"
    found = read(tmp_path, [{"evaluation.every": 1, "checkpoint.every": 2}, {}])
    assert [point.name for point in found] == ["checkpoint.every=2,evaluation.every=1", "unchanged"]


def test_names_stay_when_points_are_added_or_turned_around(tmp_path):
    some = product({"rlp.group_size": [4], "rlp.horizon": [1, 2]})
    more = product({"rlp.horizon": [2, 1, 3], "rlp.group_size": [8, 4]}, {"seed": [0, 1]})
    names = {point.name for point in read(tmp_path, chain(some, more))}
    assert {point.name for point in read(tmp_path, some)} < names


# Invalid sweeps.

NO_GROUP = {"rlp.group_size": 4, "name": "a"}
BAD = {
    "no points": ([], "yields no points"),
    "a list": ([["seed"]], "point 1: must be a dictionary of dotted fields, not a list"),
    "a field": ([{}, {"rlp.groop_size": 4}], "point 2: .*did you mean rlp.group_size"),
    "a group": ([{"rlp": {}}], "point 1: rlp is a group of fields"),
    "a text": ([{"steps": "many"}], "steps must be an integer; 'many' is not"),
    "a share": ([{"steps": 1.0}], "steps must be an integer; 1.0 is not"),
    "a yes": ([{"steps": True}], "steps must be an integer; True is not"),
    "infinity": ([{"rlp.temperature": float("1e999")}], "temperature must be a finite number"),
    "for all": ([{"batch_size": 3}], "batch_size is set here and by --config.batch_size"),
    "twice": ([{"steps": 3}, {"seed": 1}, {"steps": 3}], "there are two points 'steps=3'"),
    "one name": ([NO_GROUP, NO_GROUP | {"steps": 3}], "two points called 'a' differ in steps"),
    "a bad name": ([{"name": "../a"}], "name='../a'; use letters"),
    "a folder": ([{"name": "logs"}], "a point cannot be called 'logs'"),
    "a long name": ([{"data.train": "x" * 300}], "a point cannot be called"),
    "a circle": (
        [{"name": "a", "init_from": "b"}, {"name": "b", "init_from": "a@best"}],
        "the points a, b wait for each other",
    ),
    "no such seed": (
        [{"name": "a", "seed": 1}, {"seed": 2, "init_from": "a"}],
        "needs a with its seed, but there is no such point",
    ),
    "two starts": (
        [{"name": "a"}, {"name": "b"}, *({"init_from": x, "steps": 3} for x in "ab")],
        "two points called 'steps=3' differ in init_from; give one of them another 'name'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_points_are_refused_in_one_line(tmp_path, case):
    values, message = BAD[case]
    path = tmp_path / "some.py"
    text = repr(values).replace("inf", "float('inf')")
    path.write_text(f"def sweep():\n    yield from {text}\n")
    with pytest.raises(UserError, match=message) as caught:
        points.read_points(str(path), default.get_config(), ["batch_size"], Path("runs"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("x = 1", "", "has no function sweep"),
        ("def sweep():\n    yield 1 / 0", "", "some.py, line 2: ZeroDivisionError"),
        ("def sweep(a):\n    return []", "", "needs an argument; write .*some.py:ARGUMENT"),
        ("def sweep():\n    return {}", "", "must return or yield dictionaries; it is a dict"),
        ("def sweep(a):\n    raise ValueError(a)", ":why", "line 2 for 'why': ValueError: why"),
    ],
)
def test_a_sweep_that_cannot_be_read_is_refused(tmp_path, text, spec, message):
    (tmp_path / "some.py").write_text(text)
    with pytest.raises(UserError, match=message):
        points.read_points(f"{tmp_path}/some.py{spec}", default.get_config(), [], Path("runs"))


# References and commands.


def test_a_point_starts_from_the_point_of_its_seed(tmp_path):
    base = {"name": "base", "steps": 5}
    rlp = {"objective": "rlp", "init_from": "base@best"}
    cpt = {"name": "cpt", "init_from": "base", "match": "rlp:flops"}
    shared = {"name": "shared", "steps": 6}
    other = {"steps": 7, "init_from": "shared"}
    seeded = product({"seed": [1, 2]}, [cpt, rlp | {"name": "rlp"}, base, other])
    found = {point.name: point for point in read(tmp_path, chain(seeded, shared))}
    for seed in (1, 2):
        assert found[f"rlp,seed={seed}"].fields["init_from"] == f"runs/base,seed={seed}@best"
        last = found[f"cpt,seed={seed}"]
        assert last.fields["match"] == f"runs/rlp,seed={seed}:flops"
        assert last.needs == [f"base,seed={seed}", f"rlp,seed={seed}"]
        assert found[f"steps=7,seed={seed}"].needs == ["shared"]
    order = list(found)
    for point in found.values():
        assert all(order.index(name) < order.index(point.name) for name in point.needs)


def test_every_arm_that_sets_a_field_itself_hides_it_from_a_sweep(tmp_path):
    config = demo.get_config()
    config.arms.base.init_from = "x"
    with pytest.raises(UserError, match="every arm overrides init_from"):
        read(tmp_path, [{"init_from": "y"}], lambda: config)
    (point,) = read(tmp_path, [{"arms.rlp.steps": 3}], demo.get_config)
    assert point.arms
    assert point.finished_by == Path("runs/steps=3/summary.json")


VALUES = [
    {"rlp.temperature": 1, "data.pack": False, "data.train": "a b,c='d'$HOME\n;", "seed": 3},
    {"optimizer.learning_rate": 1e-6, "data.train": "", "data.bos": "--x", "steps": 12},
]


@pytest.mark.parametrize("values", VALUES)
def test_a_command_gives_launch_train_the_config_of_its_point(tmp_path, values):
    config = default.get_config()
    config.batch_size, config.model.tie_embeddings = 5, False
    for_all = ["batch_size", "model.tie_embeddings"]
    (point,) = read(tmp_path, [values], lambda: config)
    spec = str(ROOT / "configs" / "default.py")
    words = points.command(point, spec, config, for_all, "python")
    line = points.shell_line(point, [point], words)
    echo = subprocess.run(
        ["bash", "-c", f"python() {{ printf '%s\\0' \"$@\"; }}\n{line}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert echo.stdout.split("\0")[:-1] == words[1:]
    described = config_flags.describe(words[3:])
    assert list(fields(described.config)) == list(fields(points.point_config(config, point)))
    assert described.others == words[3:5]


def test_a_line_fails_until_what_it_needs_is_finished(tmp_path):
    base, rlp = read(tmp_path, [{"name": "base"}, {"steps": 3, "init_from": "base"}])
    for point in (base, rlp):
        point.folder = tmp_path / point.name
    line = points.shell_line(rlp, [base, rlp], ["echo", "runs"])
    run = lambda: subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (run().returncode, run().stdout) == (1, "")
    base.folder.mkdir()
    base.finished_by.write_text("{}")
    assert (run().returncode, run().stdout) == (0, "runs\n")
    assert shlex.split(line)[-1] == "runs"


# The ablations.


@pytest.mark.parametrize("which", [*ablations.PAPER, *ablations.DEMO])
def test_an_ablation_varies_one_number(which):
    spec = f"{ROOT}/configs/ablations.py:{which}"
    config = config_files.load(spec)
    found = points.read_points(spec, config, [], Path("runs"))
    ((field, values),) = (ablations.PAPER | ablations.DEMO)[which].items()
    seeds = [None] if which in ablations.PAPER else ablations.SEEDS
    varied = [point for point in found if field in point.fields]
    assert {(p.fields[field], p.seed) for p in varied} == {(v, s) for v in values for s in seeds}
    assert all(p.fields.keys() <= {field, "seed", "init_from"} for p in varied)
    assert [p.label for p in found if p not in varied] == ["base"] * (len(found) - len(varied))
