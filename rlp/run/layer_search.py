"""The first layer of a network whose output is not finite for a document.

The network is cut off after n layers, and n is bisected: a value that is not finite stays so in the
residual stream, so about log2(layers) forward passes are enough.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from configs.default import Config
from models.blocks import of_kind
from models.config import ModelConfig
from models.layers.registry import layers
from models.sharding import make_mesh
from models.transformer import Params, bind
from models.tree import Trunk, forward
from rlp.engine.branches import document_trunk
from rlp.run import assembly
from rlp.run.opened_model import Opened


def of_record(opened: Opened, record: int) -> tuple[str, str]:
    """Search the forward pass on a training document of a run.

    Args:
      opened: a checkpoint of the run.
      record: the number of the document in the run's data, as warnings give it.

    Returns:
      The text of the row, and what was found, as `search` returns it.

    Raises:
      UserError: The data of the run cannot be read.
    """
    device = next(iter(jax.tree.leaves(opened.params)[0].devices()))
    config = Config.of(opened.config)
    with jax.set_mesh(make_mesh(devices=[device])):
        run = assembly.build(config, opened.files, [device])
        train, _ = assembly.read_data(config, run)
        batch = train.batch(record, 1)
        count = int((batch.segment > 0).sum())
        text = opened.method.tokenizer.decode([*map(int, batch.tokens[0, :count])])
        return text, search(opened.method.model, opened.params, document_trunk(batch))


def search(model: ModelConfig, params: Params, trunk: Trunk) -> str:
    """Return which output is the first that is not finite: that of the embedding or of a layer."""
    output = lambda depth: np.asarray(_hidden(model, params, trunk, depth), np.float32)
    if np.isfinite(output(model.num_layers)).all():
        return f"the outputs of the embedding and of every layer ({model.num_layers}) are finite"
    finite, broken = -1, model.num_layers  # the depths between which the first bad output is
    while broken - finite > 1:
        middle = (finite + broken) // 2
        if np.isfinite(output(middle)).all():
            finite = middle
        else:
            broken = middle
    values = output(broken)
    places, size = np.argwhere(~np.isfinite(values)), values.size
    _, token, channel = map(int, places[0])
    name = f"layer {broken - 1} ({_kinds(model, broken - 1)})" if broken else "the embedding"
    return (
        f"the output of {name} is the first that is not finite: {len(places):,} of {size:,} "
        f"values, the first at token {token}, channel {channel}; all counted from 0"
    )


def _kinds(model: ModelConfig, layer: int) -> str:
    return ", ".join(kind.name for kind in layers(model)[layer])


def _hidden(model: ModelConfig, params: Params, trunk: Trunk, depth: int) -> jax.Array:
    """The residual stream after `depth` layers, through the final norm unless `depth` is 0."""
    if not depth:
        return bind(model, params).embed(jnp.asarray(trunk.tokens))
    cut = dataclasses.replace(model, num_layers=depth)
    counts: dict[str, int] = {}
    for kind in (kind for kinds in layers(cut) for kind in kinds):
        counts[kind.name] = counts.get(kind.name, 0) + 1
    blocks = {}
    for name, count in counts.items():
        take = lambda stack, count=count: stack[:count]
        blocks |= jax.tree.map(take, of_kind(params["blocks"], name))
    run = jax.jit(lambda params, trunk: forward(bind(cut, params), trunk))
    return run(params | {"blocks": blocks}, trunk)
