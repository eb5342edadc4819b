"""Checkpoints are measured one after the other, and what does not suit one is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import default
from models.sharding import make_mesh
from rlp.capacity import step_memory
from rlp.capacity.device_memory import DoesNotFit, Limits
from rlp.evaluation.measures.estimates import Estimate
from rlp.evaluation.measures.positions import Positions
from rlp.run import measure
from rlp.run.method import TextMethod
from rlp.run.opened_model import Opened
from rlp.runtime.errors import UserError
from tests.support import tiny, words
from tests.support.words import TOKENIZER

CONFIG = tiny.model_config()
MESH = make_mesh(devices=jax.devices()[:1])
TEXTS = [document.text for document in words.located(0, [20, 3, 30, 18])]
SETTINGS = measure.Settings(
    texts=TEXTS, documents=3, positions=Positions(2), thoughts=2, horizon=3, length=5,
    temperature=1.0, window=16, seed=0, branches=8,
)  # fmt: skip


def opened(seed: int) -> Opened:
    method = TextMethod(
        CONFIG, tiny.rlp_settings(), tiny.words(CONFIG, words.USED), TOKENIZER, None, ()
    )
    params = tiny.params(CONFIG, seed)
    return Opened(f"model {seed}", default.get_config(), method, params, MESH, 7, None)


@pytest.fixture(scope="module")
def measured():
    made = lambda source: opened(int(source))
    return measure.measure_all({"one": "4", "two": "5"}, made, SETTINGS)


def test_a_document_without_room_for_a_position_is_left_out(measured):
    for m in measured.values():
        assert m.left_out == 1
        assert m.step == 7
        assert m.text.text.documents == m.counterfactuals.documents == 3
        assert m.text.text.bytes == sum(len(text.encode()) for text in TEXTS if len(text) > 20)


def test_the_thoughts_are_those_of_the_tables(measured):
    for m in measured.values():
        assert len(m.thoughts) == 3 * 2 * 2
        gains = [thought["gains"]["real"] for thought in m.thoughts]
        assert np.mean(gains) == pytest.approx(m.counterfactuals.gain.value, rel=1e-4)
        for name, gain in m.counterfactuals.replaced.items():
            other = [thought["gains"][name] for thought in m.thoughts]
            assert np.mean(other) == pytest.approx(gain.value, rel=1e-4)
        per_token = m.text.targets.gain["mean"].value
        assert per_token * 3 == pytest.approx(m.counterfactuals.gain.value, rel=1e-4)
        for thought in m.thoughts:
            text = TEXTS[[0, 2, 3][thought["document"]]].split()
            position = thought["position"]
            assert thought["target"].split() == text[position : position + 3]


def test_checkpoints_with_one_tokenizer_are_measured_at_the_same_positions(measured):
    one, two = ([(t["document"], t["position"]) for t in m.thoughts] for m in measured.values())
    assert one == two
    first, second = measured.values()
    assert first.counterfactuals.gain != second.counterfactuals.gain


def test_tables_and_files_have_all_checkpoints(measured):
    text = measure.markdown(measured)
    for title, rows in measure.tables(measured).items():
        first = set() if title.startswith("Difference") else {"one"}
        assert {row[0] for row in rows[1:]} == first | {"two"}
        lines = measure.terminal(rows).splitlines()
        assert len(lines) == len(rows)
        assert lines[0].split()[0] == "checkpoint"
        assert f"**{title}**" in text
    json.dumps([dataclasses.asdict(m) for m in measured.values()])


def test_differences_are_paired_by_document(measured):
    one, two = measured.values()
    heading, row = measure.difference_rows(measured)
    gaps = {document: [] for document in range(3)}
    for a, b in zip(two.thoughts, one.thoughts, strict=True):
        gaps[a["document"]].append(a["gains"]["real"] - b["gains"]["real"])
    means = np.array([np.mean(of_document) for of_document in gaps.values()])
    expected = Estimate(means.mean(), means.std(ddof=1) / 3**0.5)
    assert row[heading.index("real")] == expected.shown("+.3f")
    assert row[0] == "two"
    same = measure.difference_rows({"one": one, "again": one})
    assert same[1][1:] == ["+0.000 ± 0.000"] * 6


def test_checkpoints_with_other_targets_have_no_difference(measured):
    one, two = measured.values()
    elsewhere = [thought | {"position": 0} for thought in two.thoughts]
    moved = {"one": one, "two": dataclasses.replace(two, thoughts=elsewhere)}
    assert len(measure.difference_rows(moved)) == 1
    assert not any(title.startswith("Difference") for title in measure.tables(moved))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 8}, "--window=8 is too short for --horizon=3 and x; set it to 9 or more"),
        ({"length": 1}, "--length=1 leaves no room for a word .* has 1 token.* to 2 or more"),
        ({"texts": TEXTS[1:2]}, "x: no document has more than --horizon=3 tokens"),
        ({"texts": TEXTS[:1]}, "one document, so there is no other one"),
        ({"positions": Positions(marker="zebra")}, "no document contains --fork_marker='zebra'"),
    ],
)
def test_what_does_not_suit_a_checkpoint_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        measure.measure("x", opened(4), dataclasses.replace(SETTINGS, **changes))


@pytest.mark.parametrize(
    ("devices", "changes", "held", "named"),
    [
        (1, {"branches": 8}, 2 * 2 * 2, "--branches .it is 8."),  # 2 rows, with 2 forks each
        (4, {"branches": 8}, 2 * 2, "--thoughts .it is 2."),
        (1, {"branches": 64}, 3 * 2 * 2, "--branches .it is 64."),  # there are 3 rows
        (1, {"branches": 8, "positions": Positions(1), "thoughts": 16}, 16, "--thoughts .it is 16"),
        (4, {"branches": 64, "positions": Positions(1), "thoughts": 1}, 1, "--length .it is 900."),
    ],
)
def test_what_a_device_holds_must_fit_on_it(devices, changes, held, named, monkeypatch):
    """The limit is one byte less than what is needed for that number of thoughts, and just that."""
    settings = dataclasses.replace(SETTINGS, length=900, **changes)
    on_mesh = dataclasses.replace(opened(4), mesh=make_mesh(devices=jax.devices()[:devices]))
    model, mesh = on_mesh.method.model, on_mesh.mesh
    needs = step_memory.of_parameters(model, mesh) + step_memory.of_unrolled_layers(model)
    needs += step_memory.of_sampling(model, 900, held, {})
    needed = sum(need.size for need in needs)

    class Fits(Exception):
        """The thoughts would be sampled now."""

    def sampled(*_):
        raise Fits

    monkeypatch.setattr(measure.text_measures, "whole_text", sampled)
    for limit, error, message in ((needed - 1, DoesNotFit, named), (needed, Fits, None)):
        limits = Limits(limit, "a chip", None)
        monkeypatch.setattr(measure.device_memory, "limits", lambda _, limits=limits: limits)
        with pytest.raises(error, match=message):
            measure.measure("x", on_mesh, settings)
