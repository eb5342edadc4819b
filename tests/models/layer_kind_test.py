"""The user-defined layer kind of docs/extending.md: forks, decoding, FLOPs and sharding work as for
attention, alone and in combination with it."""

import dataclasses
import importlib.util
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.cache import branch_bytes, trunk_bytes
from models.layers.registry import LAYERS, kind_counts, register
from models.sharding import batch_sharding, make_mesh, parameter_shardings
from models.transformer import bind, shapes
from models.tree import empty_branch_cache, forward, prefill
from rlp.evaluation.generation.generator import Generator, Request
from rlp.evaluation.generation.single import continuation
from rlp.training import flops
from tests.support import naive, tiny, trees
from tests.support.paths import ROOT
from tests.support.trees import B, N, T, W


def load_example():
    """Execute the file in the page, which registers the letter A."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n# my_layers\.py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    spec = importlib.util.spec_from_loader("my_layers", loader=None)
    module = sys.modules["my_layers"] = importlib.util.module_from_spec(spec)
    exec(compile(code, "my_layers.py", "exec"), module.__dict__)  # noqa: S102
    return module


EXAMPLE = load_example()
register("m", EXAMPLE.MovingAverage())  # as in hybrid models: a layer of one kind
register("f", LAYERS["G"][1])
WINDOW = {"sliding_window": 4}
CONFIGS = {
    "alone": tiny.model_config(vocab_size=40, layer_pattern="A"),
    "with attention": tiny.model_config(
        vocab_size=40, num_layers=3, layer_pattern="LGm", norm="around", **WINDOW
    ),
    "scanned": tiny.model_config(vocab_size=40, num_layers=9, layer_pattern="mfLmfG", **WINDOW),
}


def params(name):
    return tiny.params(CONFIGS[name], scale=10.0 if name == "alone" else 5.0)


@pytest.mark.parametrize("name", CONFIGS)
def test_branches_with_their_trunk_are_plain_rows(name):
    config, theta = CONFIGS[name], params(name)
    trunk, branches = trees.random_tree(7)
    rows, live = trees.alone(trunk, branches), np.asarray(branches.live)
    expected = np.asarray(trees.plain(theta, *rows, config=config))[live]
    hidden = np.asarray(trees.packed(theta, trunk, branches, config=config))[live]
    np.testing.assert_allclose(hidden, expected, rtol=1e-5, atol=1e-5)
    cotangent = trees.random_cotangent(7)
    error = tiny.relative_error(
        trees.packed_gradient(theta, trunk, branches, cotangent, config=config),
        trees.plain_gradient(theta, rows, branches.live, cotangent, config=config),
    )
    assert error < 1e-5


@pytest.mark.parametrize(("name", "sizes"), [("alone", (1,) * W), *((n, (2, 3)) for n in CONFIGS)])
def test_it_decodes_as_it_scores(name, sizes):
    trunk, branches = trees.random_tree(2)
    inputs, live = (params(name), trunk, branches), np.asarray(branches.live)
    hidden = np.asarray(trees.cached(*inputs, sizes=sizes, config=CONFIGS[name]))
    expected = np.asarray(trees.packed(*inputs, config=CONFIGS[name]))
    np.testing.assert_allclose(hidden[live], expected[live], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["alone", "with attention", pytest.param("scanned", marks=pytest.mark.slow)]
)
def test_one_pass_over_rows_and_branches_is_a_pass_each(name):
    """The page's kind does not override how both are run at once."""
    assert "on_rows_and_slots" not in vars(EXAMPLE.MovingAverage)
    trees.assert_one_pass_is_a_pass_each(CONFIGS[name], params(name))


@pytest.mark.parametrize(
    "name", ["with attention", pytest.param("scanned", marks=pytest.mark.slow)]
)
def test_texts_that_take_the_place_of_others_begin_from_their_own_prompts(name):
    """Rows are given to other prompts while their neighbours go on."""
    config, mesh = CONFIGS[name], make_mesh(devices=jax.devices()[:1])
    prompts = [tuple(range(1 + n, 5 + 3 * n)) for n in range(4)]
    requests = [Request(prompt, 40 - 9 * n) for n, prompt in enumerate(prompts)]
    generator = Generator(config, params(name), mesh, str, texts=2)
    for request, response in zip(requests, generator.generate(requests), strict=True):
        alone = continuation(config, params(name), request.prompt, request.max_tokens)
        assert list(response.tokens) == list(alone)


def test_documents_of_a_row_leak_no_gradient():
    """The gradient of a document's loss with respect to the document before it is exactly zero."""
    config, (trunk, _) = CONFIGS["alone"], trees.random_tree(4)
    ids = jnp.arange(B * T, dtype=jnp.int32).reshape(B, T)
    trunk = dataclasses.replace(trunk, tokens=ids)
    config = dataclasses.replace(config, vocab_size=B * T)
    second = (trunk.segment == 2)[..., None]
    loss = lambda p: jnp.where(second, forward(bind(config, p), trunk), 0.0).sum()
    gradient = tiny.jit(jax.grad(loss))(tiny.params(config))["embedding"]
    read = np.any(np.asarray(gradient) != 0, axis=-1)
    assert np.array_equal(read, np.asarray(trunk.segment == 2).ravel())


def test_a_rematerialized_scan_has_the_same_gradient():
    config, (trunk, branches) = CONFIGS["scanned"], trees.random_tree(7)
    inputs = params("scanned"), trunk, branches, trees.random_cotangent(7)
    remat = dataclasses.replace(config, remat="block")
    error = tiny.relative_error(
        trees.packed_gradient(*inputs, config=remat), trees.packed_gradient(*inputs, config=config)
    )
    assert error < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_caches_have_the_shapes_that_the_kinds_declare(name):
    """The memory check reads only the declared shapes."""
    config, (trunk, branches) = CONFIGS[name], trees.random_tree(0)

    def caches(params):
        model = bind(config, params)
        _, cache = prefill(model, trunk)
        return cache, empty_branch_cache(model, trunk, cache, branches, W)

    size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    of_trunk, of_branches = map(size, jax.eval_shape(caches, shapes(config)))
    assert of_trunk == sum(trunk_bytes(config, B, T, N).values())
    assert of_branches == sum(branch_bytes(config, B, N, W).values())


def test_its_flops_are_counted():
    config = tiny.model_config(vocab_size=40, num_layers=1, hidden_size=256, layer_pattern="A")
    trunk, _ = trees.random_tree(0)
    loss = lambda p, trunk: forward(bind(config, p), trunk).sum()
    work = flops.on_rows(B, T, N)
    for run, count in (
        (loss, flops.forward_flops(config, work)),
        (jax.value_and_grad(loss), flops.training_flops(config, work)),
    ):
        compiled = jax.jit(run).lower(shapes(config), trunk).cost_analysis()["flops"]
        assert 1 <= compiled / count < 1.2  # `count` leaves out elementwise operations and sums


def test_kinds_are_counted_without_a_loop_over_layers():
    repeats = 10**12
    config = dataclasses.replace(CONFIGS["scanned"], num_layers=6 * repeats + 1)
    counts = {kind.name: 0 for kind in kind_counts(config)}
    for kind, count in kind_counts(config).items():
        counts[kind.name] += count
    assert counts == {"average": 2 * repeats + 1, "ffn": 4 * repeats, "attention": 2 * repeats}


def test_a_mesh_changes_nothing():
    config, theta = CONFIGS["with attention"], params("with attention")
    trunk, branches = trees.random_tree(6)
    loss = lambda p, *x: trees.weighted(
        trees.run_packed(p, *x, config=config), trees.random_cotangent(6), x[1].live
    )
    expected = tiny.jit(jax.grad(loss))(theta, trunk, branches)
    mesh = make_mesh(1, 2, 2, jax.devices()[:4])
    placed = parameter_shardings(mesh, shapes(config))
    with jax.set_mesh(mesh):
        inputs = jax.device_put((trunk, branches), batch_sharding(mesh))
        gradient = tiny.jit(jax.grad(loss))(jax.device_put(theta, placed), *inputs)
    assert tiny.relative_error(gradient, expected) < 1e-5
    gate = gradient["blocks"]["average"]["gate"]["kernel"]
    assert gate.sharding.spec == jax.sharding.PartitionSpec(None, "fsdp", "tensor")


def test_a_step_matches_its_equations_on_repeated_prefixes():
    """Compare rollout, evidence and gradient with rows that repeat the prefix for every thought."""
    config = tiny.model_config(num_layers=3, layer_pattern="AGm")
    words, settings = tiny.words(config), tiny.rlp_settings(prompt=(14, 5), update_micro_batch=6)
    theta, batch = tiny.params(config, 4), tiny.documents(0, [12, 16, 9, 14], 16, 22, forks=2)
    stage = tiny.rollout_stage(config, settings, words)
    rollout, reading = stage(theta, theta, batch, jax.random.key(3), jnp.int32(5))
    evidence = tiny.evidence_stage(config, settings, words)(theta, theta, batch, rollout, reading)
    thoughts = jax.tree.map(np.asarray, rollout.thoughts)
    rows = naive.write_out(
        [
            naive.Branch(
                batch.tokens[b].tolist(),
                int(reading.forks.position[b, n // settings.group_size]),
                thoughts.actions[b, n, : thoughts.length[b, n]].tolist(),
                settings.horizon,
            )
            for b, n in np.ndindex(*thoughts.length.shape)
        ],
        words,
        settings.thought_length,
        30,
        settings.prompt,
    )
    by_hand = naive.action_logprobs(theta, rows, config=config, vocabulary=words, temperature=1.0)
    recorded = thoughts.logprobs.reshape(by_hand.shape)
    np.testing.assert_allclose(recorded, by_hand, atol=1e-4)
    by_hand = naive.target_logprobs(theta, rows, config=config, vocabulary=words).sum(axis=1)
    np.testing.assert_allclose(np.ravel(evidence.reasoned), by_hand, rtol=1e-5, atol=1e-4)

    advantages = np.random.default_rng(0).normal(size=thoughts.length.shape)
    counted = np.ones_like(thoughts.closed)
    policy_gradient = tiny.policy_gradient(config, settings, words)
    (loss, _), gradient = policy_gradient(theta, rollout, advantages, counted)
    expected, expected_gradient = naive.surrogate(
        theta,
        rows,
        jnp.asarray(recorded),
        jnp.asarray(advantages, jnp.float32).ravel(),
        jnp.asarray(counted).ravel(),
        (rows.action_at > 0).sum(axis=1),
        config=config,
        vocabulary=words,
        temperature=1.0,
        clip=(settings.clip_low, settings.clip_high, settings.clip_dual),
        sequence=False,
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)
    assert tiny.relative_error(gradient, expected_gradient) < 1e-4


@pytest.mark.parametrize(
    ("letter", "kinds"),
    [("G", (EXAMPLE.MovingAverage(),)), ("GG", LAYERS["G"]), ("x", ()), ("x", LAYERS["m"] * 2)],
)
def test_a_letter_has_one_meaning(letter, kinds):
    with pytest.raises(ValueError, match=f"{letter}"):
        register(letter, *kinds)
    assert "x" not in LAYERS


def test_an_unknown_letter_is_named():
    with pytest.raises(ValueError, match="model.layer_pattern='Gx'.*letters: .*G, L"):
        tiny.model_config(layer_pattern="Gx")


def test_layers_of_one_kind_have_separate_weights():
    blocks = params("scanned")["blocks"]
    stacks = {name: len(jax.tree.leaves(stack)[0]) for name, stack in blocks.items()}
    assert {name: stacks[name] for name in ("average", "ffn", "attention")} == {
        "average": 3, "ffn": 6, "attention": 3,
    }  # fmt: skip
    for kernel in jax.tree.leaves(blocks):
        if kernel.ndim == 3:
            assert len(np.unique(np.asarray(kernel[:, 0, 0]))) == len(kernel)
