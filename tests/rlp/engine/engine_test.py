"""How a step is computed changes only its cost: waves, micro-batches, decoding widths, chunks.

Sums are taken in another order and nothing else, so figures agree to float32 rounding: 1e-5 of a
leaf's norm. Actions are equal, because a draw falls within rounding of a border once in a hundred
thousand; the seeds are fixed. What the engine promises of its cost is held here too: memory that
does not grow with branches times trunk, and no program that is compiled twice.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.step.timing import compilations
from models import backend
from models.sharding import make_mesh
from models.transformer import bind, shapes
from models.tree import Branches, Trunk, forward
from rlp.data.rows import Rows
from rlp.engine import rollout as rollouts
from rlp.engine import step
from rlp.engine.branches import Thoughts, document_trunk
from rlp.engine.gradient import policy_gradient
from rlp.engine.method import Method
from rlp.engine.optimizer import make_optimizer
from rlp.engine.placement import state_shardings
from rlp.engine.rollout import Rollout
from rlp.engine.rollout_metrics import rollout_metrics
from rlp.engine.step.waves import join_waves
from rlp.training.flops import Work, forward_flops
from rlp.training.trainers import Clock, RLPTrainer
from tests.support import naive, tiny

CONFIG = tiny.model_config()
SMALL = tiny.model_config(num_layers=1)  # compiles faster, where one layer tells as much
WORDS = tiny.words(CONFIG)
PARAMS = functools.partial(tiny.params, seed=4)  # closes a fifth of its thoughts
BATCH = tiny.documents(0, [12, 16, 9, 14], 16, 22, forks=2)
KEY = jax.random.key(3)
PROMPT = (14, 5, 16)
# With a small epsilon, Adam's first move is the sign of the gradient, whatever its rounding.
OPTIMIZER = make_optimizer(
    learning_rate=1.0, schedule="constant", warmup_steps=0, final_share=1.0, total_steps=10,
    beta1=0.9, beta2=0.95, epsilon=1.0, weight_decay=0.0, clip_norm=0.0,
)  # fmt: skip

slow = pytest.mark.slow


def phi(config):
    """Parameters of a baseline: those of the policy, changed."""
    return jax.tree.map(lambda x: 0.7 * x, PARAMS(config))


SETTINGS = tiny.rlp_settings()  # 4 documents, 2 forks each, 4 thoughts each
PROMPTED = tiny.rlp_settings(
    prompt=PROMPT, positions="loss", unclosed="mask", thought_length=8, temperature=1.3,
    kl_weight=0.1,
)  # fmt: skip
LONG = tiny.rlp_settings(thought_length=12)
# Tags of two tokens; the closing one is such as these parameters like to write.
TAGS = tiny.words(CONFIG, think_open=(7, 8), think_close=(4, 15))
BRIEF = tiny.words(
    CONFIG, used=5, think_open=(7, 8), think_close=(4, 3)
)  # of two words, so it comes
IN_PARTS = dataclasses.replace(SETTINGS, minibatches=2)
ALL = dataclasses.replace(
    SETTINGS, next_token_weight=0.5, target_weight=0.3, kl_weight=0.1, update_micro_batch=4
)


# ---- waves


@functools.cache
def make_trainer(settings, devices=1, words=WORDS):
    """A trainer and the shardings of its state."""
    mesh = make_mesh(devices=jax.devices()[:devices])
    shardings = state_shardings(mesh, SMALL, OPTIMIZER, True, reference=settings.keeps_reference)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", tiny.jit)  # compiles faster
        trainer = RLPTrainer(Method(SMALL, settings, words), OPTIMIZER, mesh, shardings)
    return trainer, shardings


def fresh_state(shardings):
    params = jax.tree.map(jnp.copy, PARAMS(SMALL))  # a step consumes its state
    state = step.new_state(params, OPTIMIZER, False)
    reference = phi(SMALL) if shardings.reference is not None else None
    state = dataclasses.replace(state, baseline=phi(SMALL), reference=reference)
    return jax.device_put(state, shardings)


@functools.cache
def stepped(settings, devices=1, words=WORDS):
    """Thoughts of a step, the state after it, and its metrics."""
    trainer, shardings = make_trainer(settings, devices, words)
    rollout = trainer.think(fresh_state(shardings), Rows.of(BATCH), KEY, Clock())["rollout"]
    state, metrics, _ = trainer.step(fresh_state(shardings), Rows.of(BATCH), KEY)
    return jax.device_get((rollout.thoughts, state, metrics))


def assert_same_step(found, expected):
    (thoughts, state, metrics), (whole, whole_state, whole_metrics) = found, expected
    assert np.array_equal(thoughts.actions, whole.actions)
    assert np.array_equal(thoughts.length, whole.length)
    np.testing.assert_allclose(thoughts.logprobs, whole.logprobs, atol=2e-5)
    assert metrics.keys() == whole_metrics.keys()
    for name in metrics.keys() - {"decode_use"}:  # each wave ends with its own longest thought
        assert metrics[name] == pytest.approx(whole_metrics[name], rel=1e-5, abs=1e-5), name
    gradient = lambda state: state.optimizer[1][0].mu
    assert tiny.relative_error(gradient(state), gradient(whole_state)) < 1e-5
    change = lambda state: jax.tree.map(np.subtract, state.params, jax.device_get(PARAMS(SMALL)))
    assert tiny.relative_error(change(state), change(whole_state)) < 1e-4  # parameters' rounding
    assert np.abs(change(whole_state)["embedding"]).max() > 1e-3
    assert 0 < metrics["decode_use"] <= 1
    assert metrics["logprob_gap"] < 1e-5


in_waves = pytest.mark.parametrize(
    ("settings", "limit"),
    [
        pytest.param(PROMPTED, 4, id="1 fork, prompted"),
        pytest.param(ALL, 8, id="1 document, all losses", marks=slow),
        pytest.param(SETTINGS, 16, id="2 documents", marks=slow),
    ],
)


@in_waves
def test_a_step_in_waves_is_the_step_at_once(settings, limit):
    found = stepped(dataclasses.replace(settings, max_branches_in_flight=limit))
    assert_same_step(found, stepped(settings))


def test_a_phi_that_never_moves_is_the_reference():
    """With a phi and a reference that are the same network, either gives the same step."""
    found = stepped(dataclasses.replace(PROMPTED, baseline="frozen"))
    assert_same_step(found, stepped(PROMPTED))
    (_, state, metrics), (_, usual, _) = found, stepped(PROMPTED)
    assert metrics["kl"] > 0.01
    assert state.reference is None
    for kept in (state.baseline, usual.reference):
        jax.tree.map(np.testing.assert_array_equal, kept, jax.device_get(phi(SMALL)))


@slow
def test_a_step_in_waves_with_long_tags_is_the_step_at_once():
    settings = dataclasses.replace(LONG, max_branches_in_flight=4, update_micro_batch=4)
    whole = stepped(LONG, words=TAGS)
    assert_same_step(stepped(settings, words=TAGS), whole)
    assert 0 < whole[0].closed.mean() < 1


@slow
@pytest.mark.parametrize(
    ("settings", "limit"),
    [(PROMPTED, 16), (ALL, 8), (IN_PARTS, 8)],
    ids=["prompted", "all losses", "minibatches"],
)
def test_a_step_in_waves_on_two_devices_is_the_step_at_once(settings, limit):
    found = stepped(dataclasses.replace(settings, max_branches_in_flight=limit), devices=2)
    assert_same_step(found, stepped(settings))


@slow
def test_waves_that_shrink_as_thoughts_close_are_the_step_at_once(monkeypatch):
    monkeypatch.setattr(rollouts, "CROWD_ROWS", 1)
    whole = stepped(LONG)
    thoughts, _, metrics = whole
    assert metrics["decode_use"] > thoughts.length.mean() / thoughts.length.max()  # they do
    assert_same_step(stepped(dataclasses.replace(LONG, max_branches_in_flight=8)), whole)


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("waves", [1, 2])
def test_waves_are_joined_in_the_order_of_the_batch(shards, waves):
    """Eight documents of two forks, a wave with one fork of each; shards have them in a row."""
    mesh = make_mesh(-1, 1, 1, devices=jax.devices()[:shards])
    index = np.arange(8, dtype=np.int32)
    batch = tiny.documents(0, [9] * 8, 9, 22).replace(index=index)
    parts = []
    for wave in range(waves):
        here = Rows.of(batch).placed(mesh, wave, waves).index
        fork = lambda k, here=here: here[:, None] * 10 + k
        parts += [(Joined(here, fork(k), jnp.int32(1)), fork(k)) for k in (0, 1)]
    with jax.set_mesh(mesh):
        rollout, evidence = join_waves(parts, 2)
    assert rollout.trunk.tolist() == index.tolist()
    expected = [[10 * i, 10 * i + 1] for i in index.tolist()]
    assert rollout.thoughts.tolist() == evidence.tolist() == expected
    assert rollout.decoded == 2 * waves


@flax.struct.dataclass
class Joined:
    """What is joined of a rollout."""

    trunk: jax.Array
    thoughts: jax.Array
    decoded: jax.Array


# ---- minibatches


def test_minibatches_are_updates_of_their_own_on_parts_of_the_documents():
    trainer, shardings = make_trainer(PROMPTED)
    cut, _ = make_trainer(dataclasses.replace(PROMPTED, minibatches=2, updates_per_rollout=2))
    values = trainer.think(fresh_state(shardings), Rows.of(BATCH), KEY, Clock())
    rollout, evidence = values["rollout"], values["evidence"]
    state, found = cut.update(fresh_state(shardings), values, Clock())

    by_hand, expected = fresh_state(shardings).trained(), []
    for documents in ([0, 2], [1, 3]) * 2:
        # Twice, so that nothing is compiled again: the mean of a loss is the same.
        part = (rollout.replace(decoded=None), evidence)
        part, evidence_of_part = tiny.rows(part, np.array(documents * 2))
        part = part.replace(decoded=rollout.decoded)
        by_hand, metrics = trainer.programs["update"](by_hand, part, evidence_of_part, 0)
        expected.append(metrics)
    assert len(found) == len(expected)
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name] == pytest.approx(float(theirs[name]), rel=1e-4, abs=1e-5), name
        assert (ours["clip_fraction"] > 0) == (number > 0)  # ratios against who sampled
    assert tiny.relative_error(state.params, by_hand.params) < 1e-5
    moments = lambda state: state.optimizer[1][0]
    assert moments(state).count == moments(by_hand).count == 4
    assert tiny.relative_error(moments(state).mu, moments(by_hand).mu) < 1e-4
    assert state.step == 1


def test_a_limit_below_one_group_is_refused():
    trainer, shardings = make_trainer(tiny.rlp_settings(max_branches_in_flight=3))
    with pytest.raises(ValueError, match=r"rlp\.max_branches_in_flight=3 .* set it to 4 or"):
        trainer.step(fresh_state(shardings), Rows.of(BATCH), KEY)


@pytest.mark.parametrize("limit", [0, 4])
def test_a_run_compiles_in_its_first_step_only(limit):
    trainer, shardings = make_trainer(dataclasses.replace(PROMPTED, max_branches_in_flight=limit))
    state, *_ = trainer.step(fresh_state(shardings), Rows.of(BATCH), KEY)
    with compilations() as found:
        jax.jit(lambda x: x + limit)(1.0)
    assert found  # the counter counts
    lengths = [[16, 16, 16, 16], [5, 16, 7, 9], [8, 6, 12, 5]]
    seen = set()
    with compilations() as found:
        for number, each in enumerate(lengths):
            batch = tiny.documents(number + 1, each, 16, 22, forks=2)
            state, metrics, cost = trainer.step(state, Rows.of(batch), jax.random.key(number))
            seen.add((cost.rollout, sum(cost.flops.values()), metrics["closed_fraction"]))
    assert found == []
    assert len(seen) == len(lengths)
    assert int(state.step) == 1 + len(lengths)


# ---- decoding with fewer branches


@functools.cache
def rolled(config, settings, divisors, choices=backend.CPU, words=WORDS):
    """A rollout whose decoding goes on with these shares of a document's branches."""
    method = (config, settings, words)

    def run(params):
        reading = step.read_stage(*method, params, params, BATCH, KEY, 5)
        return step.rollout_stage(*method, params, reading)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollouts, "CROWD_ROWS", 1)
        patch.setattr(backend, "CPU", dataclasses.replace(choices, decode_divisors=divisors))
        return jax.device_get(tiny.jit(run)(PARAMS(config)))


def decoded_tokens(length, divisors) -> int:
    """Branches run in every step, on the smallest width that holds the open ones of each row."""
    rows, count = length.shape
    widths = [-(-count // divisor) for divisor in divisors]
    open_ = [(length > slot).sum(axis=1).max() for slot in range(length.max())]
    return sum(rows * min(w for w in widths if w >= most) for most in open_)


def live_cache(rollout):
    """Keys and values [M, layers, kv_heads, head_dim] of the slots that somebody sees."""
    live = rollout.branches.live[:, :, : jax.tree.leaves(rollout.branch_cache)[0].shape[-2]]
    cache = rollout.branch_cache.kinds["attention"]
    if isinstance(cache, list):
        cache = jax.tree.map(lambda *layers: np.stack(layers), *cache)
    choose = lambda x: np.asarray(x).transpose(1, 3, 4, 0, 2, 5)[live]
    return choose(cache.key), choose(cache.value)


SCANNED = dataclasses.replace(backend.CPU, unrolled_layers=0)  # caches of another form


@pytest.mark.parametrize(
    ("divisors", "choices", "words"),
    [
        pytest.param((1, 2, 4), backend.CPU, WORDS, id="1-2-4"),
        pytest.param((1, 2, 4), SCANNED, WORDS, id="1-2-4, scanned", marks=slow),
        pytest.param((1, 3), backend.CPU, WORDS, id="1-3", marks=slow),  # 3 does not divide 8
        pytest.param((1, 2, 4), backend.CPU, BRIEF, id="1-2-4, tags of two"),
    ],
)
def test_a_smaller_batch_decodes_the_same_thoughts_with_less(divisors, choices, words):
    whole = rolled(SMALL, LONG, (1,), words=words)
    found = rolled(SMALL, LONG, divisors, choices, words)
    assert isinstance(found.branch_cache.kinds["attention"], list) == (choices is backend.CPU)
    assert np.array_equal(found.thoughts.actions, whole.thoughts.actions)
    assert np.array_equal(found.thoughts.length, whole.thoughts.length)
    assert np.array_equal(found.thoughts.closed, whole.thoughts.closed)
    np.testing.assert_allclose(found.thoughts.logprobs, whole.thoughts.logprobs, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, found.branches, whole.branches)
    for cache, expected in zip(live_cache(found), live_cache(whole), strict=True):
        np.testing.assert_allclose(cache, expected, atol=1e-5)

    length = whole.thoughts.length
    open_branches = {int((length > slot).sum(axis=1).max()) for slot in range(12)}
    assert {8, 4, 2} <= open_branches  # all widths had their turn
    assert whole.decoded == length.size * length.max()
    assert found.decoded == decoded_tokens(length, divisors)
    assert whole.decoded > found.decoded >= length.sum()


# ---- micro-batches


MASKED = tiny.rlp_settings(unclosed="mask", prompt=PROMPT)
WEIGHTED = dataclasses.replace(MASKED, next_token_weight=0.5, kl_weight=0.1)


@functools.cache
def thoughts_of(settings, config):
    """A rollout, made by a policy that is a little older, with advantages and counted [B, N]."""
    rollout = rolled(config, settings, (1,)).without_cache()
    thoughts, random = rollout.thoughts, np.random.default_rng(0)
    live = np.arange(thoughts.actions.shape[-1]) < thoughts.length[..., None]
    moved = thoughts.logprobs + random.uniform(-0.5, 0.5, live.shape).astype(np.float32)
    rollout = dataclasses.replace(
        rollout, thoughts=thoughts.replace(logprobs=np.where(live, moved, 0)), decoded=None
    )
    advantages = random.normal(size=thoughts.length.shape).astype(np.float32)
    masked = settings.unclosed == "mask"
    counted = thoughts.closed if masked else random.random(thoughts.length.shape) < 0.8
    return rollout, advantages, counted


@functools.cache
def gradient_of(settings, config, remat="none"):
    """Loss, metrics and gradient."""
    rematerialised = dataclasses.replace(config, remat=remat)

    def run(params, *inputs):
        return policy_gradient(
            params, rematerialised, settings, WORDS, *inputs,
            micro_batch=settings.update_micro_batch,
        )  # fmt: skip

    drawn = thoughts_of(MASKED if settings.prompt else SETTINGS, config)
    reference = drawn[0].thoughts.logprobs if settings.kl_weight else None
    weights = 0.7 * np.abs(drawn[1]) * drawn[2] if settings.target_weight else None
    drawn = (*drawn, reference, weights)
    inputs = jax.tree.map(jnp.asarray, drawn)
    return jax.device_get(tiny.jit(run)(PARAMS(config), *inputs))


on_configs = pytest.mark.parametrize(
    "config", [SMALL, pytest.param(CONFIG, marks=slow)], ids=["1 layer", "2 layers"]
)


def assert_same_gradient(found, expected):
    (value, metrics, gradient), (whole, whole_metrics, whole_gradient) = found, expected
    assert value == pytest.approx(float(whole), rel=1e-5)
    assert metrics.keys() == whole_metrics.keys()
    for name in metrics:
        assert metrics[name] == pytest.approx(float(whole_metrics[name]), rel=1e-5), name
    assert tiny.relative_error(gradient, whole_gradient) < 1e-5


@on_configs
def test_a_gradient_one_branch_at_a_time_is_the_gradient_at_once(config):
    each = dataclasses.replace(WEIGHTED, update_micro_batch=1)
    assert_same_gradient(gradient_of(each, config, "block"), gradient_of(WEIGHTED, config))


# Each setting, size and way to rematerialise meets some of the others.
@slow
@pytest.mark.parametrize(
    ("settings", "limit", "remat"),
    [
        pytest.param(SETTINGS, 3, "none", id="3"),
        pytest.param(SETTINGS, 8, "dots", id="8-dots"),
        pytest.param(MASKED, 0, "block", id="mask-0-block"),
        pytest.param(MASKED, 16, "none", id="mask-16"),
        pytest.param(WEIGHTED, 4, "block", id="weighted-4-block"),
        pytest.param(WEIGHTED, 1, "dots", id="weighted-1-dots"),
    ],
)
def test_a_gradient_in_micro_batches_is_the_gradient_at_once(settings, limit, remat):
    cut = dataclasses.replace(settings, update_micro_batch=limit)
    assert_same_gradient(gradient_of(cut, CONFIG, remat), gradient_of(settings, CONFIG))


on_thoughts = pytest.mark.parametrize(
    "settings", [MASKED, pytest.param(SETTINGS, marks=slow)], ids=["prompt and mask", "neither"]
)


@on_thoughts
@on_configs
def test_the_thoughts_of_the_micro_batches_are_clipped_and_counted_in_part(settings, config):
    _, metrics, _ = gradient_of(settings, config)
    assert 0 < metrics["clip_fraction"] < 1
    _, _, counted = thoughts_of(settings, config)
    assert 0 < counted.mean() < 1


def document_loss(params, config, trunk, places):
    """Mean next-token loss at some places (row, column) of a trunk, nats."""
    model = bind(config, params)
    table = jax.nn.log_softmax(model.logits(forward(model, trunk)), axis=-1)
    row, column = places
    return -table[row, column - 1, trunk.tokens[row, column]].mean()


@on_thoughts
@on_configs
def test_the_next_token_loss_is_added_with_its_weight(settings, config):
    weight, start = 0.5, len(settings.prompt)
    lengths = (BATCH.segment > 0).sum(axis=1)
    # Words of the document that stand after a word of it.
    pairs = [(b, start + t) for b, length in enumerate(lengths) for t in range(1, length)]
    places = tuple(jnp.array(pairs).T)
    loss, slope = tiny.jit(jax.value_and_grad(document_loss), static_argnums=1)(
        PARAMS(config), config, document_trunk(BATCH, settings.prompt, settings.bos), places
    )
    value, bare_metrics, bare_gradient = gradient_of(settings, config)
    weighted = dataclasses.replace(settings, next_token_weight=weight)
    found, metrics, gradient = gradient_of(weighted, config)
    assert "next_token_loss" not in bare_metrics
    assert metrics["next_token_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert found == pytest.approx(float(value) + weight * float(loss), rel=1e-5)
    total = jax.tree.map(lambda g, d: g + weight * d, bare_gradient, slope)
    assert tiny.relative_error(gradient, total) < 1e-5
    assert tiny.relative_error(gradient, bare_gradient) > 0.1
    assert tiny.relative_error(gradient, jax.tree.map(lambda d: weight * d, slope)) > 0.1


# ---- what a backend chooses


LARGE, TINY = 2**22, 2**6


@functools.cache
def everything(config, choices):
    """Thoughts, evidence and the gradient of their advantages, with these choices."""
    method = (config, ALL, WORDS)

    def run(params, phi):
        reading = step.read_stage(*method, params, params, BATCH, KEY, 5)
        rollout = step.rollout_stage(*method, params, reading)
        no_think = step.no_think_stage(*method, params, phi, BATCH, reading)
        evidence = step.evidence_stage(*method, params, reading, no_think, rollout)
        reference = step.reference_stage(*method, phi, rollout)
        found = policy_gradient(
            params, config, ALL, WORDS, rollout,
            tiny.flat(evidence.advantages), tiny.flat(evidence.counted), reference,
            tiny.flat(evidence.target_weights),
        )  # fmt: skip
        return rollout, evidence.replace(reference=reference), *found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "CPU", dataclasses.replace(choices, decode_divisors=(1,)))
        return jax.device_get(tiny.jit(run)(PARAMS(config), phi(config)))


def chunks(unrolled_layers, row_scores, logits, cache_slots=1):
    return backend.Choices(unrolled_layers, row_scores, logits, cache_slots, (1,))


@pytest.mark.parametrize(
    ("config", "choices"),
    [
        pytest.param(SMALL, chunks(0, TINY, TINY, 16), id="all"),
        pytest.param(CONFIG, chunks(0, TINY, TINY, 16), id="all, 2 layers", marks=slow),
        pytest.param(CONFIG, chunks(8, TINY, TINY), id="scores and logits", marks=slow),
    ],
)
def test_a_backends_choices_change_no_result(config, choices):
    rollout, evidence, loss, metrics, gradient = everything(config, choices)
    whole, whole_evidence, whole_loss, whole_metrics, whole_gradient = everything(
        config, chunks(8, LARGE, LARGE)
    )
    straight = isinstance(rollout.branch_cache.kinds["attention"], list)
    assert straight == (choices.unrolled_layers > 0)
    assert np.array_equal(rollout.thoughts.actions, whole.thoughts.actions)
    np.testing.assert_allclose(rollout.thoughts.logprobs, whole.thoughts.logprobs, atol=2e-5)
    for name in ("reasoned", "baseline", "rewards", "advantages", "no_think", "reference"):
        a, b = getattr(evidence, name), getattr(whole_evidence, name)
        np.testing.assert_allclose(a, b, atol=5e-5, rtol=1e-5)
    assert loss == pytest.approx(float(whole_loss), rel=1e-5)
    for name in metrics:
        assert metrics[name] == pytest.approx(float(whole_metrics[name]), rel=1e-5, abs=1e-5), name
    assert tiny.relative_error(gradient, whole_gradient) < 1e-5


# ---- memory


FEW, LENGTH, WORDS_EACH = 32, 64, 16  # branches, tokens of the trunk, tokens of a thought
CHUNKED = dataclasses.replace(backend.CPU, row_scores=2**14, logits=2**14)


@functools.cache
def memory(branches, length, micro_batch=0, choices=CHUNKED, layers=1):
    """Bytes that the gradient of one document's branches needs besides its inputs and outputs."""
    config = dataclasses.replace(CONFIG, num_layers=layers, remat="block")
    settings = tiny.rlp_settings(group_size=branches, forks_per_document=1)
    of = lambda dtype, *shape: jax.ShapeDtypeStruct((1, *shape), dtype)
    trunk = Trunk(*[of(jnp.int32, length)] * 3)
    slot = of(jnp.int32, branches, WORDS_EACH + settings.horizon + 1)
    per_branch, action = of(jnp.int32, branches), of(jnp.int32, branches, WORDS_EACH)
    live, counted = of(bool, *slot.shape[1:]), of(bool, branches)
    rollout = Rollout(
        trunk=trunk,
        branches=Branches(slot, slot, live, per_branch, per_branch),
        branch_cache=None,
        thoughts=Thoughts(action, per_branch, counted, of(jnp.float32, *action.shape[1:])),
        target=None,
        decoded=None,
    )

    def run(params, *inputs):
        return policy_gradient(params, config, settings, WORDS, *inputs, micro_batch=micro_batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "CPU", choices)
        lowered = tiny.jit(run).lower(shapes(config), rollout, of(jnp.float32, branches), counted)
    return lowered.compile().memory_analysis().temp_size_in_bytes


def one_score_each(branches, length, layers=1):
    """Bytes of one float32 for every pair of a head's thought token and trunk token."""
    return 4 * layers * CONFIG.num_heads * branches * WORDS_EACH * length


on_layers = pytest.mark.parametrize("layers", [1, pytest.param(2, marks=slow)])


@on_layers
def test_memory_grows_with_the_branches_as_with_the_trunk_but_not_with_their_product(layers):
    size = functools.partial(memory, layers=layers)
    growth = size(2 * FEW, LENGTH) - size(FEW, LENGTH)
    assert growth > one_score_each(FEW, LENGTH, layers)  # the law would show
    far = size(2 * FEW, 2 * LENGTH) - size(FEW, 2 * LENGTH)
    assert abs(far - growth) < 0.05 * one_score_each(FEW, LENGTH, layers)


@slow
@pytest.mark.parametrize(("layers", "length"), [(1, 2 * LENGTH), (2, LENGTH)])
def test_memory_grows_with_the_branches_and_not_faster(length, layers):
    size = functools.partial(memory, length=length, layers=layers)
    growth = size(2 * FEW) - size(FEW)
    assert size(4 * FEW) - size(2 * FEW) == pytest.approx(2 * growth, rel=0.1)


@slow
def test_memory_with_all_scores_alive_shows_the_product():
    unbounded = dataclasses.replace(CHUNKED, row_scores=2**30)
    more = memory(2 * FEW, LENGTH, choices=unbounded) - memory(2 * FEW, LENGTH)
    assert more > one_score_each(2 * FEW, LENGTH)


@on_layers
def test_memory_of_micro_batches_is_that_of_one(layers):
    size = functools.partial(memory, length=LENGTH, layers=layers)
    more = size(2 * FEW, micro_batch=FEW) - size(FEW)
    assert more < 0.1 * (size(2 * FEW) - size(FEW))


# ---- bfloat16


def test_the_gap_between_sampler_and_trainer_is_within_bfloat16_rounding():
    half = dataclasses.replace(SMALL, compute_dtype="bfloat16")
    method, params = (half, SETTINGS, WORDS), PARAMS(SMALL)

    def run(params):
        reading = step.read_stage(*method, params, params, BATCH, KEY, 5)
        rollout = step.rollout_stage(*method, params, reading)
        shape = rollout.thoughts.length.shape
        ones = (jnp.ones(shape), jnp.ones(shape, bool))
        _, metrics, _ = policy_gradient(params, half, SETTINGS, WORDS, rollout, *ones)
        return rollout.thoughts, reading.forks, metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, decode_divisors=(1,)))
        thoughts, forks, metrics = jax.device_get(tiny.jit(run)(params))
    branches = [
        naive.Branch(
            BATCH.tokens[b].tolist(),
            int(forks.position[b, n // SETTINGS.group_size]),
            thoughts.actions[b, n, : thoughts.length[b, n]].tolist(),
            SETTINGS.horizon,
        )
        for b, n in np.ndindex(*thoughts.length.shape)
    ]
    rows = naive.write_out(branches, WORDS, SETTINGS.thought_length, 28)
    scored = lambda config: np.asarray(
        naive.action_logprobs(params, rows, config=config, vocabulary=WORDS, temperature=1.0)
    )
    exact, live = scored(SMALL), rows.action_at > 0
    distance = lambda x: np.abs(x.reshape(exact.shape) - exact)[live].mean()
    # What bfloat16 costs the plain forward pass, it may cost each of the two. Much of that is the
    # rounding of the parameters, which they share, and on a CPU both round the same products: they
    # are nearer to each other than to float32.
    rounding = distance(scored(half))
    assert 1e-4 < rounding < 2e-2
    assert distance(thoughts.logprobs) < 1.5 * rounding
    assert metrics["logprob_gap"] < rounding


# ---- no baseline


def test_without_a_baseline_nothing_of_phi_is_computed():
    settings = dataclasses.replace(LONG, baseline="none")
    method, params = (SMALL, settings, WORDS), PARAMS(SMALL)
    read = tiny.jit(functools.partial(step.read_stage, *method))
    reading = read(params, params, BATCH, KEY, 5)
    no_think = tiny.jit(functools.partial(step.no_think_stage, *method))
    flops = lambda phi: no_think.lower(params, phi, BATCH, reading).cost_analysis()["flops"]
    rows, length = BATCH.tokens.shape
    scored = Work(logits=rows * settings.forks_per_document * settings.horizon)
    documents = Work(tokens=rows * length, pairs=rows * length**2)
    # Elementwise work is not counted by `forward_flops`.
    assert flops(None) == pytest.approx(forward_flops(SMALL, scored), rel=0.3)
    more = flops(phi(SMALL)) - flops(None)
    assert more == pytest.approx(forward_flops(SMALL, scored + documents), rel=0.3)

    found = no_think(params, None, BATCH, reading)
    assert not np.any(found.baseline)
    assert np.all(found.policy < 0)
    assert np.any(no_think(params, phi(SMALL), BATCH, reading).baseline)

    rollout = rolled(SMALL, LONG, (1,))
    evidence = tiny.jit(functools.partial(step.evidence_stage, *method))(
        params, reading, found, rollout
    )
    assert np.array_equal(evidence.rewards, evidence.reasoned)
    assert np.array_equal(evidence.gain, evidence.reasoned)
    assert np.all(evidence.reasoned < 0)
    metrics = rollout_metrics(rollout, evidence, settings, WORDS)
    assert metrics.keys().isdisjoint({"baseline_evidence", "information_gain"})
    assert metrics["reward_mean"] == metrics["reasoned_evidence"]
