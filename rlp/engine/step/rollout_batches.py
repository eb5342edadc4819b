"""Rollout batches: their size, the bytes of their caches, and joining them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from models.cache import branch_bytes, trunk_bytes
from models.config import ModelConfig
from models.sharding import shards
from rlp.engine.branches import Vocabulary
from rlp.engine.microbatching import largest_batch
from rlp.engine.rollout import Rollout
from rlp.engine.settings import RLPSettings
from rlp.engine.step.thinking import Evidence


def rollout_batch_shape(settings: RLPSettings, documents: int, shards: int) -> tuple[int, int]:
    """Return the number of documents of a rollout batch, and of forks of each.

    Args:
      settings: of the method.
      documents: B, of a step.
      shards: devices that split the documents; divides B.

    Raises:
      ValueError: If `rlp.max_branches_in_flight` is too small for one group on every device.
    """
    s = settings
    branches, limit = s.forks_per_document * s.group_size, s.max_branches_in_flight
    name = "rlp.max_branches_in_flight"
    rows, row_branches = largest_batch(documents, branches, s.group_size, limit, shards, name)
    return rows, row_branches // s.group_size


def cache_bytes(
    model: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    length: int,
    rows: int,
    forks: int,
) -> int:
    """Return the bytes of the caches of a rollout batch, over all devices.

    Args:
      model, settings: of the method.
      vocabulary: for the lengths of the thinking tags.
      length: T, tokens of a row without the thinking prompt.
      rows, forks: from `rollout_batch_shape`.
    """
    s = settings
    tags = len(vocabulary.think_open) + len(vocabulary.think_close)
    slots = tags + s.thought_length + s.horizon - 1
    trunks = trunk_bytes(model, rows, len(s.prompt) + length, s.forks_per_document)
    branches = branch_bytes(model, rows, forks * s.group_size, slots)
    return sum(trunks.values()) + sum(branches.values())


def join_rollout_batches(
    batches: list[tuple[Rollout, Evidence]], per_document: int
) -> tuple[Rollout, Evidence]:
    """Join rollout batches into one rollout, its documents in the order of the step's batch.

    So the documents of a minibatch do not depend on the rollout batches. Every device has a share
    of the documents of every rollout batch (`Rows.placed`), so no data moves between devices.

    Args:
      batches: thoughts and their evidence.
      per_document: number of consecutive batches that are of the same documents.
    """

    def documents(*parts: jax.Array) -> jax.Array:
        of_shards = [x.reshape(shards("rows"), -1, *x.shape[1:]) for x in parts]
        return jnp.concatenate(of_shards, axis=1).reshape(-1, *parts[0].shape[1:])

    forks = lambda *parts: jnp.concatenate(parts, axis=1)
    trunks = [rollout.trunk for rollout, _ in batches[::per_document]]
    decoded = sum(rollout.decoded for rollout, _ in batches)
    gone: Any = None
    of_forks = [
        (dataclasses.replace(rollout, trunk=gone, decoded=gone), evidence)
        for rollout, evidence in batches
    ]
    starts = range(0, len(batches), per_document)
    rows = [jax.tree.map(forks, *of_forks[i : i + per_document]) for i in starts]
    rollout, evidence = jax.tree.map(documents, *rows)
    trunk = jax.tree.map(documents, *trunks)
    return dataclasses.replace(rollout, trunk=trunk, decoded=decoded), evidence
