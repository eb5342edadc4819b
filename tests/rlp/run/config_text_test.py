"""A config printed as a config file makes the same config again."""

import pytest

from configs import default, demo
from rlp.run import config_files
from rlp.run.config_text import config_text
from rlp.runtime.config_json import fields
from tests.support.paths import ROOT

HELPERS = ("sweeps", "chains", "fields")
SPECS = [p.stem for p in sorted((ROOT / "configs").glob("[!_]*.py")) if p.stem not in HELPERS]


def remade(config, folder):
    """Print a config to a file and load it again."""
    (folder / "printed.py").write_text(config_text(config, "printed.py"))
    return config_files.load(str(folder / "printed.py"))


@pytest.mark.parametrize("name", SPECS)
def test_the_text_of_a_config_makes_the_same_config(name, tmp_path):
    config = config_files.load(str(ROOT / "configs" / f"{name}.py"))
    again = remade(config, tmp_path)
    assert list(fields(again)) == list(fields(config))
    assert list(again.get("arms", ())) == list(config.get("arms", ()))


def test_odd_values_and_names_of_arms_survive(tmp_path):
    config = demo.get_config()
    config.data.train = "a 'b' \"c\"\\\n\x1b[31m # d é"
    config.optimizer.learning_rate = 1 / 3
    config.arms["1-a"] = {"rlp": {"group_size": 3}}
    again = remade(config, tmp_path)
    assert list(fields(again)) == list(fields(config))
    assert "\x1b" not in config_text(config, "\x1b")


def test_options_of_an_objective_are_shown(tmp_path):
    config = config_files.override(demo.get_config(), {"objective_options.alpha": 0.5})
    config.arms.rlp.objective_options = {"alpha": 0.25, "rule": "a"}
    assert list(fields(remade(config, tmp_path))) == list(fields(config))


def line(text, start):
    """Return the only line that assigns to `start`."""
    (match,) = [line for line in text.splitlines() if line.strip().startswith(f"{start} = ")]
    return match


def test_a_field_is_shown_with_its_meaning_and_marked_where_it_differs_from_the_default():
    config = default.get_config()
    config.rlp.group_size = 8
    text = config_text(config, "some.py")
    assert line(text, "config.rlp.group_size").endswith(
        "= 8  # [default: 16] G: thoughts per fork; at least 1"
    )
    assert text.count("[default: ") == 1


def test_an_arm_shows_what_it_changes():
    text = config_text(demo.get_config(), "configs/demo.py")
    assert "= 40  # [shared: 1000] training steps" in line(text, "config.arms.rlp.steps")
    assert "config.arms.rlp.seed" not in text
