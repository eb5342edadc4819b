"""Tokens per second and MFU of a step."""

import dataclasses
from types import SimpleNamespace

import jax
import pytest

from rlp.capacity.chips import CHIPS, peak_flops
from rlp.metrics import catalogue
from rlp.run.speed import Speed, brief
from rlp.training import flops
from rlp.training.cost import Cost
from tests.support import tiny

COST = Cost(
    documents=300, rollout=100, update=0, flops={"update": 8}, model_flops=int(4e12), seconds={}
)


def devices(kind, count=2):
    return [SimpleNamespace(device_kind=kind)] * count


def test_mfu_is_the_share_of_the_peak_of_all_chips():
    metrics = Speed(devices("TPU v5 lite"), "bfloat16").metrics(COST, 0.5)
    assert metrics == {
        "tokens_per_second": 800.0,
        "mfu": pytest.approx(4e12 / 0.5 / (2 * 197e12)),
    }
    assert all(catalogue.find(name) for name in metrics)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("TPU v5 lite", "float32"), ("NVIDIA A100-SXM4-80GB", "bfloat16")]
)
def test_mfu_is_absent_where_the_peak_is_not_known(kind, dtype):
    assert Speed(devices(kind), dtype).metrics(COST, 0.5).keys() == {"tokens_per_second"}


def test_a_cpu_has_no_known_peak():
    assert peak_flops(jax.devices("cpu")[0].device_kind, "bfloat16") is None


def test_no_two_chips_share_a_device_kind():
    kinds = [kind for chip in CHIPS.values() for kind in chip.kinds]
    assert len(set(kinds)) == len(kinds)


def test_what_remat_computes_again_is_not_counted():
    model = tiny.model_config(remat="block")
    count = lambda model: flops.total(flops.next_token_flops(model, 0, 2, 8))
    kept = dataclasses.replace(model, remat="none")
    assert count(model) > count(flops.without_remat(model)) == count(kept)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"loss": 1.5, "tokens_per_second": 12345.0}, "loss 1.500, 1.23e+04 tok/s"),
        (
            {"reward_mean": 0.5, "closed_fraction": 1, "tokens_per_second": 9.0, "mfu": 0.314},
            "reward +0.500, closed 1.00, 9 tok/s, MFU 31.4%",
        ),
    ],
)
def test_the_progress_bar_shows_the_speed(metrics, expected):
    assert brief(metrics) == expected
