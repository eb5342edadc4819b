"""The first layer with an output that is not finite is found."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from configs import default
from models.transformer import init
from rlp.engine.branches import document_trunk
from rlp.run import layer_search, opened_model
from rlp.runtime.errors import UserError
from tests.support import tiny
from tests.support.runs import one_device  # noqa: F401  a fixture

MODEL = tiny.model_config(num_layers=3, layer_pattern="LG", sliding_window=4)
TRUNK = document_trunk(tiny.documents(0, [7], 8, 20))


@pytest.mark.parametrize("layer", [0, 2])
def test_a_layer_with_a_parameter_that_is_not_finite_is_found(layer):
    params = init(MODEL, jax.random.key(0))
    blocks = params["blocks"]
    name = next(name for name in blocks if "norm" not in name)
    path, leaf = next(iter(jax.tree_util.tree_leaves_with_path(blocks[name])))
    broken = leaf.at[layer].set(jnp.nan)
    swap = lambda p, x: broken if p == path else x
    params["blocks"] = blocks | {name: jax.tree_util.tree_map_with_path(swap, blocks[name])}
    finite, found = layer_search.search(MODEL, params, TRUNK)
    assert not finite
    assert found.startswith(f"the output of layer {layer} (")
    assert "is the first that is not finite" in found


def test_an_embedding_that_is_not_finite_is_found():
    params = init(MODEL, jax.random.key(0))
    params["embedding"] = params["embedding"].at[int(TRUNK.tokens[0, 3]), 2].set(jnp.inf)
    finite, found = layer_search.search(MODEL, params, TRUNK)
    assert not finite
    assert found.startswith("the output of the embedding is the first that is not finite: 1 of ")
    assert "at token 3, channel 2" in found


def test_a_sound_network_is_said_to_be_finite():
    params = init(MODEL, jax.random.key(0))
    finite, found = layer_search.search(MODEL, params, TRUNK)
    assert finite
    assert found.startswith("the outputs of the embedding and of every layer (3) are finite")


@pytest.mark.parametrize("kind", ["next_token"], indirect=True)
@pytest.mark.usefixtures("one_device", "early_warnings")
def test_a_document_of_a_run_is_searched(kind, finished, monkeypatch):
    _, _, config = kind
    workdir = finished(config)
    opened = opened_model.open_model(str(workdir), default.get_config(), opened_model.one_device())
    opened.config.mesh.fsdp = 2  # the search takes one device, whatever the mesh of the run
    text, finite, _ = layer_search.of_record(opened, 3)
    assert text
    assert finite

    def past_the_end(*_):
        raise IndexError("no records 90 to 90 among 12 rows")

    stream = SimpleNamespace(batch=past_the_end)
    monkeypatch.setattr(layer_search.assembly, "read_data", lambda *_: (stream, None))
    with pytest.raises(UserError, match="--document=90 is past the end of the data"):
        layer_search.of_record(opened, 90)
