"""Sampling from a trained model in Python."""

import math

import pytest

import rlp
from rlp.run.sampled_thoughts import Thought, Thoughts
from tests.support import runs
from tests.support.runs import one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device")

WALK = "Mia faces north . She turns around left right right around left left right . Now she faces"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "run"
    fields = runs.flat_config(runs.COMPASS, {"steps": 2, "evaluation.every": 0})
    return rlp.train(rlp.config("configs/default.py", **fields), workdir=folder)


@pytest.fixture(scope="module")
def model(run):
    return rlp.load(run)


def test_a_run_is_opened_by_its_object_its_folder_and_a_step(run, model):
    assert model.step == 2
    for same in (rlp.load(run.workdir), rlp.load(f"{run.workdir}@2"), run.model(), run.model(2)):
        assert same.generate(WALK, 5, temperature=0) == model.generate(WALK, 5, temperature=0)
    with pytest.raises(rlp.UserError, match="no such folder"):
        rlp.load("nothing_of_this_name")


def test_thoughts_have_gains_over_the_prediction_without_one(model):
    thoughts = model.think(WALK, n=3, target=" north .")
    assert len(thoughts) == 3
    without = model.log_likelihood(WALK, " north .")
    assert thoughts.log_likelihood == pytest.approx(without, abs=1e-5)
    for thought, gain in zip(thoughts, thoughts.gains, strict=True):
        assert thought.gain == gain == thought.log_likelihood - thoughts.log_likelihood
        assert thought.tokens == len(thought.text.split())
    assert thoughts.mean_gain == pytest.approx(sum(thoughts.gains) / 3)


def test_draws_depend_on_the_seed_alone(model):
    texts = [[t.text for t in model.think(WALK, n=2, seed=seed)] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_without_a_target_there_is_nothing_to_gain(model):
    thoughts = model.think(WALK, n=2)
    assert thoughts.gains == []
    assert (thoughts.mean_gain, thoughts.log_likelihood, thoughts[0].gain) == (None, None, None)
    assert "gain" not in repr(thoughts)


def test_log_likelihoods_of_parts_add_up(model):
    whole = model.log_likelihood(WALK, " north .")
    parts = model.log_likelihood(WALK, " north") + model.log_likelihood(f"{WALK} north", " .")
    assert whole == pytest.approx(parts, abs=1e-5)
    assert whole < 0


def test_a_text_comes_in_the_pieces_that_it_consists_of(model):
    pieces = list(model.stream(WALK, 6, seed=3))
    assert "".join(pieces) == model.generate(WALK, 6, seed=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n=0; it must be at least 1"),
        ({"length": 0}, "length=0; it must be at least 1"),
        ({"temperature": math.inf}, "temperature=inf; it must be 0 or a finite number"),
        ({"system": "be brief"}, "add chat=True"),
        ({"chat": True}, "has no chat template"),
        ({"n": 10**12}, "lower n (it is 1000000000000)"),
    ],
)
def test_what_cannot_be_sampled_is_refused(model, arguments, message):
    with pytest.raises(rlp.UserError) as caught:
        model.think(WALK, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_model_wrote_is_escaped_where_it_is_shown():
    wrote = "</td><script>alert(1)</script>\x1b[2J\u202e" + "long " * 40
    shown = Thoughts("<b>", "&", [Thought(wrote, 3, False, -1.0, 0.5)], -1.5)
    html, text = shown._repr_html_(), repr(shown)
    assert "<script" not in html
    assert "<b>" not in html
    for hidden in ("\x1b", "\u202e"):
        assert hidden not in html + text
    assert "+0.500" in text
    assert "-1.000" in text
    assert max(map(len, text.splitlines())) < 140


def test_a_model_describes_itself(model, run):
    assert f"{run.workdir}, step 2" in repr(model)
    assert "48 tokens" in repr(model)
