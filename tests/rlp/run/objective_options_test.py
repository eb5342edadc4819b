"""Options and metrics of a user's objective are checked, and recorded with the run."""

import json

import pytest

from rlp.objectives import Metric, Objective
from rlp.run import loop
from rlp.run.objective_options import with_options
from rlp.runtime.errors import UserError
from tests.support import runs
from tests.support.runs import one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device")
BRIEF = Objective(
    formula="r = log p(y|c) - price |c|",
    source="a test",
    reward=lambda outcome: outcome.reasoned - outcome.options.price * outcome.length,
    options={"price": 0.25, "unit": 2},
    metrics={
        Metric("paid", "Paid", "nats", "for tokens"): (
            lambda outcome: outcome.options.price * outcome.length
        ),
        Metric("units", "Units", "", "as given"): lambda outcome: outcome.options.unit,
    },
)
MINE = runs.COMPASS | {"objective": f"{__name__}:BRIEF", "steps": 2, "evaluation.every": 0}


def config(**options):
    made = runs.config(MINE)
    made.objective_options.update(options)
    return made


def test_all_options_are_in_the_config_of_a_run():
    assert with_options(config(price=1)).objective_options.to_dict() == {"price": 1.0, "unit": 2}
    plain = runs.config(runs.COMPASS)
    assert with_options(plain) is plain


def test_options_and_metrics_of_an_objective_are_those_of_its_run(tmp_path):
    workdir = tmp_path / "run"
    loop.train(config(price=0.5), workdir, report=False)
    steps = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 2
    for step in steps:
        assert step["paid"] == pytest.approx(0.5 * step["thought_length"])
        assert step["units"] == 2
        gain = step["reasoned_evidence"] - step["paid"]
        assert step["reward_mean"] == pytest.approx(gain, abs=1e-5)
    declared = json.loads((workdir / "metrics.declared.json").read_text())["metrics"]
    assert [metric["name"] for metric in declared] == ["paid", "units"]
    assert json.loads((workdir / "config.json").read_text())["objective_options"] == {
        "price": 0.5,
        "unit": 2,
    }
    assert loop.train(config(price=0.5), workdir, report=False)  # already finished
    with pytest.raises(UserError, match=r"objective_options\.price: 0\.5 -> 0\.25"):
        loop.train(config(), workdir, report=False)


@pytest.mark.parametrize("objective", ["rlp", "next_token"])
def test_an_option_that_an_objective_does_not_have_is_refused(objective, tmp_path):
    made = config(price=1.0)
    made.objective = objective
    with pytest.raises(UserError, match=rf"price: '{objective}' does not have this option"):
        loop.train(made, tmp_path / "run", report=False)
    assert not (tmp_path / "run" / "config.json").exists()
