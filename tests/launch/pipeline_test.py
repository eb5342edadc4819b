"""`python -m launch.pipeline`: its plan, its runs, and its table."""

import importlib
import json
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from configs import chains, default, demo_chain, demo_table
from configs.paper import base, table1
from launch import config_flags, pipeline
from rlp.run import experiment, finish
from rlp.run.checks import check
from rlp.runtime.config_json import fields
from rlp.runtime.errors import UserError
from rlp.training.trainers import RLPTrainer
from tests.support import runs
from tests.support.paths import ROOT
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

OURS = [f"launch.{name}" for name in ("pipeline", "run_flags", "host_flags", "program")]
TINY = f"""
from configs import chains, default

def get_config():
    config = default.get_config()
    fields = {runs.flat_config(runs.COMPASS, {"steps": 2, "evaluation.every": 0})!r}
    config.update_from_flattened_dict(fields)
    config.arms = chains.arms(
        {{"none": {{"init_from": "base", "steps": 0}}}}, {{"rlp": {{"objective": "rlp"}}}}
    )
    config.arms.base = {{}}
    return config

def published():
    accuracies = {{"greedy_think_accuracy": 0.25, "accuracy/math": 0.5}}
    return {{"none_rlp": {{"no_think_loss": 1.5}} | accuracies}}
"""


@pytest.fixture
def flagged(monkeypatch):
    """Run the program with flags in this process, also if other programs were imported before."""

    def run(*words):
        words = ["pipeline", *map(str, words)]
        monkeypatch.setattr(sys, "argv", words)
        left = config_flags.read(words[1:])
        flags.FLAGS.unparse_flags()
        flags.FLAGS["plan"].value = False
        with flagsaver.flagsaver():
            for module, theirs in flags.FLAGS.flags_by_module_dict().items():
                for flag in theirs if module.startswith("launch.") and module not in OURS else ():
                    if flag.value is None:
                        flag.value = ""  # it may be a required flag of another program
            flags.FLAGS([words[0], *left])
            pipeline.main([])

    return run


def lines(text):
    return [line.split() for line in text.splitlines()]


# The plan.


def test_the_plan_of_the_demo_s_chain_says_what_builds_on_what(tmp_path):
    head, *rows = lines(pipeline.plan(demo_chain.get_config(), tmp_path))
    assert head == ["run", "starts", "from", "objective", "for"]
    by_name = {row[0]: " ".join(row[1:]) for row in rows}
    assert by_name == {
        "base": "nothing next_token 480 steps pending",
        "none": "base next_token 0 steps pending",
        "cpt": "base next_token the flops of rlp pending",
        "rlp": "base rlp 40 steps pending",
        **{f"{s}_sft": f"{s} next_token 10 steps pending" for s in ("none", "cpt", "rlp")},
        **{f"{s}_rlvr": f"{s}_sft rlvr 20 steps pending" for s in ("none", "cpt", "rlp")},
    }
    names = list(by_name)
    assert names[0] == "base"
    assert names.index("rlp") < names.index("cpt")
    assert list(tmp_path.iterdir()) == []


# A chain that runs.


@pytest.mark.usefixtures("one_device")
def test_a_chain_stopped_between_and_within_its_runs_ends_the_same(
    flagged, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(experiment, "write_report_separately", lambda *_: None)  # takes seconds
    (tmp_path / "tiny.py").write_text(TINY)

    def start(folder, *more):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)  # the arms of both also have the same configs
        capsys.readouterr()
        flagged("--config=../tiny.py", "--workdir=run", *more)
        return capsys.readouterr().out

    whole = start("whole")
    for owner, name in ((finish, "browse_thoughts"), (RLPTrainer, "step")):
        with crash_at(owner, name, 2), pytest.raises(Crash):  # in none, then in none_rlp
            start("stopped")
    states = {row[0]: row[5:] for row in lines(start("stopped", "--plan"))[1:]}
    assert states == {"base": ["finished"], "none": ["finished"], "none_rlp": ["pending"]}
    again = start("stopped")

    before, after = (
        json.loads((tmp_path / folder / "run" / "summary.json").read_text())
        for folder in ("whole", "stopped")
    )
    assert runs.timeless(before) == runs.timeless(after)
    table = lambda shown: [line for line in shown.splitlines() if line.startswith("|")]
    assert table(whole) == table(again)
    assert table(whole) == table((tmp_path / "whole" / "run" / "pipeline.md").read_text())
    check_table(table(whole), before)
    assert "In parentheses: published numbers" in whole


def check_table(rows, summary):
    """Every cell is a metric of the summary, followed by the published number, if there is one."""
    head, rule, *rows = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    assert head == ["held-out metric", "start", "alone", "+ rlp"]
    assert set("".join(rule)) == {"-", ":"}
    cells = {(figure, start): rest for figure, start, *rest in rows}
    assert {start for _, start in cells} == {"base", "none"}
    assert not any("math" in figure for figure, _ in cells)  # published, but not measured here
    loss = {arm: f"{summary[arm]['no_think_loss']:.3f}" for arm in summary["arms"]}
    share = f"{100 * summary['none_rlp']['greedy_think_accuracy']:.2f}"
    assert cells["Loss, no-think (nats/token)", "base"] == [loss["base"], "-"]
    assert cells["Loss, no-think (nats/token)", "none"] == [
        loss["none"],
        f"{loss['none_rlp']} (1.500)",
    ]
    assert cells["Accuracy, greedy thinking (%)", "none"][1] == f"{share} (25.00)"


# Invalid input.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--config has no arms, so it is a single run; use launch.train"),
        (
            "    config.arms = chains.arms({'a': {}}, {})\n",
            "published of .* has b, which is not an arm",
        ),
        ("    config.arms = chains.arms({'b': {'init_from': 'b'}}, {})\n", "the arms b depend"),
    ],
)
def test_what_is_no_chain_is_refused(text, message, flagged, tmp_path):
    (tmp_path / "some.py").write_text(
        "from configs import chains, default\n"
        f"def get_config():\n    config = default.get_config()\n{text}    return config\n"
        "def published():\n    return {'b': {}}\n"
    )
    with pytest.raises(UserError, match=message):
        flagged(f"--config={tmp_path}/some.py", f"--workdir={tmp_path}/run", "--plan")
    assert not (tmp_path / "run").exists()


# The paper's chains.


TABLES = [f"table{number}" for number in (1, 2, 3, 4)]


@pytest.mark.parametrize("name", TABLES)
def test_the_arms_of_a_table_can_be_run_and_build_on_one_another(name, tmp_path):
    config = importlib.import_module(f"configs.paper.{name}").get_config("some/data")
    arms = experiment.arms_in_order(config, tmp_path)
    for arm in arms.values():
        check(dict(fields(arm)))
        assert set(dict(fields(arm))) == set(dict(fields(default.get_config())))
    model = arms["none"].init_from
    folders = {str(tmp_path / name) for name in arms}
    for name, arm in arms.items():
        later = name.endswith(("_sft", "_rlvr"))
        assert (arm.init_from in folders) == later
        assert later or arm.init_from == model
        assert arm.data.problems.evaluation == "some/data/benchmarks"
        assert arm.evaluation.to_dict() == config.evaluation.to_dict()
        # Measured in the same way:
        assert (arm.data.problems.response_length, arm.rlp.temperature) == (4096, 0.7)


def test_the_arms_of_the_demo_s_table_differ_from_rlp_as_they_are_called(tmp_path):
    config = demo_table.get_config()
    arms = experiment.arms_in_order(config, tmp_path)
    chain = set(demo_chain.get_config().arms)
    for name, arm in arms.items():
        check(dict(fields(arm)))
        assert arm.evaluation.positions == "given"
        assert arm.data.problems.evaluation == ("compass" if name in chain else "")
    own = dict(fields(arms["rlp"])) | {"data.problems.evaluation": ""}
    for name, expected in (demo_table.OF_RLP | demo_table.ANYWHERE).items():
        found = dict(fields(arms[name]))
        differing = {path: value for path, value in found.items() if own[path] != value}
        differing.pop("init_from", None)
        assert differing == expected
    assert arms["anywhere_given"].init_from == str(tmp_path / "anywhere")


def test_the_published_numbers_of_table_1_are_of_its_arms_and_its_benchmarks():
    found = pipeline.read_published(f"{ROOT}/configs/paper/table1.py:data", list(table1.PERCENT))
    assert found == table1.published()
    arms = table1.get_config().arms
    assert set(found) == {name for name in arms if not name.endswith("_sft")}
    documented = [line.replace("|", " ").split() for line in table1.__doc__.splitlines()]
    rows = [row[-6:] for row in documented if len(row) == 7 and row[1].replace(".", "").isdigit()]
    assert len(rows) == len(base.BENCHMARKS)
    for benchmark, row in zip(base.BENCHMARKS, rows, strict=True):
        numbers = [f"{100 * found[arm][f'accuracy/{benchmark}']:.2f}" for arm in table1.PERCENT]
        assert numbers == row


def test_budgets_are_the_paper_s():
    """200 steps of RLP are 170M tokens; CPT reads the same number, within half a step of CPT."""
    assert base.rlp_steps(170e6) == 200
    for tokens in (170e6, 1e9, 6e9):
        cpt = base.cpt(tokens)
        step = cpt["batch_size"] * cpt["data.sequence_length"]
        assert abs(cpt["steps"] * step - tokens) <= step / 2


# The helper.


def test_stages_start_from_the_one_before_them():
    made = chains.arms(
        {"b": {"steps": 0}, "a": {"rlp.horizon": 2}}, {"x": {"data.sft.share": 1.0}, "y": {}}
    )
    assert list(made) == ["b", "b_x", "b_y", "a", "a_x", "a_y"]
    assert made.to_dict() == {
        "b": {"steps": 0},
        "b_x": {"init_from": "b", "data": {"sft": {"share": 1.0}}},
        "b_y": {"init_from": "b_x"},
        "a": {"rlp": {"horizon": 2}},
        "a_x": {"init_from": "a", "data": {"sft": {"share": 1.0}}},
        "a_y": {"init_from": "a_x"},
    }  # fmt: skip


def test_a_chain_that_could_not_be_told_apart_is_refused():
    with pytest.raises(ValueError, match="two arms of the chain are called 'a_x'"):
        chains.arms({"a": {}, "a_x": {}}, {"x": {}})
    with pytest.raises(ValueError, match="the stage x sets init_from"):
        chains.arms({"a": {}}, {"x": {"init_from": "b"}})
