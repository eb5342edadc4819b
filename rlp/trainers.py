"""Trainers: the jitted stages of an objective on a mesh, with their clock and their bill.

A trainer takes a step on a batch and says what it cost. It knows nothing of configs, files or data
sources; the loop hands it what it needs.
"""

import dataclasses
import functools
import time
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from models.config import ModelConfig
from models.sharding import batch_sharding, parameter_shardings, replicated
from models.transformer import Params, shapes
from rlp import step as stages
from rlp.branches import Vocabulary
from rlp.data.batch import Batch
from rlp.flops import next_token_flops, rlp_flops
from rlp.optimizer import Optimizer
from rlp.step import RLPSettings, TrainState


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
        self._rollout = jax.jit(
            functools.partial(stages.rollout_stage, model, settings, vocabulary)
        )
        self._evidence = jax.jit(
            functools.partial(stages.evidence_stage, model, settings, vocabulary)
        )
        self._update = jax.jit(
            functools.partial(stages.update_stage, model, settings, vocabulary, optimizer),
            donate_argnums=0,
            out_shardings=(shardings, replicated(mesh)),
        )
        self._finish = jax.jit(
            functools.partial(stages.finish_step, settings),
            donate_argnums=0,
            out_shardings=shardings,
        )
        self._figures = jax.jit(
            functools.partial(stages.rollout_metrics, settings=settings),
            out_shardings=replicated(mesh),
        )

    def step(
        self, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, dict[str, float], Cost]:
        """One rollout and its updates."""
        clock = {}
        placed = jax.device_put(batch, batch_sharding(self._mesh))
        start = time.perf_counter()
        scorer = state.params if state.baseline is None else state.baseline
        rollout, forks = self._rollout(state.params, scorer, placed, key, state.step)
        clock["rollout"] = _since(start, rollout)

        start = time.perf_counter()
        evidence = self._evidence(state.params, state.baseline, placed, rollout, forks)
        figures = self._figures(rollout, evidence)
        clock["evidence"] = _since(start, figures)

        rollout = rollout.without_caches()
        start = time.perf_counter()
        updates = []
        for _ in range(self._settings.updates_per_rollout):
            state, metrics = self._update(state, rollout, evidence)
            updates.append(metrics)
        state = self._finish(state)
        each = [_to_host(metrics) for metrics in updates]
        # The gap between sampler and trainer is that of the first update: later ones move theta.
        host = _to_host(figures) | _mean(each) | {"logprob_gap": each[0]["logprob_gap"]}
        clock["update"] = _since(start, state.step)

        rows, length = batch.tokens.shape
        branches = rollout.thoughts.length.size
        trunk = length + len(self._settings.prompt)
        once = rows * trunk + branches * self._settings.thought_length
        cost = Cost(
            documents=int((batch.segment > 0).sum()),
            rollout=int(rollout.thoughts.length.sum()),
            update=self._settings.updates_per_rollout * once,
            flops=rlp_flops(self._model, self._settings, rows, length, int(rollout.decode_steps)),
            seconds=clock,
        )
        return state, host, cost


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
