"""What is alive on one device of a run, in bytes, from shapes alone; see `device_memory`.

    of_state        between the steps: parameters, optimizer, phi, the reference; in an update,
                    gradients besides
    of_update       what the backward pass cannot do without
    of_rollout      the copy that is read, caches of a rollout batch, logits of a token
    of_evaluation   the same for one held-out document on every device
    of_sampling     caches and logits alone

The parameters of the network and the state of the optimizer are asked for their shapes, and layers
for those of their caches, so that new kinds of layers count as they are.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from models.cache import branch_bytes, trunk_bytes
from models.config import ModelConfig
from models.sharding import batch_shards, largest_axis
from models.transformer import shapes
from rlp.capacity.device_memory import Need
from rlp.engine.branches import Vocabulary
from rlp.engine.microbatching import largest_batch
from rlp.engine.optimizer import Optimizer
from rlp.engine.placement import device_bytes, gathered_bytes, gatherer, placed, state_shardings
from rlp.engine.step import RLPSettings, TrainState, new_state
from rlp.engine.step.rollout_batches import rollout_batch_shape

# Logical axis of a parameter -> fields of ModelConfig that its size is the product of.
_FIELDS = {
    "vocab": ("vocab_size",),
    "width": ("hidden_size",),
    "heads": ("num_heads", "head_dim"),
    "kv_heads": ("num_kv_heads", "head_dim"),
    "ffn": ("ffn_size",),
    "layers": ("num_layers",),
    "norm": ("hidden_size", "head_dim"),
}
FLOAT32 = 4
ID_BYTES = 56  # of an id in three tuples of Python's: the number, and a pointer in each


def of_parameters(model: ModelConfig) -> list[Need]:
    """Parameters alone, on one device."""
    tree = shapes(model)
    return [Need("parameters", device_bytes(tree), _sizes(model, tree))]


def of_unused_rows(model: ModelConfig, used: int) -> list[Need]:
    """Rows of the embedding without a token: their ids are listed, on the host."""
    size = max(model.vocab_size - used, 0) * ID_BYTES
    return [Need("ids that no token has", size, {"model.vocab_size": model.vocab_size})]


def abstract_state(
    mesh: Mesh,
    model: ModelConfig,
    optimizer: Optimizer,
    baseline: bool,
    memory: str,
    reference: bool,
) -> TrainState:
    """Shapes of a state with their places; arguments as of `placement.state_shardings`."""
    begin = lambda params: new_state(params, optimizer, baseline, reference)
    places = state_shardings(mesh, model, optimizer, baseline, memory, reference)
    return placed(jax.eval_shape(begin, shapes(model)), places)


def of_state(model: ModelConfig, state: TrainState, learns: bool) -> list[Need]:
    """A state on one device.

    Args:
      model: the network.
      state: from `abstract_state`; what lies in the memory of the host does not count.
      learns: count gradients, too. All of them are alive beside the state, since the optimizer
        asks for their norm before it changes anything.
    """
    trees = {
        "parameters": state.params,
        "optimizer state": state.optimizer,
        "baseline": state.baseline,
        "reference": state.reference,
        "gradients": state.params if learns else None,
    }
    sizes = _sizes(model, state.params)
    return [Need(what, device_bytes(tree), sizes) for what, tree in trees.items() if tree]


def of_next_token_update(model: ModelConfig, mesh: Mesh, rows: int, length: int) -> list[Need]:
    """The residual stream of every layer, which a backward pass begins from."""
    fields = {"batch_size": rows, "data.sequence_length": length}
    return [Need("activations", _residual(model, mesh, rows * length), fields)]


def of_update(
    model: ModelConfig,
    mesh: Mesh,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    rows: int,
    length: int,
    thoughts: str = "rlp.thought_length",
) -> list[Need]:
    """The same for the documents and the branches of a micro-batch of RLP.

    Args:
      rows: B.
      length: T, without the thinking prompt.
      thoughts: the field that says how long thoughts are.
    """
    s, shards, field = settings, batch_shards(mesh), "rlp.update_micro_batch"
    documents, branches = largest_batch(
        rows // s.minibatches, s.forks_per_document * s.group_size, 1, s.update_micro_batch, shards,
        field,
    )  # fmt: skip
    smaller = field if documents > shards or branches > 1 else ""
    trunk = {"batch_size": documents, "data.sequence_length": length}
    each = {thoughts: s.thought_length, "batch_size": documents}
    if branches > 1:
        each |= {"rlp.group_size": s.group_size, "rlp.forks_per_document": s.forks_per_document}
    slots = len(vocabulary.think_open) - 1 + s.thought_length
    documents_tokens = documents * (len(s.prompt) + length)
    return [
        Need("activations of documents", _residual(model, mesh, documents_tokens), trunk, smaller),
        Need(
            "activations of thoughts",
            _residual(model, mesh, documents * branches * slots),
            each,
            smaller,
        ),
    ]


def of_rollout(
    model: ModelConfig,
    mesh: Mesh,
    settings: RLPSettings,
    rows: int,
    length: int,
    thoughts: str = "rlp.thought_length",
) -> list[Need]:
    """What is alive while a rollout batch is sampled; arguments as of `of_update`."""
    s, shards = settings, batch_shards(mesh)
    documents, forks = rollout_batch_shape(s, rows, shards)
    smaller = "rlp.max_branches_in_flight" if documents > shards or forks > 1 else ""
    trunk = {"batch_size": documents, "data.sequence_length": length}
    fields = {
        thoughts: s.thought_length,
        "rlp.group_size": s.group_size,
        "rlp.forks_per_document": forks,
        "batch_size": documents,
    }
    trunks = trunk_bytes(model, documents, len(s.prompt) + length, s.forks_per_document)
    branches = documents * forks * s.group_size
    return [
        *_copy(model, mesh, s),
        Need("caches of documents", sum(trunks.values()) // mesh.size, trunk, smaller),
        *of_sampling(model, s.thought_length, branches, fields, mesh.size, smaller),
    ]


def of_evaluation(
    model: ModelConfig,
    mesh: Mesh,
    settings: RLPSettings,
    forks: int,
    each: int,
    fields: Mapping[str, int],
) -> list[Need]:
    """What is alive while a held-out document is thought about, one on every device.

    Args:
      settings: of what is sampled.
      forks: of the document.
      each: thoughts of a fork, or responses.
      fields: that they grow with.
    """
    branches, split = forks * each, mesh.shape["tensor"]
    found = of_sampling(model, settings.thought_length, branches, fields, split)
    return [*_copy(model, mesh, settings), *found]


def _copy(model: ModelConfig, mesh: Mesh, settings: RLPSettings) -> list[Need]:
    """The copy of the parameters that thoughts are sampled with."""
    if gatherer(model, mesh, settings.rollout_layout) is None:
        return []
    held = gathered_bytes(model, mesh)[1]
    return [Need("copy of the parameters", held, _sizes(model, shapes(model)))]


def of_sampling(
    model: ModelConfig,
    limit: int,
    branches: int,
    fields: Mapping[str, int],
    split: int = 1,
    smaller: str = "",
) -> list[Need]:
    """Caches of branches, and the logits of their next token.

    Args:
      limit: most tokens of a branch.
      branches: all that are sampled at a time.
      fields: that they grow with.
      split: devices that share them.
      smaller: the field that cuts them into batches.
    """
    cache = sum(branch_bytes(model, 1, branches, limit).values())
    logits = branches * model.vocab_size * FLOAT32
    counts = {name: value for name, value in fields.items() if not name.endswith("length")}
    return [
        Need("caches of thoughts", cache // split, fields, smaller),
        Need("logits", logits // split, counts, smaller),
    ]


def _residual(model: ModelConfig, mesh: Mesh, tokens: int) -> int:
    """Bytes of the residual stream before every layer, on one device."""
    each = model.num_layers * model.hidden_size * np.dtype(model.dtype).itemsize
    return tokens * each // mesh.size


def _sizes(model: ModelConfig, params: Any) -> dict[str, int]:
    """The fields that the largest parameter grows with most."""
    values = dataclasses.asdict(model)
    named = _FIELDS.get(largest_axis(params) or "", tuple(values))
    return {f"model.{name}": values[name] for name in named if type(values[name]) is int}
