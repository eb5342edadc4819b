"""Fine-tuning on responses: only their tokens count, however rows are packed or mixed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.sharding import make_mesh
from models.transformer import bind
from models.tree import forward
from rlp.data.batch import Batch, HeldOut
from rlp.data.mix import MixedStream
from rlp.engine import step
from rlp.engine.branches import document_trunk
from rlp.engine.method import Method
from rlp.engine.step import update
from rlp.evaluation.evaluator import Evaluator
from rlp.run import loop
from tests.support import naive, runs, tiny
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture
from tests.support.tiny import BOS, CLOSE, EOS, OPEN, PAD

CONFIG = tiny.model_config()
PARAMS = tiny.params(CONFIG, 3)
WORDS = tiny.words(CONFIG)
# Prompt and response; responses may contain thoughts.
PAIRS = [
    ([BOS, 7, 8], [OPEN, 9, CLOSE, 10, EOS]),
    ([BOS, 11, 6, 5, 12], [13, EOS]),
    ([BOS], [14, 15, 16, EOS]),
    ([BOS, 17, 18, 19, 20, 21], [OPEN, CLOSE, EOS]),
]


def laid(*rows: list[int]) -> Batch:
    """Pack pairs into rows; each argument lists the indices of the pairs of a row."""
    shape = (len(rows), 18)
    tokens, mask = np.full(shape, PAD, np.int32), np.zeros(shape, bool)
    segment, position = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row, numbers in enumerate(rows):
        at = 0
        for n, number in enumerate(numbers, 1):
            prompt, response = PAIRS[number]
            here = slice(at, at := at + len(prompt) + len(response))
            tokens[row, here], segment[row, here] = [*prompt, *response], n
            position[row, here] = np.arange(here.stop - here.start)
            mask[row, here] = [False] * len(prompt) + [True] * len(response)
    index = np.arange(len(rows), dtype=np.int32)
    return Batch(tokens, segment, position, index, np.full((len(rows), 1), -1, np.int32), mask)


class Kept:
    """An optimizer that stores the gradient as its state."""

    can_overflow = False

    def init(self, params):
        return jax.tree.map(jnp.zeros_like, params)

    def apply(self, gradients, state, params, *, norm):
        return params, gradients


@tiny.jit
def stage(batch):
    """Return the loss and the gradient of a step."""
    state = step.new_state(PARAMS, Kept(), False)
    state, metrics, _ = step.next_token_stage(CONFIG, Kept(), state, batch)
    return metrics["loss"], state.optimizer


@tiny.jit
@jax.value_and_grad
def by_hand(params):
    """Compute the mean loss over response tokens, one pair per row."""
    rows = [[*prompt, *response] for prompt, response in PAIRS]
    tokens = np.array([[*row, *[PAD] * (9 - len(row))] for row in rows], np.int32)
    table = naive.logits(CONFIG, params, tokens, np.array([len(row) for row in rows]))
    table = naive.distribution(table, ())
    nats = [
        table[i, at - 1, rows[i][at]]
        for i, (prompt, _) in enumerate(PAIRS)
        for at in range(len(prompt), len(rows[i]))
    ]
    return -sum(nats) / len(nats)


def test_the_loss_is_the_mean_over_response_tokens_however_pairs_are_packed():
    expected, slope = by_hand(PARAMS)
    for rows in ([[0], [1], [2], [3]], [[3, 1], [2, 0]]):
        loss, gradient = stage(laid(*rows))
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)
        assert tiny.relative_error(gradient, slope) < 1e-5


def test_predictions_of_prompt_tokens_get_no_gradient(monkeypatch):
    batch = laid([3, 1], [2, 0])
    trunk, model = document_trunk(batch), bind(CONFIG, PARAMS)
    hidden = forward(model, trunk)

    def loss(change):
        with monkeypatch.context() as patch:
            patch.setattr(update, "forward", lambda model, trunk: forward(model, trunk) + change)
            return step.next_token_stage(CONFIG, Kept(), state, batch)[1]["loss"]

    state = step.new_state(PARAMS, Kept(), False)
    slope = np.asarray(tiny.jit(jax.grad(loss))(jnp.zeros_like(hidden)))
    learned = batch.loss_mask[:, 1:]
    assert (slope[:, -1] == 0).all()  # the last token predicts nothing
    assert (slope[:, :-1][~learned] == 0).all()
    # The gradient of cross-entropy in the logits, p - 1 at the target and p elsewhere.
    targets = jax.nn.one_hot(batch.tokens[:, 1:], CONFIG.vocab_size)
    of_logits = (jax.nn.softmax(model.logits(hidden[:, :-1])) - targets) / learned.sum()
    expected = np.asarray(of_logits @ PARAMS["embedding"])[learned]
    np.testing.assert_allclose(slope[:, :-1][learned], expected, rtol=1e-4, atol=1e-6)


def test_a_mask_of_ones_is_the_loss_of_documents():
    batch = laid([3, 1], [2, 0])
    ones = batch.replace(loss_mask=np.ones_like(batch.loss_mask))
    for masked, plain in zip(*map(stage, (ones, batch.replace(loss_mask=None))), strict=True):
        jax.tree.map(np.testing.assert_array_equal, masked, plain)


def test_the_response_loss_of_held_out_pairs_bans_no_token():
    """Pairs may contain thinking tags, which documents cannot contain."""
    settings = tiny.rlp_settings()
    evaluator = Evaluator(
        Method(CONFIG, settings, WORDS), "uniform", 1, 2, 3, make_mesh(devices=jax.devices()[:1])
    )
    pairs = laid([0], [1], [2], [3])
    found = evaluator.evaluate(PARAMS, HeldOut(None, pairs), jax.random.key(0))
    assert found == {"response_loss": pytest.approx(float(by_hand(PARAMS)[0]), rel=1e-5)}


# ---- runs ----


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    path = folder / "pairs.jsonl"
    rows = [{"q": f"{i} and 1 ", "a": f"{i + 1}" * (i % 3 + 1)} for i in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft = {"train": str(path), "prompt_column": "q", "response_column": "a"}
    return {f"data.sft.{name}": value for name, value in sft.items()}, runs.text_file(folder)


THOUGHTS = {
    *("no_think_accuracy", "greedy_think_accuracy", "sampled_think_accuracy", "no_think_loss"),
    *("think_loss", "mean_information_gain", "thought_length", "closed_fraction", "document_loss"),
}


@pytest.mark.usefixtures("one_device")
def test_a_mixed_run_that_was_stopped_ends_like_one_that_was_not(tmp_path, files):
    sft, text = files
    changes = {"data.sft.share": 0.3, "steps": 5, "evaluation.every": 0}
    config = runs.config(runs.TEXT, text, sft, changes)
    loop.train(config, tmp_path / "whole", report=False)
    with crash_at(MixedStream, "batch", 4), pytest.raises(Crash):
        loop.train(config, tmp_path / "parts", report=False)
    loop.train(config, tmp_path / "parts", report=False)
    whole = runs.outcome(tmp_path / "whole")
    assert runs.outcome(tmp_path / "parts") == whole
    assert THOUGHTS | {"response_loss"} < set(whole["evaluation"])
    assert whole["thoughts"]["documents"]


@pytest.mark.usefixtures("one_device")
def test_a_run_on_pairs_alone_is_judged_by_their_loss(tmp_path, files):
    config = runs.config(runs.TEXT, files[0], {"data.sft.share": 1.0})
    config.optimizer.learning_rate = 0.01
    loop.train(config, tmp_path, report=False)
    whole = runs.outcome(tmp_path)
    assert not THOUGHTS & set(whole["evaluation"])
    assert whole["thoughts"]["documents"] == []
    losses = {line["step"]: line.get("evaluation/response_loss") for line in whole["metrics"]}
    losses[7] = whole["evaluation"]["response_loss"]
    measured = {at: loss for at, loss in losses.items() if loss is not None}
    assert set(measured) == {3, 6, 7}
    assert min(measured, key=measured.get) in whole["checkpoints"]
    assert measured[7] < measured[3]
