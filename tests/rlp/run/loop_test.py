"""An interrupted run ends with the same result as an uninterrupted one, wherever it stopped."""

import json
import shutil

import jax
import numpy as np
import pytest

from models import sharding
from rlp.data.text_stream import TextStream
from rlp.evaluation.evaluator import Evaluator
from rlp.metrics import writer
from rlp.metrics.writer import MetricsWriter
from rlp.run import assembly, finish, loop
from rlp.run.assembly import read_data
from rlp.runtime import lease, run_folder
from rlp.runtime.errors import UserError
from rlp.training.checkpoint import Checkpoints
from tests.support import runs
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device", "early_warnings")

# Consecutive crashes, each of which resumes after the one before. Checkpoints are saved at steps 2,
# 3, 4, 6 and 7 of 7; evaluations run at steps 3 and 6.
CRASHES = {
    "a first step": ("trainer", 1),
    "reading data": ("stream", 2),
    "a line of metrics": (MetricsWriter, "write", 3),
    "after a line of metrics": (MetricsWriter, "write", -1),
    "an evaluation": (Evaluator, "document_metrics", 1),
    "a save": (Checkpoints, "save", 1),
    "after a save": (Checkpoints, "save", -1),
    "a warning": (writer, "write_json", 2),  # of step 4; the first call is for step 3
    "two steps further": ("trainer", 3),
    "the last evaluation": (Evaluator, "document_metrics", -2),
    "the thoughts": (Evaluator, "browse", 1),
    "after the last save": (finish, "write_json", 1),
    "between the last files": (finish, "write_json", 2),
}
# The fastest kind crashes at all of these places, each other kind at every third: together, these
# cover all places once more.
SOME = {"rlp": 0, "rlp on text": 1, "rlvr": 2}


quickest_kind = pytest.mark.parametrize("kind", ["next_token"], indirect=True)


def crashed(config, workdir, *moment):
    with crash_at(*moment), pytest.raises(Crash):
        loop.train(config, workdir, report=False)


@pytest.mark.parametrize(
    ("kind", "crashes"),
    [
        ("next_token", [*CRASHES]),
        *((name, [*CRASHES][first::3]) for name, first in SOME.items()),
    ],
    indirect=["kind"],
    ids=["next_token", *SOME],
)
def test_a_run_that_crashes_again_and_again_ends_like_one_that_never_did(
    kind, crashes, tmp_path, finished
):
    trainer, stream, config = kind
    owners = {"trainer": (trainer, "step"), "stream": (stream, "batch")}
    reached = []
    for owner, *moment in map(CRASHES.get, crashes):
        crashed(config, tmp_path, *owners.get(owner, (owner,)), *moment)
        reached.append(max(runs.steps(tmp_path), default=0))
        assert not (tmp_path / "evaluation.json").exists()
    assert len(set(reached)) >= (5 if crashes == [*CRASHES] else 3)
    loop.train(config, tmp_path, report=False)
    whole = finished(config)
    assert runs.outcome(tmp_path) == runs.outcome(whole)
    assert [warning["step"] for warning in runs.outcome(whole)["warnings"]] == [2, 4]
    assert [line["step"] for line in runs.metrics(tmp_path)] == list(range(1, config.steps + 1))
    if stream is TextStream:
        train, _ = read_data(config, assembly.build(config))
        assert train.records_per_epoch < config.steps * config.batch_size


@pytest.mark.parametrize("kind", ["rlp"], indirect=True)
def test_another_seed_is_another_run(kind, tmp_path, finished):
    _, _, config = kind
    whole = runs.outcome(finished(config))
    with config.unlocked():
        config.seed = 1
    loop.train(config, tmp_path, report=False)
    other = runs.outcome(tmp_path)
    assert other["evaluation"] != whole["evaluation"]
    for before, after in zip(whole["metrics"], other["metrics"], strict=True):
        # Not the loss, which is nearly 0 while the policy equals the behavior policy.
        assert before["grad_norm"] != after["grad_norm"]


# SIGTERM.


@pytest.mark.parametrize("kind", ["next_token", "rlp"], indirect=True)
def test_sigterm_saves_the_step_reached_and_the_run_goes_on_from_it(kind, tmp_path, finished):
    trainer, stream, config = kind
    stops = [
        ((trainer, "step", 2), 2),
        (
            (Evaluator, "document_metrics", 1),
            3,
        ),  # completed: its metrics are the step's
        ((MetricsWriter, "write", 2), 5),
        # The first calls read held-out documents and a step; noticed in the last evaluation.
        ((stream, "batch", 3), 7),
    ]
    for moment, step in stops:
        assert runs.stopped_at(config, tmp_path, *moment) == step
        lines = runs.metrics(tmp_path)
        assert [line["step"] for line in lines] == list(range(1, step + 1))
        assert [line["step"] for line in lines if "evaluation/think_loss" in line] == [
            evaluated for evaluated in (3, 6) if evaluated <= step
        ]
    loop.train(config, tmp_path, report=False)
    assert runs.outcome(tmp_path) == runs.outcome(finished(config))


# Another process.


def test_a_folder_that_another_process_holds_is_refused_untouched(tmp_path):
    with lease.held(tmp_path / "run"):
        before = (tmp_path / "run" / run_folder.LEASE).read_bytes()
        with pytest.raises(UserError, match="is being trained by process"):
            loop.train(runs.config(runs.COMPASS), tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [run_folder.LEASE]
        assert (tmp_path / "run" / run_folder.LEASE).read_bytes() == before


@quickest_kind
def test_a_run_that_lost_its_folder_stops_before_its_next_write(kind, tmp_path, monkeypatch):
    trainer, _, config = kind
    step, taken = trainer.step, []

    def lose(*args):
        if (tmp_path / "metrics.jsonl").exists() and len(runs.metrics(tmp_path)) == 1:
            other = {"host": "host-b", "machine": "", "pid": 1, "since": "now", "token": "other"}
            (tmp_path / run_folder.LEASE).write_text(json.dumps(other))
            monkeypatch.setattr(lease, "EXPIRES_AFTER_S", 0.0)  # the lease has expired
            taken.append((runs.steps(tmp_path), runs.metrics(tmp_path)))
        return step(*args)

    monkeypatch.setattr(trainer, "step", lose)
    with pytest.raises(UserError, match="is held by process 1 on host-b"):
        loop.train(config, tmp_path, report=False)
    assert taken == [(runs.steps(tmp_path), runs.metrics(tmp_path))]


# Damage.


@quickest_kind
@pytest.mark.parametrize("damage", ["bits changed", "emptied"])
def test_a_damaged_newest_checkpoint_costs_steps_and_nothing_else(
    kind, tmp_path, finished, damage, caplog
):
    trainer, _, config = kind
    crashed(config, tmp_path, trainer, "step", 7)
    newest = tmp_path / "checkpoints" / "6"
    largest = max((newest / "params").rglob("*"), key=lambda path: path.stat().st_size)
    if damage == "bits changed":
        content = np.fromfile(largest, np.uint8)
        content[len(content) // 2] ^= 64
        content.tofile(largest)
    else:
        shutil.rmtree(newest)
        newest.mkdir()
    caplog.set_level("INFO", "rlp")
    loop.train(config, tmp_path, report=False)
    assert any("checkpoint 6 is damaged" in message for message in caplog.messages)
    assert any("at step 4 of 7" in message for message in caplog.messages)
    assert runs.outcome(tmp_path) == runs.outcome(finished(config))


# The mesh.


@pytest.mark.slow  # two separate runs
@pytest.mark.parametrize("kind", ["rlp on text"], indirect=True)
def test_the_mesh_changes_nothing_but_rounding(kind, tmp_path, finished, monkeypatch):
    """The forks and thoughts are equal, and metrics differ only by the order of sums.

    Float32 rounds each sum by 1e-7 of its size. Adam divides a gradient by its magnitude, so where
    it vanishes, rounding would move a parameter by the learning rate; the epsilon used here
    prevents this. (A sample very close to the boundary between two tokens would flip; none does
    with this seed.)
    """
    _, _, config = kind
    config.optimizer.epsilon = 1e-3
    config.batch_size = 8  # both minibatches have a document for each of four shards
    one = finished(config)
    monkeypatch.setattr(assembly, "make_mesh", sharding.make_mesh)
    config.update_from_flattened_dict({"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2})
    assert assembly.build(config).mesh.shape == {"data": 2, "fsdp": 2, "tensor": 2}
    loop.train(config, tmp_path, report=False)
    outcomes = runs.outcome(one), runs.outcome(tmp_path)
    assert all(line.pop("gather_bytes") > 0 for line in outcomes[1]["metrics"])
    assert any(line["grad_norm"] > 0 for line in outcomes[0]["metrics"])
    for name in ("metrics", "evaluation", "thoughts"):
        expected, found = (outcome[name] for outcome in outcomes)
        # thoughts.json contains individual gains, each the difference of two log-likelihoods, with
        # their absolute rounding errors. Those of the untrained model are about 11 nats.
        terms = [abs(x) for x in jax.tree.leaves(expected) if isinstance(x, float)]
        assert_close(found, expected, 5e-6 * max(terms) if name == "thoughts" else 1e-5)


def assert_close(found, expected, absolute):
    """Check that structure, strings and integers are equal, and floats up to a factor of 1e-4."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if isinstance(b, float):
            assert a == pytest.approx(b, rel=1e-4, abs=absolute)
        else:
            assert a == b


# The guard.


@pytest.mark.parametrize("every", [2, 50])
def test_a_run_that_only_gives_nan_stops_and_what_it_saved_is_finite(every, tmp_path, text):
    numbers = {"optimizer.learning_rate": 1e38, "max_bad_steps": 3, "evaluation.every": 0}
    config = runs.config(runs.TEXT, text, numbers, {"checkpoint.every": every})
    message = r"3 updates in a row had a loss or gradient that is not finite, the last at step 4;"
    with pytest.raises(UserError, match=message) as caught:
        loop.train(config, tmp_path, report=False)
    assert ("checkpoints exist for steps 2" in str(caught.value)) == (every == 2)
    assert [line["skipped_updates"] for line in runs.metrics(tmp_path)] == [0, 1, 2, 3]
    assert runs.steps(tmp_path) == ([2] if every == 2 else [])
    if every == 2:
        for leaf in jax.tree.leaves(runs.checkpoint(tmp_path)["params"]):
            assert np.isfinite(leaf).all()
    assert not (tmp_path / "evaluation.json").exists()
    with pytest.raises(UserError, match=message):
        loop.train(config, tmp_path, report=False)
