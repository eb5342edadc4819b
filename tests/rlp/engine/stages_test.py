"""The stages can run in the order of their list: every value is computed before it is read."""

import inspect

import pytest

from rlp.engine.stages import NEXT_TOKEN, RLP, UNITS, still_read
from rlp.training.cost import PARTS

# Values of the trainers: the state, rows and counters.
GIVEN = {
    "params", "policy", "scorer", "baseline", "batch", "key", "step", "first", "forks", "table",
    "rollout_batches", "batches_per_document", "reference", "trained", "state", "minibatch",
}  # fmt: skip


@pytest.mark.parametrize("stages", [RLP, NEXT_TOKEN], ids=["rlp", "next_token"])
def test_stages_are_listed_in_the_order_in_which_units_are_run(stages):
    order = [list(UNITS).index(stage.unit) for stage in stages]
    assert order == sorted(order)


@pytest.mark.parametrize("stages", [RLP, NEXT_TOKEN], ids=["rlp", "next_token"])
def test_every_value_is_made_before_it_is_read(stages):
    there = set(GIVEN)
    for stage in stages:
        assert set(stage.inputs) <= there, stage.name
        there |= {name.split(".")[0] for name in stage.outputs}


@pytest.mark.parametrize("stage", [*RLP, *NEXT_TOKEN], ids=lambda stage: stage.name)
def test_a_stage_says_what_its_function_takes(stage):
    assert set(stage.flops.split()) <= set(PARTS)
    if stage.function is None:  # work on the host
        return
    takes = inspect.signature(stage.function).parameters.values()
    needed = [parameter for parameter in takes if parameter.default is parameter.empty]
    given = [*stage.bound.split(), *stage.inputs]
    assert len(needed) <= len(given) <= len(takes)
    assert set(stage.static.split()) <= set(stage.inputs)


def test_what_no_later_unit_reads_can_be_freed():
    values = dict.fromkeys(("policy", "baseline", "scorer", "batch", "forked", "no_think"))
    text = [stage for stage in RLP if stage.name not in ("responses", "answer_rewards")]
    assert set(still_read(values, text, "documents")) == {"policy", "forked", "no_think"}
    assert set(still_read(values, text, "forks")) == set()
