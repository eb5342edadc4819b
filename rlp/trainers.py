"""Trainers: the jitted stages of an objective on a mesh, with their clock and their bill.

A trainer takes a step on a batch and says what it cost. It knows nothing of configs, files or data
sources; the loop hands it what it needs.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from models.config import ModelConfig
from models.sharding import batch_sharding, batch_shards, parameter_shardings, replicated
from models.transformer import Params, shapes
from rlp import step as stages
from rlp.branches import Vocabulary
from rlp.data.batch import Batch
from rlp.figures import rollout_metrics
from rlp.flops import next_token_flops, rlp_flops
from rlp.optimizer import Optimizer
from rlp.rollout import Rollout
from rlp.step import Evidence, RLPSettings, TrainState
from rlp.waves import wave_shape


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a step cost. Tokens are those that took part, FLOPs those that were executed."""

    documents: int  # document tokens read
    rollout: int  # tokens sampled
    update: int  # slots through the differentiated pass
    flops: int
    seconds: dict[str, float]  # by stage


@dataclasses.dataclass
class Totals:
    """What a run has used so far; saved with every checkpoint."""

    position: int = 0  # records of the data stream
    tokens_documents: int = 0
    tokens_rollout: int = 0
    tokens_update: int = 0
    flops: int = 0
    seconds_train: float = 0.0
    seconds_evaluate: float = 0.0

    def add(self, cost: Cost) -> None:
        """Adds a step."""
        self.tokens_documents += cost.documents
        self.tokens_rollout += cost.rollout
        self.tokens_update += cost.update
        self.flops += cost.flops

    def metrics(self) -> dict[str, int]:
        """The cumulative counts, as metrics."""
        names = ("tokens_documents", "tokens_rollout", "tokens_update", "flops")
        return {name: getattr(self, name) for name in names}


class Trainer(Protocol):
    """Takes steps of one objective."""

    def step(
        self, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, dict[str, float], Cost]:
        """One step. Consumes `state`; `key` is the root key of the run."""


def state_shardings(mesh: Mesh, model: ModelConfig, optimizer: Optimizer, baseline: bool) -> Any:
    """Shardings of a whole state, as a TrainState of them.

    Optimizer moments and phi live where their parameter lives.
    """
    params = shapes(model)
    placed = parameter_shardings(mesh, params)
    whole = replicated(mesh)
    fields: dict[str, Any] = {
        "params": placed,
        "optimizer": optimizer.shardings(params, placed, whole),
        "baseline": placed if baseline else None,
    }
    counters: dict[str, Any] = dict.fromkeys(("step", "skipped", "skipped_in_row"), whole)
    return TrainState(**fields, **counters)


class NextTokenTrainer:
    """Next-token prediction on packed rows."""

    def __init__(self, model: ModelConfig, optimizer: Optimizer, mesh: Mesh, shardings: Any):
        self._model, self._mesh = model, mesh
        self._update = jax.jit(
            functools.partial(stages.next_token_stage, model, optimizer),
            donate_argnums=0,
            out_shardings=(shardings, replicated(mesh)),
        )

    def step(
        self, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, dict[str, float], Cost]:
        """One update."""
        start = time.perf_counter()
        state, metrics = self._update(state, jax.device_put(batch, batch_sharding(self._mesh)))
        host = _to_host(metrics)
        cost = Cost(
            documents=int((batch.segment > 0).sum()),
            rollout=0,
            update=batch.tokens.size,
            flops=next_token_flops(self._model, *batch.tokens.shape),
            seconds={"update": time.perf_counter() - start},
        )
        return state, host, cost


class RLPTrainer:
    """Algorithm 1: rollout, evidence, update."""

    def __init__(
        self,
        model: ModelConfig,
        settings: RLPSettings,
        vocabulary: Vocabulary,
        optimizer: Optimizer,
        mesh: Mesh,
        shardings: Any,
    ):
        self._model, self._settings, self._mesh = model, settings, mesh
        self._vocabulary = vocabulary
        self._shards = batch_shards(mesh)
        method = functools.partial(_jit_stage, model, settings, vocabulary)
        self._read = method(stages.read_stage)
        self._no_think = method(stages.no_think_stage)
        self._rollout = method(stages.rollout_stage, static_argnames="forks")
        self._evidence = method(stages.evidence_stage)
        self._join = jax.jit(_join_waves, static_argnums=1)
        self._update = jax.jit(
            functools.partial(
                stages.update_stage, model, settings, vocabulary, optimizer, shards=self._shards
            ),
            donate_argnums=0,
            out_shardings=(shardings, replicated(mesh)),
        )
        self._finish = jax.jit(
            functools.partial(stages.finish_step, settings),
            donate_argnums=0,
            out_shardings=shardings,
        )
        self._figures = jax.jit(
            functools.partial(rollout_metrics, settings=settings), out_shardings=replicated(mesh)
        )

    def step(
        self, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, dict[str, float], Cost]:
        """One rollout and its updates."""
        clock = dict.fromkeys(("rollout", "evidence", "update"), 0.0)
        rollout, evidence = self._think(state, batch, key, clock)

        start = time.perf_counter()
        figures = self._figures(rollout, evidence)
        updates = []
        for _ in range(self._settings.updates_per_rollout):
            state, metrics = self._update(state, rollout, evidence)
            updates.append(metrics)
        state = self._finish(state)
        each = [_to_host(metrics) for metrics in updates]
        # The gap between sampler and trainer is that of the first update: later ones move theta.
        host = _to_host(figures) | _mean(each) | {"logprob_gap": each[0]["logprob_gap"]}
        clock["update"] += _since(start, state.step)
        return state, host, self._cost(batch, rollout, clock)

    def _think(
        self, state: TrainState, batch: Batch, key: jax.Array, clock: dict[str, float]
    ) -> tuple[Rollout, Evidence]:
        """Rollout and evidence of a batch, one wave after the other. Adds seconds to `clock`."""
        s = self._settings
        scorer = state.params if state.baseline is None else state.baseline
        rows, forks = rollout_wave(s, len(batch.index), self._shards)
        waves = []
        for part in _cut(batch, rows, self._shards):
            start = time.perf_counter()
            placed = jax.device_put(part, batch_sharding(self._mesh))
            reading = self._read(state.params, scorer, placed, key, state.step)
            clock["rollout"] += _since(start, reading)

            start = time.perf_counter()
            no_think = self._no_think(state.params, state.baseline, placed, reading)
            clock["evidence"] += _since(start, no_think)
            for first in range(0, s.forks_per_document, forks):
                start = time.perf_counter()
                rollout = self._rollout(state.params, reading, first, forks=forks)
                clock["rollout"] += _since(start, rollout)

                start = time.perf_counter()
                evidence = self._evidence(state.params, reading, no_think, rollout, first)
                clock["evidence"] += _since(start, evidence)
                waves.append((rollout.without_cache(), evidence))
        if len(waves) == 1:
            return waves[0]
        return self._join(waves, s.forks_per_document // forks)

    def _cost(self, batch: Batch, rollout: Rollout, seconds: dict[str, float]) -> Cost:
        rows, length = batch.tokens.shape
        s, words = self._settings, self._vocabulary
        slots = len(words.think_open) - 1 + s.thought_length
        once = rows * (length + len(s.prompt)) + rollout.thoughts.length.size * slots
        return Cost(
            documents=int((batch.segment > 0).sum()),
            rollout=int(rollout.thoughts.length.sum()),
            update=s.updates_per_rollout * once,
            flops=rlp_flops(self._model, s, words, rows, length, int(rollout.decoded)),
            seconds=seconds,
        )


def rollout_wave(settings: RLPSettings, documents: int, shards: int) -> tuple[int, int]:
    """Documents of a wave of the rollout, and forks of each.

    Raises:
      ValueError: `rlp.max_branches_in_flight` is too small for one group on every device.
    """
    s = settings
    branches, limit = s.forks_per_document * s.group_size, s.max_branches_in_flight
    name = "rlp.max_branches_in_flight"
    rows, each = wave_shape(documents, branches, s.group_size, limit, shards, name)
    return rows, each // s.group_size


def cache_bytes(
    model: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    length: int,
    rows: int,
    forks: int,
) -> int:
    """Bytes of the caches of a wave, over all devices.

    Args:
      vocabulary: for the lengths of the thinking tags.
      length: T, without the thinking prompt.
      rows, forks: from `rollout_wave`.
    """
    s = settings
    tags = len(vocabulary.think_open) + len(vocabulary.think_close)
    branch_slots = forks * s.group_size * (tags + s.thought_length + s.horizon - 1)
    tokens = rows * (len(s.prompt) + length + branch_slots)
    each = 2 * model.num_layers * model.num_kv_heads * model.head_dim
    return tokens * each * np.dtype(model.dtype).itemsize


def _jit_stage(
    model: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    stage: Callable,
    **options: Any,
) -> Any:
    return jax.jit(functools.partial(stage, model, settings, vocabulary), **options)


def _cut(batch: Batch, rows: int, shards: int) -> list[Batch]:
    """The batch in waves of `rows` documents, each with its share of every device's rows."""
    waves = len(batch.index) // rows
    if waves == 1:
        return [batch]
    order = np.arange(len(batch.index)).reshape(shards, waves, -1).swapaxes(0, 1)
    return [jax.tree.map(lambda x: x[part], batch) for part in order.reshape(waves, -1)]  # noqa: B023


def _join_waves(
    waves: list[tuple[Rollout, Evidence]], per_document: int
) -> tuple[Rollout, Evidence]:
    """One rollout of all waves; `per_document` of them hold forks of the same documents."""
    join = lambda axis, parts: jax.tree.map(lambda *x: jnp.concatenate(x, axis=axis), *parts)
    trunks = [rollout.trunk for rollout, _ in waves[::per_document]]
    decoded = sum(rollout.decoded for rollout, _ in waves)
    bare: Any = None
    without = [
        (dataclasses.replace(rollout, trunk=bare, decoded=bare), evidence)
        for rollout, evidence in waves
    ]
    rows = [join(1, without[i : i + per_document]) for i in range(0, len(waves), per_document)]
    rollout, evidence = join(0, rows)
    return dataclasses.replace(rollout, trunk=join(0, trunks), decoded=decoded), evidence


def abstract_params(model: ModelConfig, mesh: Mesh) -> Params:
    """Shapes of the parameters with their places on the mesh."""
    tree = shapes(model)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        parameter_shardings(mesh, tree),
    )


def _since(start: float, result: Any) -> float:
    """Seconds from `start` until `result` is computed."""
    jax.block_until_ready(result)
    return time.perf_counter() - start


def _to_host(metrics: dict[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(metrics).items()}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean over the updates of a step; a single non-finite one shows."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
