"""Every step logs all metrics, and the totals add up."""

import json

import jax
import numpy as np
import pytest

from models.transformer import shapes
from rlp.metrics import catalogue
from rlp.run import assembly, loop
from rlp.run.assembly import read_data
from rlp.run.schedule import build_optimizer
from rlp.training.cost import PARTS
from rlp.training.flops import by_part, next_token_flops, rlp_flops
from tests.support import runs
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device", "early_warnings")

every_kind = pytest.mark.parametrize(
    "kind", ["next_token", "rlp", "rlp on text", "rlvr"], indirect=True
)


COMMON = {
    *("step", "loss", "grad_norm", "learning_rate", "tokens_documents"),
    *("tokens_rollout", "tokens_update", "flops", *(f"flops_{part}" for part in PARTS)),
    *("seconds_device", "seconds_data", "seconds_update", "skipped_updates"),
    "tokens_per_second",
}
SAMPLED = COMMON | {
    *("reward_mean", "reward_positive_share", "advantage_std", "zero_variance_share"),
    *("thought_length", "closed_fraction", "thought_entropy", "distinct_thoughts"),
    *("clip_fraction", "logprob_gap", "seconds_rollout", "decode_use"),
}
RLP = SAMPLED | {
    *("information_gain", "reasoned_evidence", "baseline_evidence", "target_named_share"),
    *("seconds_evidence", "no_think_loss"),
}
RLVR = SAMPLED | {
    *("accuracy", "majority_accuracy", "answered_share", "failed_checks_share"),
    *("stated_confidence_share", "seconds_verify"),
}
METRICS = {"next_token": COMMON | {"no_think_loss"}, "rlp": RLP, "rlvr": RLVR}
HELD_OUT = {
    *("no_think_accuracy", "greedy_think_accuracy", "sampled_think_accuracy", "no_think_loss"),
    *("think_loss", "mean_information_gain", "thought_length", "closed_fraction", "document_loss"),
}


@every_kind
def test_every_step_has_every_figure_and_each_is_finite(kind, finished):
    _, _, config = kind
    lines = runs.metrics(finished(config))
    assert [line["step"] for line in lines] == list(range(1, config.steps + 1))
    for line in lines:
        held_out = {name for name in line if name.startswith("evaluation/")}
        problems = catalogue.names("problems") if config.objective == "rlvr" else ()
        names = HELD_OUT | set(problems)
        evaluated = line["step"] in (3, 6)
        assert held_out == ({f"evaluation/{name}" for name in names} if evaluated else set())
        expected = METRICS[config.objective]
        assert set(line) - held_out == expected | ({"kl"} if config.rlp.kl_weight else set())
        assert all(np.isfinite(value) for value in line.values())
        assert all(name == "step" or catalogue.find(name) for name in line)
        assert line["skipped_updates"] == 0


@every_kind
def test_costs_add_up(kind, finished):
    """The totals grow at each step by what follows from its shapes and thoughts."""
    _, _, config = kind
    run = assembly.build(config)
    train, _ = read_data(config, run)
    size, length, model = config.batch_size, config.data.sequence_length, run.method.model
    optimizer = build_optimizer(config, config.steps).flops(shapes(model))
    counts = {name for name in COMMON if name.startswith(("tokens_", "flops"))}
    counts -= {"tokens_per_second"}  # a rate, not a total
    before = dict.fromkeys(counts, 0)
    for number, line in enumerate(runs.metrics(finished(config))):
        spent = {name: line[name] - before[name] for name in before}
        before = {name: line[name] for name in before}
        read = train.batch(number * size, size).segment
        assert spent["tokens_documents"] == (read > 0).sum()
        if config.objective == "next_token":
            assert spent["tokens_rollout"] == 0
            assert spent["tokens_update"] == size * length
            bill = next_token_flops(model, optimizer, size, length)
        else:
            s, words = run.sampling_method.settings, run.sampling_method.vocabulary
            branches = size * s.forks_per_document * s.group_size
            assert spent["tokens_rollout"] == round(line["thought_length"] * branches)
            packed = size * length + branches * s.thought_length
            assert spent["tokens_update"] == s.updates_per_rollout * packed
            decoded = round(spent["tokens_rollout"] / line["decode_use"])
            bill = rlp_flops(model, s, words, optimizer, size, length, decoded)
        parts = dict.fromkeys(PARTS, 0) | by_part(bill)
        assert {part: spent[f"flops_{part}"] for part in PARTS} == parts
        assert spent["flops"] == sum(parts.values())
    result = json.loads((finished(config) / "evaluation.json").read_text())
    assert {name: result[name] for name in counts} == before
    assert result["seconds_device"] == result["wall_s"]["train"]  # on one device
    assert line["seconds_device"] == result["seconds_device"]


@every_kind
def test_every_update_counts_for_the_optimizer(kind, finished):
    _, _, config = kind
    leaves = jax.tree.leaves(runs.checkpoint(finished(config))["optimizer"])
    updates = 4 if config.rlp.minibatches > 1 else 1  # two passes in two minibatches
    counts = [int(leaf) for leaf in leaves if not np.ndim(leaf)]
    assert counts
    assert set(counts) == {config.steps * updates}


@pytest.mark.parametrize("kind", ["next_token"], indirect=True)
def test_a_caller_is_given_the_metrics_of_every_step_that_is_taken(kind, tmp_path):
    trainer, _, config = kind
    given = []
    with crash_at(trainer, "step", 5), pytest.raises(Crash):
        loop.train(config, tmp_path, report=False, on_step=given.append)
    assert [metrics["step"] for metrics in given] == [1, 2, 3, 4]
    loop.train(config, tmp_path, report=False, on_step=given.append)
    assert [metrics["step"] for metrics in given] == [1, 2, 3, 4, 5, 6, 7]
    for line, metrics in zip(runs.metrics(tmp_path), given, strict=True):
        assert metrics.items() <= line.items()
