"""The user-defined layer kind of docs/extending.md: forks, decoding, FLOPs and sharding work as for
attention, alone and in combination with it."""

import dataclasses
import importlib.util
import re
import sys

import jax
import numpy as np
import pytest

from models.layers.registry import LAYERS, kind_counts, register
from models.sharding import batch_sharding, make_mesh, parameter_shardings
from models.transformer import bind, shapes
from models.tree import forward
from rlp.evaluation.generation.generator import Generator, Request
from rlp.evaluation.generation.single import continuation
from rlp.training import flops
from tests.support import equations, tiny, trees
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
    trees.assert_branches_are_plain_rows(CONFIGS[name], params(name))


@pytest.mark.parametrize(("name", "sizes"), [("alone", (1,) * W), *((n, (2, 3)) for n in CONFIGS)])
def test_it_decodes_as_it_scores(name, sizes):
    trees.assert_it_decodes_as_it_scores(CONFIGS[name], params(name), sizes)


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
    trees.assert_documents_leak_no_gradient(CONFIGS["alone"])


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
    trees.assert_caches_have_declared_shapes(CONFIGS[name])


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
    equations.assert_a_step_matches(tiny.model_config(num_layers=3, layer_pattern="AGm"))


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
