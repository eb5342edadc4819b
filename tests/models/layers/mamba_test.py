"""Mamba-2, alone and in hybrids: branches begin from states, and equal rows with their prefix."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from models import backend
from models.layers.recurrent import places_of_forks
from models.layers.registry import check_layers
from models.sharding import make_mesh
from rlp.evaluation.generation.generator import Generator, Request
from rlp.evaluation.generation.reading import LEAST_SHARED
from rlp.evaluation.generation.single import continuation
from tests.support import equations, tiny, trees
from tests.support.trees import B, N, W


def hybrid(pattern, **changes):
    """Return a small network with these layers, as Nemotron-H has them."""
    shape = {
        "vocab_size": 40,
        "num_layers": len(pattern),
        "layer_pattern": pattern,
        "qk_norm": "none",
        "activation": "relu2",
        "mamba_heads": 4,
        "mamba_head_dim": 6,
        "mamba_groups": 2,
        "mamba_state": 5,
    }
    return tiny.model_config(**(shape | changes))


CONFIGS = {
    "alone": hybrid("MM"),
    "hybrid": hybrid("M*-"),
    "other layers": hybrid("MGL*", sliding_window=4, norm="around", mamba_taps=3),
    "scanned": hybrid("M*-" * 3, mamba_step_min=0.5, mamba_step_max=1.0, remat="block"),
}


@pytest.fixture(autouse=True)
def _in_chunks(monkeypatch):
    """Compute the rows of 20 tokens in three chunks, in which documents begin and branch."""
    monkeypatch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, scan_chunk=7))


def params(name):
    return tiny.params(CONFIGS[name], scale=5.0)


@pytest.mark.parametrize(
    "name",
    ["hybrid", *(pytest.param(n, marks=pytest.mark.slow) for n in ("other layers", "scanned"))],
)
def test_branches_with_their_trunk_are_plain_rows(name):
    trees.assert_branches_are_plain_rows(CONFIGS[name], params(name))


@pytest.mark.parametrize("sizes", [(1,) * W, (2, 3)])
def test_it_decodes_as_it_scores(sizes):
    trees.assert_it_decodes_as_it_scores(CONFIGS["hybrid"], params("hybrid"), sizes)


def test_one_pass_over_rows_and_branches_is_a_pass_each():
    trees.assert_one_pass_is_a_pass_each(CONFIGS["hybrid"], params("hybrid"))


def test_documents_of_a_row_leak_no_gradient():
    trees.assert_documents_leak_no_gradient(CONFIGS["alone"])


@pytest.mark.parametrize("name", CONFIGS)
def test_caches_have_the_shapes_that_the_kinds_declare(name):
    trees.assert_caches_have_declared_shapes(CONFIGS[name])


def test_a_step_matches_its_equations_on_repeated_prefixes():
    equations.assert_a_step_matches(hybrid("M*-", vocab_size=24))


def test_states_in_bfloat16_differ_by_their_rounding():
    config, (trunk, branches) = CONFIGS["hybrid"], trees.random_tree(7)
    half = dataclasses.replace(config, state_dtype="bfloat16")
    inputs, live = (params("hybrid"), trunk, branches), np.asarray(branches.live)
    of_half, exact = (
        np.asarray(trees.packed(*inputs, config=config))[live] for config in (half, config)
    )
    assert 1e-5 < np.abs(of_half - exact).max() < 0.02 * np.abs(exact).max()
    decoded = np.asarray(trees.cached(*inputs, sizes=(1,) * W, config=half))[live]
    assert np.abs(decoded - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.slow
def test_texts_of_a_batch_are_those_alone():
    """Prompts that begin alike are read together, and rows are given to other prompts while their
    neighbours go on."""
    config, mesh = CONFIGS["hybrid"], make_mesh(devices=jax.devices()[:1])
    shared = tuple(np.random.default_rng(0).integers(5, 40, 2 * LEAST_SHARED))
    prompts = [(*map(int, shared), *range(1 + n, 5 + 3 * n)) for n in range(3)] + [(7, 8, 9)]
    requests = [Request(prompt, 24 - 5 * n) for n, prompt in enumerate(prompts)]
    theta = params("hybrid")
    generator = Generator(config, theta, mesh, str, texts=2)
    for request, response in zip(requests, generator.generate(requests), strict=True):
        alone = continuation(config, theta, request.prompt, request.max_tokens)
        assert list(response.tokens) == list(alone)


def test_a_fork_is_after_the_tokens_of_its_document_before_it():
    """Positions need not be places: a row begins with other documents."""
    trunk, _ = trees.random_tree(3)
    found = np.asarray(places_of_forks(trunk).place)[:, 0]
    segment, position, forks = map(
        np.asarray, (trunk.segment, trunk.position, trunk.forks.position)
    )
    for row, k in np.ndindex(B, N):
        own = np.flatnonzero(segment[row] == np.asarray(trunk.forks.segment)[row, k])
        assert found[row, k] == own[0] + (position[row, own] < forks[row, k]).sum()


def test_its_flops_are_counted(monkeypatch):
    shape = {"mamba_heads": 8, "mamba_head_dim": 32, "mamba_state": 32, "hidden_size": 256}
    trees.assert_flops_are_counted(hybrid("M", **shape), monkeypatch)


def test_a_mesh_changes_nothing():
    trees.assert_a_mesh_changes_nothing(CONFIGS["hybrid"], params("hybrid"), "mamba/x/kernel")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mamba_heads": 0}, "model.mamba_heads is 0"),
        ({"mamba_groups": 3}, "model.mamba_heads=4 is not a multiple of model.mamba_groups=3"),
        ({"mamba_taps": 1}, "model.mamba_taps is 1"),
        ({"mamba_step_min": 0.5, "mamba_step_max": 0.1}, "model.mamba_step_min=0.5"),
        ({"state_dtype": "float16"}, "model.state_dtype='float16'"),
    ],
)
def test_what_cannot_be_computed_is_refused(changes, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        hybrid("M-", **changes)


def test_devices_share_whole_groups():
    check_layers(CONFIGS["alone"], 2)
    with pytest.raises(ValueError, match=r"mesh.tensor=4 does not divide the 2 groups"):
        check_layers(CONFIGS["alone"], 4)
