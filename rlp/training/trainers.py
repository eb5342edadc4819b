"""Trainers: the jitted stages of an objective on a mesh, with their clock and their bill.

A trainer takes a step on some rows and says what it cost. It knows nothing of configs, files or
data sources; the loop hands it what it needs. What it brings to the host is the same on every
device, so that every host can read it.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from models.config import ModelConfig
from models.sharding import batch_shards, parameter_shardings, replicated
from models.transformer import Params, shapes
from rlp.data.batch import Batch
from rlp.data.rows import Rows
from rlp.engine import nonfinite
from rlp.engine import step as stages
from rlp.engine.branches import Vocabulary
from rlp.engine.microbatching import wave_shape
from rlp.engine.optimizer import Optimizer
from rlp.engine.placement import gathered_bytes, gatherer
from rlp.engine.rollout import Rollout
from rlp.engine.rollout_metrics import rollout_metrics
from rlp.engine.step import Evidence, RLPSettings, TrainState
from rlp.engine.token_bytes import TokenBytes
from rlp.training.cost import Cost
from rlp.training.flops import by_part, next_token_flops, rlp_flops


class Trainer(Protocol):
    """Takes steps of one objective.

    Attributes:
      fault: which value of the last step is not finite, and what to do; "" where all are.
    """

    fault: str

    def step(
        self, state: TrainState, rows: Rows, key: jax.Array
    ) -> tuple[TrainState, dict[str, float], Cost]:
        """One step. Consumes `state`; `key` is the root key of the run."""


class Clock:
    """Seconds by stage. `with clock("x") as done: y = done(f())` waits until y is computed."""

    def __init__(self, *stages: str):
        self.seconds = dict.fromkeys(stages, 0.0)

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[Callable]:
        start = time.perf_counter()
        yield jax.block_until_ready
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


class NextTokenTrainer:
    """Next-token prediction on packed rows.

    Attributes:
      update: jitted (state, batch) to (state, metrics, document tokens).
      fault: as of `Trainer`.
    """

    def __init__(self, model: ModelConfig, optimizer: Optimizer, mesh: Mesh, shardings: Any):
        self.mesh, self.fault = mesh, ""
        self._model = model
        self._optimizer_flops = optimizer.flops(shapes(model))
        self._losses: Any = None  # jitted (parameters, batch) to the loss of every row, on demand
        whole = replicated(mesh)

        def update(state: TrainState, batch: Batch) -> Any:
            tokens = (batch.segment > 0).sum()
            return *stages.next_token_stage(model, optimizer, state, batch), tokens

        self.update = jax.jit(update, donate_argnums=0, out_shardings=(shardings, whole, whole))

    def step(
        self, state: TrainState, rows: Rows, key: jax.Array
    ) -> tuple[TrainState, dict[str, float], Cost]:
        """One update."""
        clock = Clock("data", "update")
        with jax.set_mesh(self.mesh):
            with clock("data"):
                batch = rows.placed(self.mesh)
            with clock("update"):
                state, *found = self.update(state, batch)
                metrics, tokens = _to_host(found)
            self.fault = self._fault(state, batch, metrics) if nonfinite.amiss(metrics) else ""
            cost = Cost(
                documents=int(tokens),
                rollout=0,
                update=batch.tokens.size,
                flops=by_part(
                    next_token_flops(self._model, self._optimizer_flops, *batch.tokens.shape)
                ),
                seconds=clock.seconds,
            )
        return state, metrics, cost

    def _fault(self, state: TrainState, batch: Batch, metrics: dict[str, float]) -> str:
        """Which value of a step is not finite."""

        def losses(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
            return stages.next_token_losses(self._model, params, batch), jnp.asarray(batch.index)

        if found := nonfinite.in_networks({"": lambda: state.params}):
            return found
        if self._losses is None:
            self._losses = jax.jit(losses, out_shardings=replicated(self.mesh))
        each, index = jax.device_get(self._losses(state.params, batch))
        return nonfinite.in_rows(each, lambda row: int(index[row])) or nonfinite.in_update(metrics)


class RLPTrainer:
    """Algorithm 1: rollout, evidence, update.

    Attributes:
      gather: jitted parameters to the copy that a rollout reads; None where it reads the parameters
        themselves.
      read, no_think, rollout, evidence, update, finish: jitted stages of `rlp.engine.step`.
      reference: the stage of that name; None without a KL term.
      join: jitted waves, and how many hold forks of the same documents, to one rollout.
      figures: jitted rollout and evidence to metrics, and counts.
      fault: as of `Trainer`.
    """

    clocked: tuple[str, ...] = ("data", "rollout", "evidence", "update")

    def __init__(
        self,
        model: ModelConfig,
        settings: RLPSettings,
        vocabulary: Vocabulary,
        optimizer: Optimizer,
        mesh: Mesh,
        shardings: Any,
        table: TokenBytes | None = None,
    ):
        self.mesh, self._table, self.fault = mesh, table, ""
        self._model, self._settings, self._vocabulary = model, settings, vocabulary
        self._shards = batch_shards(mesh)
        self._on_device = parameter_shardings(mesh, shapes(model))
        self._optimizer_flops = optimizer.flops(shapes(model))
        whole = replicated(mesh)
        method = functools.partial(jit_stage, model, settings, vocabulary)
        self.gather = gatherer(model, mesh, settings.rollout_layout)
        self._gathered, _ = gathered_bytes(model, mesh)
        self.read = method(stages.read_stage)
        self.no_think = method(stages.no_think_stage)
        self.rollout = method(stages.rollout_stage, static_argnames="forks")
        self.evidence = method(stages.evidence_stage)
        self.join = jax.jit(functools.partial(_join_waves, self._shards), static_argnums=1)
        self.reference = None
        if settings.kl_weight:
            self.reference = method(functools.partial(stages.reference_stage, shards=self._shards))
        # phi and the reference take no part in an update, and may lie in the memory of the host.
        self.update = jax.jit(
            functools.partial(
                stages.update_stage, model, settings, vocabulary, optimizer, shards=self._shards
            ),
            donate_argnums=0,
            out_shardings=(_without_others(shardings), whole),
        )
        self.finish = jax.jit(
            functools.partial(stages.finish_step, settings),
            donate_argnums=0,
            out_shardings=shardings,
        )
        self.figures = jax.jit(
            functools.partial(_figures, settings, vocabulary), out_shardings=whole
        )

    def step(
        self, state: TrainState, rows: Rows, key: jax.Array
    ) -> tuple[TrainState, dict[str, float], Cost]:
        """One rollout and its updates."""
        clock = Clock(*self.clocked)
        with jax.set_mesh(self.mesh):
            rollout, evidence = self._think(state, rows, key, clock)
            with clock("update"):
                figures = self.figures(rollout, evidence)
                state, updates = self._updated(state, rollout, evidence)
                jax.block_until_ready(state)
            figures, counts = _to_host(figures)
            each = [_to_host(metrics) for metrics in updates]
            cost = self._cost(rollout, counts, clock.seconds)
            # The gap between sampler and trainer is the first update's: later ones move theta.
            metrics = figures | _mean(each) | {"logprob_gap": each[0]["logprob_gap"]}
            self.fault = ""
            if nonfinite.amiss(metrics):
                self.fault = self._fault(state, rows, rollout, evidence, metrics)
        if self.gather:
            metrics["gather_bytes"] = self._gathered
        return state, metrics, cost

    def _fault(
        self,
        state: TrainState,
        rows: Rows,
        rollout: Rollout,
        evidence: Evidence,
        metrics: dict[str, float],
    ) -> str:
        """Which value of a step is not finite."""
        networks = {
            "": lambda: state.params,
            " (of the baseline)": lambda: self._fetched(state.baseline),
            " (of the reference)": lambda: self._fetched(state.reference),
        }
        record = lambda row: int(rows.read(row, 1).index[0])
        objective, whole = self._settings.objective, replicated(self.mesh)
        return (
            nonfinite.in_networks(networks)
            or nonfinite.in_thoughts(rollout, evidence, objective, record, whole)
            or nonfinite.in_update(metrics)
        )

    def _think(
        self, state: TrainState, rows: Rows, key: jax.Array, clock: Clock
    ) -> tuple[Rollout, Evidence]:
        """Rollout and evidence of some rows, with what the reference says of the thoughts."""
        rollout, evidence = self._waves(state, rows, key, clock)
        if self.reference:
            frozen = self._settings.baseline == "frozen"
            with clock("evidence") as done:
                params = self._fetched(state.baseline if frozen else state.reference)
                found = done(self.reference(params, rollout))
            evidence = dataclasses.replace(evidence, reference=found)
        return rollout, evidence

    def _waves(
        self, state: TrainState, rows: Rows, key: jax.Array, clock: Clock
    ) -> tuple[Rollout, Evidence]:
        """Rollout and evidence of some rows, one wave after the other."""
        params = state.params
        if self.gather:
            with clock("gather") as done:
                params = done(self.gather(params))
        documents, forks = rollout_wave(self._settings, rows.count, self._shards)
        count, waves = rows.count // documents, []
        for wave in range(count):
            with clock("data"):
                batch = rows.placed(self.mesh, wave, count)
            waves += self._wave(state, params, batch, forks, key, clock)
        if len(waves) == 1:
            return waves[0]
        return self.join(waves, self._settings.forks_per_document // forks)

    def _wave(
        self,
        state: TrainState,
        params: Params,
        batch: Batch,
        forks: int,
        key: jax.Array,
        clock: Clock,
    ) -> list[tuple[Rollout, Evidence]]:
        """Rollouts and evidence of a wave of documents, `forks` at a time, sampled with `params`.

        The caches end here, before those of the next wave are made.
        """
        baseline = self._fetched(state.baseline)
        scorer = params if baseline is None else baseline
        with clock("rollout") as done:
            reading = done(self.read(params, scorer, batch, key, state.step))
        with clock("evidence") as done:
            no_think = done(self.no_think(params, baseline, batch, reading))
        del baseline, scorer  # where phi lies on the host, this was a copy

        def sampled(first: int) -> tuple[Rollout, Evidence]:
            with clock("rollout") as done:
                rollout = done(self.rollout(params, reading, first, forks=forks))
            with clock("evidence") as done:
                evidence = done(
                    self.evidence(params, reading, no_think, rollout, first, self._table)
                )
            return rollout.without_cache(), evidence

        return [sampled(first) for first in range(0, self._settings.forks_per_document, forks)]

    def _updated(
        self, state: TrainState, rollout: Rollout, evidence: Evidence
    ) -> tuple[TrainState, list[dict[str, jax.Array]]]:
        """The state after all updates on a rollout, and their metrics."""
        baseline, reference = state.baseline, state.reference
        state, updates = _without_others(state), []
        for number in range(self._settings.updates):
            minibatch = number % self._settings.minibatches
            state, metrics = self.update(state, rollout, evidence, minibatch)
            updates.append(metrics)
        if self._settings.baseline == "ema":
            baseline = self._fetched(baseline)
        state = dataclasses.replace(state, baseline=baseline, reference=reference)
        return self.finish(state), updates

    def _fetched(self, params: Params | None) -> Params | None:
        """phi or the reference in the memory of the devices."""
        return None if params is None else jax.device_put(params, self._on_device)

    def _cost(self, rollout: Rollout, counts: dict[str, float], seconds: dict[str, float]) -> Cost:
        rows, length = rollout.trunk.tokens.shape
        s, words = self._settings, self._vocabulary
        slots = len(words.think_open) - 1 + s.thought_length
        once = rows * length + rollout.thoughts.length.size * slots
        length -= len(s.prompt)
        flops = rlp_flops(
            self._model, s, words, self._optimizer_flops, rows, length, int(counts["decoded"])
        )
        return Cost(
            documents=int(counts["documents"]),
            rollout=int(counts["rollout"]),
            update=s.updates_per_rollout * once,
            flops=by_part(flops),
            seconds=seconds,
        )


def _without_others(state: TrainState) -> TrainState:
    """Of a state, or of its shardings, all but the networks that stand beside theta."""
    return dataclasses.replace(state, baseline=None, reference=None)


def _figures(
    settings: RLPSettings, vocabulary: Vocabulary, rollout: Rollout, evidence: Evidence
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Metrics of a rollout, and what the bill counts: tokens."""
    prompts = rollout.trunk.tokens.shape[0] * len(settings.prompt)
    counts = {
        "documents": (rollout.trunk.segment > 0).sum() - prompts,
        "rollout": rollout.thoughts.length.sum(),
        "decoded": rollout.decoded,
    }
    return rollout_metrics(rollout, evidence, settings, vocabulary), counts


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


def jit_stage(
    model: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    stage: Callable,
    **options: Any,
) -> Any:
    """A stage of `rlp.engine.step` with what all of them begin with, compiled when it is called."""
    return jax.jit(functools.partial(stage, model, settings, vocabulary), **options)


def _join_waves(
    shards: int, waves: list[tuple[Rollout, Evidence]], per_document: int
) -> tuple[Rollout, Evidence]:
    """One rollout of all waves, its documents in the order of the batch: which of them are in a
    minibatch does not depend on the waves.

    Args:
      shards: devices that split the documents; each has its share of every wave (`Rows.placed`).
      waves: `per_document` in a row hold forks of the same documents.
    """

    def documents(*parts: jax.Array) -> jax.Array:
        of_shards = [x.reshape(shards, -1, *x.shape[1:]) for x in parts]
        return jnp.concatenate(of_shards, axis=1).reshape(-1, *parts[0].shape[1:])

    forks = lambda *parts: jnp.concatenate(parts, axis=1)
    trunks = [rollout.trunk for rollout, _ in waves[::per_document]]
    decoded = sum(rollout.decoded for rollout, _ in waves)
    bare: Any = None
    without = [
        (dataclasses.replace(rollout, trunk=bare, decoded=bare), evidence)
        for rollout, evidence in waves
    ]
    starts = range(0, len(waves), per_document)
    rows = [jax.tree.map(forks, *without[i : i + per_document]) for i in starts]
    rollout, evidence = jax.tree.map(documents, *rows)
    trunk = jax.tree.map(documents, *trunks)
    return dataclasses.replace(rollout, trunk=trunk, decoded=decoded), evidence


def _to_host(values: Any) -> Any:
    """A tree of numbers, as floats."""
    return jax.tree.map(float, jax.device_get(values))


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean over the updates of a step; a single non-finite one shows."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
