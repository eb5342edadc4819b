"""A run that was stopped, however and wherever, ends as the one that was not."""

import itertools
import json
import os
import shutil
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from models import sharding
from models.transformer import shapes
from rlp.data.compass import CompassProblems, CompassStream
from rlp.data.text_stream import TextStream
from rlp.evaluation.evaluator import Evaluator
from rlp.metrics import catalogue, warning_rules, writer
from rlp.metrics.watch import Rule
from rlp.metrics.writer import MetricsWriter
from rlp.run import assembly, finish, loop
from rlp.run.assembly import read_data
from rlp.run.schedule import build_optimizer
from rlp.runtime import lease, run_folder
from rlp.runtime.errors import UserError
from rlp.runtime.preemption import Preempted
from rlp.training.budget import UNITS
from rlp.training.checkpoint import Checkpoints
from rlp.training.cost import PARTS
from rlp.training.flops import by_part, next_token_flops, rlp_flops
from rlp.training.trainers import NextTokenTrainer, RLPTrainer
from rlp.training.trainers.answers import AnswerTrainer
from tests.support import runs
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device")

# One after another, each from where the one before left the folder. With checkpoints at 2, 3, 4, 6
# and 7 of 7 steps, evaluations at 3 and 6.
CRASHES = {
    "a first step": ("trainer", 1),
    "reading data": ("stream", 2),
    "a line of metrics": (MetricsWriter, "write", 3),
    "behind a line of metrics": (MetricsWriter, "write", -1),
    "an evaluation": (Evaluator, "figures", 1),
    "a save": (Checkpoints, "save", 1),
    "behind a save": (Checkpoints, "save", -1),
    "a warning": (writer, "write_json", 2),  # of step 4; the first is what step 3 left
    "two steps further": ("trainer", 3),
    "the last evaluation": (Evaluator, "figures", -2),
    "the thoughts": (Evaluator, "browse", 1),
    "behind the last save": (finish, "write_json", 1),
    "between the last files": (finish, "write_json", 2),
}
# The kind that runs fastest crashes at all of them, each other kind at every third: between them,
# they crash at all of them once more.
SOME = {"rlp": 0, "rlp on text": 1, "rlvr": 2}
KINDS = {
    "next_token": (NextTokenTrainer, TextStream, runs.TEXT),
    "rlp": (RLPTrainer, CompassStream, runs.COMPASS | {"objective": "rlp"}),
    "rlp on text": (RLPTrainer, TextStream, runs.TEXT_RLP),
    "rlvr": (AnswerTrainer, CompassProblems, runs.COMPASS_RLVR),
}


@pytest.fixture(scope="module", autouse=True)
def early_warnings():
    """Warnings at steps 2 and 4 of any run, which tell the losses of the steps to the bit."""
    tell = lambda past, settings: repr(past.values("loss"))
    rules = [Rule(f"{last} losses", ("loss",), tell, 1, last) for last in (1, 3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warning_rules, "RULES", rules)
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return runs.text_file(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Makes the uninterrupted run of a config, once."""
    made = {}

    def finish(config):
        key = json.dumps(config.to_dict())
        if key not in made:
            made[key] = tmp_path_factory.mktemp("run") / "whole"
            loop.train(config, made[key], report=False)
        return made[key]

    return finish


@pytest.fixture
def kind(request, text):
    """(trainer, stream, config) of one of KINDS."""
    trainer, stream, changes = KINDS[request.param]
    return trainer, stream, runs.config(changes, text if stream is TextStream else {})


every_kind = pytest.mark.parametrize("kind", KINDS, indirect=True)
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
    ids=[*KINDS],
)
def test_a_run_that_crashes_again_and_again_ends_like_one_that_never_did(
    kind, crashes, tmp_path, finished
):
    trainer, stream, config = kind
    places = {"trainer": (trainer, "step"), "stream": (stream, "batch")}
    reached = []
    for owner, *moment in map(CRASHES.get, crashes):
        crashed(config, tmp_path, *places.get(owner, (owner,)), *moment)
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
        # Not the loss, which is next to nothing where the policy is the one that sampled.
        assert before["grad_norm"] != after["grad_norm"]


# SIGTERM.


def stopped_at(config, workdir, owner, name, call):
    """Runs until SIGTERM comes in the middle of a call; the step of the newest checkpoint."""
    before, calls = getattr(owner, name), []

    def count(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return before(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, count)
        with pytest.raises(Preempted):
            loop.train(config, workdir, report=False)
    assert not (workdir / "evaluation.json").exists()
    return max(runs.steps(workdir), default=None) if any(workdir.iterdir()) else None


@pytest.mark.parametrize("kind", ["next_token", "rlp"], indirect=True)
def test_sigterm_saves_the_step_reached_and_the_run_goes_on_from_it(kind, tmp_path, finished):
    trainer, stream, config = kind
    stops = [
        ((trainer, "step", 2), 2),
        ((Evaluator, "figures", 1), 3),  # seen to its end, for its figures belong to the step
        ((MetricsWriter, "write", 2), 5),
        # The first were held-out documents and a step; noticed in the last evaluation.
        ((stream, "batch", 3), 7),
    ]
    for moment, step in stops:
        assert stopped_at(config, tmp_path, *moment) == step
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
            monkeypatch.setattr(lease, "EXPIRES_AFTER_S", 0.0)  # not renewed for that long
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


# Metrics.

COMMON = {
    *("step", "loss", "grad_norm", "learning_rate", "tokens_documents"),
    *("tokens_rollout", "tokens_update", "flops", *(f"flops_{part}" for part in PARTS)),
    *("seconds_device", "seconds_data", "seconds_update", "skipped_updates"),
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
FIGURES = {
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
        figures = FIGURES | set(problems)
        evaluated = line["step"] in (3, 6)
        assert held_out == ({f"evaluation/{name}" for name in figures} if evaluated else set())
        expected = METRICS[config.objective]
        assert set(line) - held_out == expected | ({"kl"} if config.rlp.kl_weight else set())
        assert all(np.isfinite(value) for value in line.values())
        assert all(name == "step" or catalogue.find(name) for name in line)
        assert line["skipped_updates"] == 0


@every_kind
def test_costs_add_up(kind, finished):
    """Each line's counts exceed those before by what the step's shapes and thoughts say."""
    _, _, config = kind
    run = assembly.build(config)
    train, _ = read_data(config, run)
    size, length, model = config.batch_size, config.data.sequence_length, run.method.model
    optimizer = build_optimizer(config, config.steps).flops(shapes(model))
    counts = {name for name in COMMON if name.startswith(("tokens_", "flops"))}
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
            s, words = run.sampled.settings, run.sampled.vocabulary
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


# Starting from another run.


@pytest.mark.parametrize("which", ["", "@6", "@best"])
def test_a_run_starts_from_exactly_the_parameters_it_names(which, tmp_path, text, finished):
    base = finished(runs.config(runs.TEXT, text))
    if which == "@best":
        figures = {
            line["step"]: line["evaluation/document_loss"]
            for line in runs.metrics(base)
            if "evaluation/document_loss" in line
        }
        figures[7] = json.loads((base / "evaluation.json").read_text())["document_loss"]
        step = min(figures, key=figures.get)
    else:
        step = int(which[1:] or 7)
    config = runs.config(runs.TEXT_RLP, text, {"init_from": f"{base}{which}"})
    with crash_at(RLPTrainer, "step", 1) as calls, pytest.raises(Crash):
        loop.train(config, tmp_path, report=False)
    ((_, state, _, _),) = calls
    expected = runs.bits(runs.checkpoint(base, step)["params"])
    assert runs.bits(state.params) == expected
    assert runs.bits(state.baseline) == expected
    assert runs.bits(state.reference) == expected
    assert int(state.step) == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(state.optimizer))


def test_a_run_goes_on_without_the_run_it_started_from(tmp_path, text, finished):
    base = shutil.copytree(finished(runs.config(runs.TEXT, text)), tmp_path / "base")
    config = runs.config(runs.TEXT, text, {"init_from": str(base), "steps": 3})
    crashed(config, tmp_path / "next", NextTokenTrainer, "step", 3)
    shutil.rmtree(base)
    loop.train(config, tmp_path / "next", report=False)
    assert runs.steps(tmp_path / "next")[-1] == 3


# Ending where another run did.


@pytest.mark.parametrize("unit", ["flops", "tokens"])
def test_matched_budgets_agree_within_one_step(unit, tmp_path, text, finished):
    """There and back: next-token training as long as RLP, and RLP, stopped, as long as that."""
    rlp, cpt, again = finished(runs.config(runs.TEXT_RLP, text)), tmp_path / "cpt", tmp_path / "rlp"
    matched = lambda changes, other: runs.config(changes, text, {"match": f"{other}:{unit}"})
    loop.train(matched(runs.TEXT, rlp), cpt, report=False)
    back = matched(runs.TEXT_RLP, cpt)
    crashed(back, again, RLPTrainer, "step", 5)
    crashed(back, again, finish, "write_json", 1)  # behind the last step and its checkpoint
    loop.train(back, again, report=False)

    for workdir, other in ((cpt, rlp), (again, cpt)):
        before, last = (line[UNITS[unit]] for line in runs.metrics(workdir)[-2:])
        result = json.loads((workdir / "evaluation.json").read_text())
        wanted = json.loads((other / "evaluation.json").read_text())[UNITS[unit]]
        assert result[UNITS[unit]] == last
        assert result["step"] == result["steps"] == len(runs.metrics(workdir)) > 5
        assert abs(last - wanted) < last - before
    assert runs.metrics(again)[-1]["step"] == 7
    outcomes = [runs.outcome(workdir) for workdir in (rlp, again)]
    for outcome in outcomes:
        del outcome["config"]  # names the other run
    assert outcomes[0] == outcomes[1]


def test_seconds_of_all_devices_are_matched(tmp_path, text, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "evaluation.json").write_text('{"seconds_device": 3.4}')
    config = runs.config(runs.TEXT, text, {"match": f"{tmp_path / 'other'}:seconds"})
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    result = loop.train(config, tmp_path / "run", report=False)
    assert result["step"] == result["seconds_device"] == 3  # a tick a step


# One folder, one run.


@quickest_kind
def test_a_finished_run_is_left_as_it_is(kind, tmp_path, finished, monkeypatch):
    _, _, config = kind
    workdir = shutil.copytree(finished(config), tmp_path / "run")
    before = snapshot(workdir)
    monkeypatch.setattr(loop, "_Loop", None)
    result = loop.train(config, workdir, report=False)
    assert result == json.loads((workdir / "evaluation.json").read_text())
    assert snapshot(workdir) == before
    loop.train(config, workdir)  # it was stopped before its report was written
    assert "</html>" in (workdir / "report.html").read_text()
    monkeypatch.setattr(loop, "write_report_separately", None)
    loop.train(config, workdir)


@quickest_kind
def test_what_was_damaged_of_the_metrics_of_a_run_is_named_and_the_state_is_the_same(
    kind, tmp_path, finished, caplog
):
    _, _, config = kind
    with crash_at(NextTokenTrainer, "step", 6), pytest.raises(Crash):
        loop.train(config, tmp_path, report=False)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1][:20], *lines[2:]]))
    caplog.clear()
    loop.train(config, tmp_path, report=False)
    assert [m for m in caplog.messages if "metrics of step 2 are missing" in m]
    found, whole = runs.outcome(tmp_path), runs.outcome(finished(config))
    assert found["arrays"] == whole["arrays"]
    assert found["metrics"] == [line for line in whole["metrics"] if line["step"] != 2]
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes() == lines[1][:20] + b"\n"


@quickest_kind
def test_another_config_is_refused_unless_allowed(kind, tmp_path, finished):
    _, _, config = kind
    workdir = shutil.copytree(finished(config), tmp_path / "run")
    before = snapshot(workdir)
    with config.unlocked():
        config.steps, config.optimizer.learning_rate = 9, 5e-4
    with pytest.raises(UserError, match="another config") as caught:
        loop.train(config, workdir, report=False)
    named = str(caught.value)
    assert "optimizer.learning_rate: 0.001 -> 0.0005; steps: 7 -> 9" in named
    assert snapshot(workdir) == before
    with crash_at(NextTokenTrainer, "step", 2), pytest.raises(Crash):
        loop.train(config, workdir, allow_config_change=True, report=False)
    # The folder is the new run's now: the old end does not stand for it.
    result = loop.train(config, workdir, report=False)
    assert result["step"] == 9
    assert [line["step"] for line in runs.metrics(workdir)] == list(range(1, 10))
    assert [line["learning_rate"] for line in runs.metrics(workdir)[6:]] == pytest.approx(
        [1e-3, 5e-4, 5e-4], rel=1e-6
    )


@quickest_kind
def test_a_state_that_does_not_fit_is_refused_and_nothing_is_touched(kind, tmp_path, finished):
    _, _, config = kind
    workdir = shutil.copytree(finished(config), tmp_path / "run")
    before = snapshot(workdir)
    with config.unlocked():
        config.model.ffn_size = 48
    with pytest.raises(UserError, match=r"does not fit this run's config: .*float32\[1,32,32\] th"):
        loop.train(config, workdir, allow_config_change=True, report=False)
    assert snapshot(workdir) == before


def snapshot(folder):
    """Every file below a folder, with its content."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# The mesh.


@pytest.mark.slow  # two runs of its own
@pytest.mark.parametrize("kind", ["rlp on text"], indirect=True)
def test_the_mesh_changes_nothing_but_rounding(kind, tmp_path, finished, monkeypatch):
    """The same forks and thoughts, and the same figures but for sums in another order.

    Float32 rounds each sum by 1e-7 of its size. Adam divides a gradient by its own size, so where
    it vanishes, rounding would move a parameter by the learning rate; the epsilon here keeps such
    parameters where they are. (A draw that close to the border of two tokens takes the other one;
    none of this seed does.)
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
        # In thoughts.json every single gain is there: the difference of two log-likelihoods, whose
        # rounding it has, however small it is itself. The untrained model's are some 11 nats.
        terms = [abs(x) for x in jax.tree.leaves(expected) if isinstance(x, float)]
        assert_close(found, expected, 5e-6 * max(terms) if name == "thoughts" else 1e-5)


def assert_close(found, expected, absolute):
    """Structure, texts and whole numbers are equal, other numbers up to 1e-4 of their size."""
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
    assert ("there are checkpoints of steps 2" in str(caught.value)) == (every == 2)
    assert [line["skipped_updates"] for line in runs.metrics(tmp_path)] == [0, 1, 2, 3]
    assert runs.steps(tmp_path) == ([2] if every == 2 else [])
    if every == 2:
        for leaf in jax.tree.leaves(runs.checkpoint(tmp_path)["params"]):
            assert np.isfinite(leaf).all()
    assert not (tmp_path / "evaluation.json").exists()
    with pytest.raises(UserError, match=message):
        loop.train(config, tmp_path, report=False)
