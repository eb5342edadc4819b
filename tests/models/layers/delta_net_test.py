"""Gated DeltaNet with gated attention: branches begin from states, and equal plain rows."""

import dataclasses
import re

import numpy as np
import pytest

from models import backend
from models.layers.registry import check_layers
from models.rope import Rope
from tests.support import equations, tiny, trees
from tests.support.trees import W


def hybrid(pattern, **changes):
    """Return a small network with these layers, as Qwen3.5 has them.

    The norms of heads enlarge the rounding of outputs near zero by up to the inverse square root of
    their epsilon, so it is larger than that of Qwen3.5.
    """
    shape = {
        "vocab_size": 40,
        "num_layers": len(pattern),
        "layer_pattern": pattern,
        "zero_centered_norm": True,
        "norm_epsilon": 1e-3,
        "attention_gate": True,
        "rope": Rope(theta=100.0, partial_rotary_factor=0.5),
        "delta_heads": 4,
        "delta_head_dim": 6,
        "delta_key_heads": 2,
        "delta_key_dim": 5,
    }
    return tiny.model_config(**(shape | changes))


CONFIGS = {
    "alone": hybrid("DD"),
    "hybrid": hybrid("DG"),
    "other layers": hybrid(
        "DM*L",
        sliding_window=4,
        norm="around",
        delta_taps=3,
        mamba_heads=2,
        mamba_head_dim=4,
        mamba_groups=2,
        mamba_state=3,
    ),
    "scanned": hybrid("DG" * 5, remat="block"),
}


@pytest.fixture(autouse=True)
def _in_chunks(monkeypatch):
    """Compute the rows of 20 tokens in three chunks, in which documents begin and branch."""
    monkeypatch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, scan_chunk=7))


def params(name):
    """Return parameters. Those of deep networks are smaller: with larger ones, a change of the
    weights by an ulp would change the outputs by more than the tolerance."""
    config = CONFIGS[name]
    return tiny.params(config, scale=5.0 if config.num_layers == 2 else 2.0)


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
    equations.assert_a_step_matches(hybrid("DG", vocab_size=24))


def test_states_in_bfloat16_differ_by_their_rounding():
    config, (trunk, branches) = CONFIGS["hybrid"], trees.random_tree(7)
    half = dataclasses.replace(config, state_dtype="bfloat16")
    inputs, live = (params("hybrid"), trunk, branches), np.asarray(branches.live)
    of_half, exact = (
        np.asarray(trees.packed(*inputs, config=config))[live] for config in (half, config)
    )
    assert 1e-5 < np.abs(of_half - exact).max() < 0.02 * np.abs(exact).max()


def test_its_flops_are_counted(monkeypatch):
    shape = {"delta_heads": 8, "delta_head_dim": 32, "delta_key_dim": 32, "hidden_size": 256}
    trees.assert_flops_are_counted(hybrid("DG", **shape), monkeypatch)


def test_a_mesh_changes_nothing():
    trees.assert_a_mesh_changes_nothing(CONFIGS["hybrid"], params("hybrid"), "delta/v/kernel")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"delta_heads": 0}, "model.delta_heads is 0"),
        ({"delta_key_heads": 3}, "model.delta_heads=4 is not a multiple of model.delta_key_heads"),
        ({"delta_taps": 1}, "model.delta_taps is 1"),
        ({"rope": Rope(partial_rotary_factor=0.4)}, "rotates 3 of model.head_dim=8 dimensions"),
    ],
)
def test_what_cannot_be_computed_is_refused(changes, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        hybrid("DG", **changes)


def test_devices_share_whole_heads():
    check_layers(CONFIGS["alone"], 2)
    with pytest.raises(ValueError, match=r"mesh.tensor=4 does not divide the 2 heads of keys"):
        check_layers(CONFIGS["alone"], 4)
