"""Find the first layer of a model whose output is not finite for a document.

Bisects the number of layers after which the model is truncated: a non-finite value stays non-finite
in the residual stream, so about log2(layers) + 2 forward passes are enough.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.default import Config, Mesh
from models.blocks import of_kind
from models.config import ModelConfig
from models.layers.registry import layers
from models.sharding import make_mesh
from models.transformer import Params, bind
from models.tree import Trunk, forward
from rlp.engine.branches import document_trunk
from rlp.run import assembly
from rlp.run.opened_model import Opened
from rlp.runtime.errors import UserError


def of_record(opened: Opened, record: int) -> tuple[str, bool, str]:
    """Search the forward pass on a training document of a run.

    Args:
      opened: A checkpoint of the run.
      record: The number of the document in the run's data, as warnings name it.

    Returns:
      The text of the row, and the result of `search`.

    Raises:
      UserError: If the data of the run cannot be read, or have no such document.
    """
    device = next(iter(jax.tree.leaves(opened.params)[0].devices()))
    config = dataclasses.replace(Config.of(opened.config), mesh=Mesh())
    with jax.set_mesh(make_mesh(devices=[device])):
        run = assembly.build(config, opened.files, [device])
        train, _ = assembly.read_data(config, run)
        try:
            batch = train.batch(record, 1)
        except IndexError as error:
            raise UserError(f"--document={record} is past the end of the data: {error}") from error
        count = int((batch.segment > 0).sum())
        text = opened.method.tokenizer.decode([*map(int, batch.tokens[0, :count])])
        return text, *search(opened.method.model, opened.params, document_trunk(batch))


def search(model: ModelConfig, params: Params, trunk: Trunk) -> tuple[bool, str]:
    """Return whether all outputs are finite, and a line that names the first one that is not."""
    output = lambda depth: np.asarray(_hidden(model, params, trunk, depth), np.float32)
    if np.isfinite(output(model.num_layers)).all():
        return True, (
            f"the outputs of the embedding and of every layer ({model.num_layers}) are finite in "
            "the forward pass of the document without thoughts"
        )
    finite, broken = -1, model.num_layers  # the first non-finite depth is in (finite, broken]
    while broken - finite > 1:
        middle = (finite + broken) // 2
        if np.isfinite(output(middle)).all():
            finite = middle
        else:
            broken = middle
    values = output(broken)
    indices, size = np.argwhere(~np.isfinite(values)), values.size
    _, token, channel = map(int, indices[0])
    name = f"layer {broken - 1} ({_kinds(model, broken - 1)})" if broken else "the embedding"
    return False, (
        f"the output of {name} is the first that is not finite: {len(indices):,} of {size:,} "
        f"values, the first at token {token}, channel {channel}; all counted from 0"
    )


def _kinds(model: ModelConfig, layer: int) -> str:
    return ", ".join(kind.name for kind in layers(model)[layer])


def _hidden(model: ModelConfig, params: Params, trunk: Trunk, depth: int) -> jax.Array:
    """Return the residual stream after `depth` layers, with the final norm unless `depth` is 0."""
    if not depth:
        return bind(model, params).embed(jnp.asarray(trunk.tokens))
    truncated = dataclasses.replace(model, num_layers=depth)
    counts: dict[str, int] = {}
    for kind in (kind for kinds in layers(truncated) for kind in kinds):
        counts[kind.name] = counts.get(kind.name, 0) + 1
    blocks: dict[str, Any] = {}
    for name, count in counts.items():
        take = lambda stack, count=count: stack[:count]
        blocks |= jax.tree.map(take, of_kind(params["blocks"], name))
    run = jax.jit(lambda params, trunk: forward(bind(truncated, params), trunk))
    return run(params | {"blocks": blocks}, trunk)
