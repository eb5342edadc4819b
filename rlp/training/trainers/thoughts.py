"""The trainer of objectives over thoughts: Algorithm 1 of RLP (arXiv 2510.01265)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from models.sharding import batch_shards, parameter_shardings, replicated
from models.transformer import Params, shapes
from rlp.data.rows import Rows
from rlp.engine import nonfinite
from rlp.engine.method import Method
from rlp.engine.optimizer import Optimizer
from rlp.engine.placement import gathered_bytes
from rlp.engine.rollout import Rollout
from rlp.engine.stages import Setup, Values, still_read
from rlp.engine.step import Evidence, TrainState, minibatch_gradient, reference_stage
from rlp.engine.step.rollout_batches import rollout_batch_shape
from rlp.engine.token_bytes import TokenBytes
from rlp.training.cost import Cost
from rlp.training.flops import by_part, rlp_flops, total, without_remat
from rlp.training.trainers.base import Clock, StageRunner, to_host

ScoredRollout = tuple[Rollout, Evidence]


class RLPTrainer(StageRunner):
    """Takes steps of an objective over thoughts: rollout, evidence, update."""

    phases: tuple[str, ...] = ("data", "rollout", "evidence", "update")

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        mesh: Mesh,
        shardings: Any,
        table: TokenBytes | None = None,
    ):
        """Initialize the trainer.

        Args:
          method: network, settings and vocabulary.
          optimizer: of the run.
          mesh: with axes data, fsdp and tensor.
          shardings: of a state, from `state_shardings`.
          table: bytes of the tokens, for an objective that reads them.
        """
        model, self.settings, words = method.model, method.settings, method.vocabulary
        super().__init__(Setup(model, self.settings, words, optimizer, mesh), shardings)
        self._vocabulary, self._table = words, table
        self._on_device = parameter_shardings(mesh, shapes(model))
        self._optimizer_flops = optimizer.flops(shapes(model))
        self._gathered, _ = gathered_bytes(model, mesh)

    def step(
        self, state: TrainState, rows: Rows, key: jax.Array
    ) -> tuple[TrainState, dict[str, float], Cost]:
        """Run one rollout and its updates; see `Trainer.step`."""
        clock = Clock(*self.phases)
        with jax.set_mesh(self.setup.mesh):
            values = self.think(state, rows, key, clock)
            state, updates = self.update(state, values, clock)
            with clock("update") as done:
                done(state)
            metrics, counts = to_host((values["rollout_metrics"], values["counts"]))
            of_updates = [to_host(update) for update in updates]
            cost = self._cost(values["rollout"], counts, clock.seconds)
            # Only before the first update do sampler and trainer have the same theta.
            metrics |= _mean(of_updates) | {"logprob_gap": of_updates[0]["logprob_gap"]}
            self.find_fault(metrics, lambda: self._fault(state, rows, values, metrics))
        if "gather" in self.programs:
            metrics["gather_bytes"] = self._gathered
        return state, metrics, cost

    def think(self, state: TrainState, rows: Rows, key: jax.Array, clock: Clock) -> Values:
        """Sample and score thoughts at forks of documents.

        Returns:
          The values "rollout", "evidence", "rollout_metrics" and "counts".
        """
        with jax.set_mesh(self.setup.mesh):
            values = self._joined(*self._rollout_batches(state, rows, key, clock), clock)
            if self.settings.kl_weight:
                frozen = self.settings.baseline == "frozen"
                reference = state.baseline if frozen else state.reference
                values["reference"] = self._fetched(reference)
            values = self.run("batch", values, clock)
        names = ("rollout", "evidence", "rollout_metrics", "counts")
        return {name: values[name] for name in names}

    def _joined(self, batches: list[ScoredRollout], per_document: int, clock: Clock) -> Values:
        """Join rollout batches; `per_document` consecutive ones are of the same documents."""
        if len(batches) == 1:
            return dict(zip(("rollout", "evidence"), batches[0], strict=True))
        values = {"rollout_batches": batches, "batches_per_document": per_document}
        return still_read(self.run("join", values, clock), self.stages, "join")

    def _rollout_batches(
        self, state: TrainState, rows: Rows, key: jax.Array, clock: Clock
    ) -> tuple[list[ScoredRollout], int]:
        """Run all rollout batches; return their thoughts, and the number of them per document."""
        start: Values = {"params": state.params, "policy": state.params}
        start |= {"key": key, "step": state.step, "table": self._table}
        start = self.run("start", start, clock)
        s, shards = self.settings, batch_shards(self.setup.mesh)
        documents, start["forks"] = rollout_batch_shape(s, rows.count, shards)
        count, batches = rows.count // documents, []
        for number in range(count):
            with clock("data"):
                batch = rows.placed(self.setup.mesh, number, count)
            batches += self._of_documents(start | {"batch": batch}, state.baseline, clock)
        return batches, s.forks_per_document // start["forks"]

    def _of_documents(
        self, values: Values, baseline: Params | None, clock: Clock
    ) -> list[ScoredRollout]:
        """Run the rollout batches of some documents, a number of forks at a time."""
        values = values | {"baseline": self._fetched(baseline)}
        values["scorer"] = values["policy"] if baseline is None else values["baseline"]
        values = self.run("documents", values, clock)
        # With rlp.baseline_memory="host", this frees the copy of phi on the device.
        values = still_read(values, self.stages, "documents")
        firsts = range(0, self.settings.forks_per_document, values["forks"])
        return [self._thoughts(values | {"first": first}, clock) for first in firsts]

    def _thoughts(self, values: Values, clock: Clock) -> ScoredRollout:
        """Run one rollout batch; its caches are freed before those of the next are allocated."""
        values = self.run("forks", values, clock)
        return values["rollout"].without_cache(), values["evidence"]

    def update(
        self, state: TrainState, values: Values, clock: Clock
    ) -> tuple[TrainState, list[dict[str, jax.Array]]]:
        """Take all updates on a rollout; return the new state, and the metrics of each update.

        Args:
          state: before the updates.
          values: with "rollout" and "evidence", from `think`.
          clock: measures the phase "update".
        """
        baseline, reference = state.baseline, state.reference
        values, updates = values | {"trained": state.trained()}, []
        for number in range(self.settings.updates):
            values["minibatch"] = number % self.settings.minibatches
            values = self.run("minibatch", values, clock)
            updates.append(values["metrics"])
        if self.settings.baseline == "ema":
            baseline = self._fetched(baseline)
        moved = dataclasses.replace(values["trained"], baseline=baseline, reference=reference)
        return self.run("end", {"state": moved}, clock)["state"], updates

    def _fault(
        self, state: TrainState, rows: Rows, values: Values, metrics: dict[str, float]
    ) -> str:
        """Describe the first value of a step that is not finite."""
        networks = {
            "": lambda: state.params,
            " (of the baseline)": lambda: self._fetched(state.baseline),
            " (of the reference)": lambda: self._fetched(state.reference),
        }
        record = lambda row: int(rows.read(row, 1).index[0])
        objective, whole = self.settings.objective, replicated(self.setup.mesh)
        thoughts = (values["rollout"], values["evidence"])
        return (
            nonfinite.in_networks(networks)
            or nonfinite.in_thoughts(*thoughts, objective, record, whole)
            or self._update_fault(state.params, *thoughts, record, whole)
            or nonfinite.in_update(metrics)
        )

    def _update_fault(
        self,
        params: Params,
        rollout: Rollout,
        evidence: Evidence,
        record: Callable[[int], int],
        whole: Any,
    ) -> str:
        """Describe the first value that is not finite in the updates on finite evidence."""
        method = (self.setup.model, self.settings, self._vocabulary)
        logprobs = jax.jit(functools.partial(reference_stage, *method))(params, rollout)
        if fault := nonfinite.in_new_logprobs(rollout, evidence, logprobs, record, whole):
            return fault
        for number in range(self.settings.minibatches):
            gradient = lambda *arguments: minibatch_gradient(*method, *arguments)[-1]
            arguments = (params, rollout.without_cache(), evidence, number)
            if fault := nonfinite.in_gradient(gradient, arguments, self.setup.model, whole):
                return fault
        return ""

    def _fetched(self, params: Params | None) -> Params | None:
        """Return phi or pi_ref in device memory."""
        return None if params is None else jax.device_put(params, self._on_device)

    def _cost(self, rollout: Rollout, counts: dict[str, float], seconds: dict[str, float]) -> Cost:
        rows, length = rollout.trunk.tokens.shape
        s, words = self.settings, self._vocabulary
        slots = len(words.think_open) - 1 + s.thought_length
        tokens = rows * length + rollout.thoughts.length.size * slots  # of a pass over the rollout
        length -= len(s.prompt)
        flops = lambda model: rlp_flops(
            model, s, words, self._optimizer_flops, rows, length, int(counts["decoded"])
        )
        return Cost(
            documents=int(counts["documents"]),
            rollout=int(counts["rollout"]),
            update=s.updates_per_rollout * tokens,
            flops=by_part(flops(self.setup.model)),
            model_flops=total(flops(without_remat(self.setup.model))),
            seconds=seconds,
        )


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean over the updates of a step; it is not finite if one update's value is not."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
