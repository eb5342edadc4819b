"""The catalogue of metrics: unique keys, templates, and agreement with docs/metrics.md."""

import subprocess
import sys

import pytest

from rlp.metrics import __main__ as documentation
from rlp.metrics import catalogue
from rlp.training.cost import PARTS, Totals
from tests.support.paths import ROOT


def test_no_two_metrics_have_one_key():
    keys = [metric.key for metric in catalogue.CATALOGUE]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("key", "name", "meaning"),
    [
        (
            "evaluation/accuracy/x",
            "accuracy/x",
            "share of sampled responses to the problems of x",
        ),
        ("evaluation/accuracy", "accuracy", "share of sampled responses to held-out problems"),
        ("seconds_update", "seconds_update", "wall-clock time in this step"),
        ("seconds_device", "seconds_device", "training time multiplied by the number of devices"),
    ],
)
def test_a_metric_is_found_by_its_key(key, name, meaning):
    metric = catalogue.find(key)
    assert metric.name == name
    assert metric.meaning.startswith(meaning)


@pytest.mark.parametrize("key", ["", "evaluation/accuracy/", "seconds_", "sharpness"])
def test_there_is_no_metric_of_another_key(key):
    assert catalogue.find(key) is None


def test_every_total_is_in_the_catalogue():
    for name in Totals().metrics():
        assert catalogue.find(name).measured == "total"
    parts = catalogue.find(f"flops_{PARTS[0]}").meaning
    assert all(part in parts for part in PARTS)


def test_losses_are_better_lower_and_accuracies_higher():
    for name in catalogue.PICKING:
        assert catalogue.lower_is_better(name) == name.endswith("_loss")


def test_the_page_is_the_catalogue():
    """If this fails, run `python -m rlp.metrics > docs/metrics.md`."""
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == documentation.page()


def test_a_report_knows_all_of_it_without_jax():
    code = (
        "import sys, rlp.metrics.writer, rlp.metrics.warning_rules; assert 'jax' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
