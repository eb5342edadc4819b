"""Lower bounds of the memory of a run on one device, from shapes alone; see `device_memory`.

    of_state        parameters, optimizer state, phi and pi_ref; in an update, gradients, too
    of_update       activations that the backward pass needs
    of_rollout      the gathered parameters, caches of a rollout batch, copies that decoding makes,
                    logits of a token
    of_evaluation   the same for one held-out document per device
    of_sampling     caches and logits only

The shapes of parameters, optimizer state and caches come from the code that allocates them, so new
kinds of layers need no change here.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from models.cache import branch_bytes, trunk_bytes
from models.config import ModelConfig
from models.sharding import batch_shards, largest_axis, parameter_shardings
from models.transformer import decodes_unrolled, is_unrolled, shapes
from rlp.capacity.device_memory import Need
from rlp.engine.branches import Vocabulary
from rlp.engine.microbatching import largest_batch
from rlp.engine.optimizer import Optimizer
from rlp.engine.placement import (
    abstract_params,
    device_bytes,
    gather,
    gathered_bytes,
    needs_gathering,
    placed,
    state_shardings,
)
from rlp.engine.step import RLPSettings, TrainState, new_state
from rlp.engine.step.rollout_batches import rollout_batch_shape

# Logical axis of a parameter -> fields of ModelConfig whose product is its size.
_FIELDS = {
    "vocab": ("vocab_size",),
    "width": ("hidden_size",),
    "heads": ("num_heads", "head_dim"),
    "kv_heads": ("num_kv_heads", "head_dim"),
    "mamba_heads": ("mamba_heads", "mamba_head_dim"),
    "mamba_groups": ("mamba_groups", "mamba_state"),
    "delta_heads": ("delta_heads", "delta_head_dim"),
    "delta_key_heads": ("delta_key_heads", "delta_key_dim"),
    "ffn": ("ffn_size",),
    "layers": ("num_layers",),
    "norm": ("hidden_size", "head_dim"),
}
FLOAT32 = 4
ID_BYTES = 56  # of an id in three Python tuples: the integer, and three pointers


def of_parameters(model: ModelConfig, mesh: Mesh) -> list[Need]:
    """Return the need of the parameters, sharded over a mesh."""
    tree = abstract_params(model, mesh)
    return [Need("parameters", device_bytes(tree), _sizes(model, tree))]


def of_unrolled_layers(model: ModelConfig) -> list[Need]:
    """Return the need of the layers that generation on one device copies out of their stacks to
    decode (`rlp.engine.decoding.for_decoding`); none if it scans them."""
    if not decodes_unrolled(model):
        return []
    layers = {"blocks": shapes(model)["blocks"]}
    return [Need("layers unrolled to decode", device_bytes(layers), _sizes(model, layers))]


def of_unused_rows(model: ModelConfig, used: int) -> list[Need]:
    """Return the need, on the host, of the list of ids that the tokenizer does not use."""
    size = max(model.vocab_size - used, 0) * ID_BYTES
    return [Need("unused token ids", size, {"model.vocab_size": model.vocab_size})]


def abstract_state(
    mesh: Mesh,
    model: ModelConfig,
    optimizer: Optimizer,
    baseline: bool,
    memory: str,
    reference: bool,
) -> TrainState:
    """Return the shapes of a state with shardings; arguments as in `placement.state_shardings`."""
    begin = lambda params: new_state(params, optimizer, baseline, reference)
    shardings = state_shardings(mesh, model, optimizer, baseline, memory, reference)
    return placed(jax.eval_shape(begin, shapes(model)), shardings)


def of_state(model: ModelConfig, state: TrainState, learns: bool) -> list[Need]:
    """Return the needs of a state.

    Args:
      model: config of the network.
      state: from `abstract_state`; arrays in host memory are not counted.
      learns: whether to count gradients. All of them are live together with the state, since the
        optimizer computes their norm first.
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
    """Return the need of a next-token update: the residual stream of every layer."""
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
    """Return the needs of an RLP update: the residual streams of a micro-batch.

    Args:
      model, mesh, settings, vocabulary: of the run.
      rows: B.
      length: T, without the thinking prompt.
      thoughts: path of the field that limits the length of thoughts.
    """
    s, shards, field = settings, batch_shards(mesh), "rlp.update_micro_batch"
    documents, branches = largest_batch(
        rows // s.minibatches, s.forks_per_document * s.group_size, 1, s.update_micro_batch, shards,
        field,
    )  # fmt: skip
    limit_field = field if documents > shards or branches > 1 else ""
    trunk = {"batch_size": documents, "data.sequence_length": length}
    branch = {thoughts: s.thought_length, "batch_size": documents}
    if branches > 1:
        branch |= {"rlp.group_size": s.group_size, "rlp.forks_per_document": s.forks_per_document}
    slots = len(vocabulary.think_open) - 1 + s.thought_length
    documents_tokens = documents * (len(s.prompt) + length)
    return [
        Need(
            "activations of documents",
            _residual(model, mesh, documents_tokens),
            trunk,
            limit_field,
        ),
        Need(
            "activations of thoughts",
            _residual(model, mesh, documents * branches * slots),
            branch,
            limit_field,
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
    """Return the needs of the rollout of a batch; arguments as in `of_update`."""
    s, shards = settings, batch_shards(mesh)
    documents, forks = rollout_batch_shape(s, rows, shards)
    limit_field = "rlp.max_branches_in_flight" if documents > shards or forks > 1 else ""
    trunk = {"batch_size": documents, "data.sequence_length": length}
    fields = {
        thoughts: s.thought_length,
        "rlp.group_size": s.group_size,
        "rlp.forks_per_document": forks,
        "batch_size": documents,
    }
    each = trunk_bytes(model, documents, len(s.prompt) + length, s.forks_per_document)
    caches = Need("caches of documents", sum(each.values()) // mesh.size, trunk, limit_field)
    copy = dataclasses.replace(caches, what="their copies for decoding")
    branches = documents * forks * s.group_size
    return [
        *_copies(model, mesh, s),
        caches,
        *([copy] if _unrolls_to_decode(model) else []),
        *of_sampling(model, s.thought_length, branches, fields, mesh.size, limit_field),
    ]


def of_evaluation(
    model: ModelConfig,
    mesh: Mesh,
    settings: RLPSettings,
    forks: int,
    samples: int,
    fields: Mapping[str, int],
) -> list[Need]:
    """Return the needs of the evaluation of one held-out document per device.

    Args:
      model, mesh, settings: of the evaluation.
      forks: per document.
      samples: thoughts or responses per fork.
      fields: that their number is proportional to, with values.
    """
    branches, split = forks * samples, mesh.shape["tensor"]
    sampling = of_sampling(model, settings.thought_length, branches, fields, split)
    return [*_copies(model, mesh, settings), *sampling]


def _copies(model: ModelConfig, mesh: Mesh, settings: RLPSettings) -> list[Need]:
    """Return the needs of the copies of parameters that sampling reads: the gathered ones, and
    those of the layers that are unrolled to decode."""
    needs: list[Need] = []
    gathered = needs_gathering(model, mesh, settings.rollout_layout)
    if gathered:
        size = gathered_bytes(model, mesh)[1]
        needs.append(Need("gathered parameters", size, _sizes(model, shapes(model))))
    if _unrolls_to_decode(model):
        tree = jax.eval_shape(functools.partial(gather, model), shapes(model))
        used = placed(tree, parameter_shardings(mesh, tree, gathered=gathered))
        layers = {"blocks": used["blocks"]}
        size = device_bytes(layers)
        needs.append(Need("layers unrolled to decode", size, _sizes(model, layers)))
    return needs


def _unrolls_to_decode(model: ModelConfig) -> bool:
    """Return whether decoding copies scanned layers and the caches of documents out of their stacks
    (`rlp.engine.decoding.for_decoding`)."""
    return decodes_unrolled(model) and not is_unrolled(model)


def of_sampling(
    model: ModelConfig,
    limit: int,
    branches: int,
    fields: Mapping[str, int],
    split: int = 1,
    limit_field: str = "",
) -> list[Need]:
    """Return the needs of sampling: caches of branches, and logits of their next token.

    Args:
      model: config of the network.
      limit: at most this number of tokens per branch.
      branches: that are sampled at the same time.
      fields: that their number is proportional to, with values.
      split: devices that they are sharded over.
      limit_field: as in `Need`.
    """
    cache = sum(branch_bytes(model, 1, branches, limit).values())
    logits = branches * model.vocab_size * FLOAT32
    counts = {name: value for name, value in fields.items() if not name.endswith("length")}
    return [
        Need("caches of thoughts", cache // split, fields, limit_field),
        Need("logits", logits // split, counts, limit_field),
    ]


def _residual(model: ModelConfig, mesh: Mesh, tokens: int) -> int:
    """Return the bytes per device of the residual stream before every layer."""
    token = model.num_layers * model.hidden_size * np.dtype(model.dtype).itemsize
    return tokens * token // mesh.size


def _sizes(model: ModelConfig, params: Any) -> dict[str, int]:
    """Return the fields that the size of the largest axis of the parameters is the product of."""
    values = dataclasses.asdict(model)
    named = _FIELDS.get(largest_axis(params) or "", tuple(values))
    return {f"model.{name}": values[name] for name in named if type(values[name]) is int}
