"""What each kind of run reads, what it samples, and which metric picks its best checkpoint."""

import pytest

from configs import default
from rlp.engine.step import copies_kept
from rlp.metrics import catalogue
from rlp.objectives.registry import OBJECTIVES
from rlp.run import assembly, tasks
from rlp.run.checks import check
from rlp.runtime.errors import UserError
from tests.support import runs
from tests.support.settings import COMPASS_DATA, KNOWN, LONE, PAIRS, RLP

OBJECTIVES_OF_ANSWERS = [name for name, made in OBJECTIVES.items() if "answers" in made.reads]


@pytest.mark.parametrize("name", ["next_token", *OBJECTIVES])
def test_every_objective_is_for_documents_or_for_problems_of_both_kinds(name):
    """Check its training data, additional held-out problems, and the metric of its checkpoint."""
    answers = name in OBJECTIVES_OF_ANSWERS
    text = {"data.problems.train": "a"} if answers else {"data.train": "a"}
    kinds = (text, COMPASS_DATA)
    for data, held_out in zip(kinds, ("b", "compass"), strict=True):
        good = KNOWN | data | {"objective": name}
        check(good)
        check(good | {"data.problems.evaluation": held_out})
        for metric in catalogue.names("problems"):
            best = {"evaluation.best_metric": metric}
            check(good | best | {"data.problems.evaluation": held_out})
            if answers:
                check(good | best)
            else:
                with pytest.raises(UserError, match="is not measured with objective"):
                    check(good | best)
    documents = KNOWN | text | {"objective": name, "evaluation.best_metric": "document_loss"}
    if answers:
        with pytest.raises(UserError, match="is not measured with objective"):
            check(documents)
    else:
        check(documents)
    walks = {name: documents[name] for name in ("objective", "evaluation.best_metric")}
    check(KNOWN | COMPASS_DATA | walks)  # which always has held-out documents


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({"objective": "next_token"}, "document_loss"),
        ({"objective": "rlp"}, "think_loss"),
        ({"objective": "rlvr"}, "accuracy"),
        ({"objective": "hicra", "data.kind": "compass"}, "accuracy"),
        ({"data.sft.share": 0.5}, "document_loss"),
        ({"data.sft.share": 1.0}, "response_loss"),
        ({"data.sft.share": 1.0, "data.kind": "compass"}, "response_loss"),
        ({"objective": "rlvr", "evaluation.best_metric": "any_accuracy"}, "any_accuracy"),
    ],
)
def test_the_best_checkpoint_is_picked_by_what_is_measured(changes, metric):
    config = default.get_config()
    config.update_from_flattened_dict({"objective": "next_token"} | changes)
    assert tasks.of(config).best_metric == metric
    data = {"data.train": "a"} if config.objective in ("next_token", "rlp") else {}
    if config.data.sft.share:
        data = PAIRS | (data if config.data.sft.share < 1 else {"data.train": ""})
    elif not data:
        data = {"data.problems.train": "a"}
    data = COMPASS_DATA if config.data.kind == "compass" else data
    check(KNOWN | data | {"objective": "next_token"} | changes | {"evaluation.best_metric": metric})


def test_a_group_of_one_is_allowed_with_a_baseline_and_without_rlp(text):
    for changes in ({"objective": "next_token"}, {"rlp.baseline": "ema"}):
        assembly.build(runs.config(runs.TEXT, text, LONE, {"batch_size": 8}, changes))


def test_held_out_problems_do_not_change_what_a_run_samples_and_is_judged_by():
    problems = {"data.problems.evaluation": "compass", "data.problems.verifier": "exact"}
    for fields_, best in ((RLP, "think_loss"), ({"data.sft.share": 1.0}, "response_loss")):
        config = runs.config(runs.COMPASS, problems, {"batch_size": 8}, fields_)
        run = assembly.build(config)
        assert run.answering is not None
        assert run.sampling_method == (run.method if config.objective == "rlp" else None)
        assert run.task.best_metric == best
    run = assembly.build(runs.config(runs.COMPASS_RLVR, {"batch_size": 8}))
    assert run.sampling_method == run.answering.method
    assert run.sampling_method.settings.baseline == "none"


@pytest.mark.parametrize("kl_weight", [0.0, 0.1])
@pytest.mark.parametrize("baseline", ["ema", "frozen", "none"])
@pytest.mark.parametrize("kind", [runs.COMPASS | RLP, runs.COMPASS_RLVR])
def test_the_state_is_sized_by_the_settings_that_a_step_samples_with(kind, baseline, kl_weight):
    changes = {"rlp.kl_weight": kl_weight, "rlp.baseline": baseline, "batch_size": 8}
    run = assembly.build(runs.config(kind, changes))
    assert run.sampling_settings == run.sampling_method.settings
    phi = baseline != "none" and kind is not runs.COMPASS_RLVR
    reference = kl_weight > 0 and not (phi and baseline == "frozen")
    assert copies_kept(run.sampling_settings) == (phi, reference)


def test_a_run_that_samples_nothing_keeps_no_copies():
    run = assembly.build(runs.config(runs.COMPASS, {"batch_size": 8, "rlp.kl_weight": 0.1}))
    assert (run.sampling_method, run.sampling_settings) == (None, None)
    assert copies_kept(run.sampling_settings) == (False, False)
