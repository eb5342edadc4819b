"""The trainer of next-token prediction: pretraining, supervised fine-tuning, lookaheads."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from models.config import ModelConfig
from models.sharding import replicated
from models.transformer import Params, shapes
from rlp.data.batch import Batch
from rlp.data.rows import Rows
from rlp.engine import nonfinite
from rlp.engine.optimizer import Optimizer
from rlp.engine.stages import Setup
from rlp.engine.step import TrainState, next_token_gradient, next_token_losses
from rlp.training.cost import Cost
from rlp.training.flops import by_part, next_token_flops, total, without_remat
from rlp.training.trainers.base import Clock, StageRunner, to_host


class NextTokenTrainer(StageRunner):
    """Takes steps of next-token prediction on packed rows."""

    def __init__(self, model: ModelConfig, optimizer: Optimizer, mesh: Mesh, shardings: Any):
        super().__init__(Setup(model, None, None, optimizer, mesh), shardings)
        self._optimizer_flops = optimizer.flops(shapes(model))

    def step(
        self, state: TrainState, rows: Rows, key: jax.Array
    ) -> tuple[TrainState, dict[str, float], Cost]:
        """Take one update; see `Trainer.step`."""
        clock, mesh = Clock("data", "update"), self.setup.mesh
        with jax.set_mesh(mesh):
            with clock("data"):
                batch = rows.placed(mesh)
            values = self.run("batch", {"state": state, "batch": batch}, clock)
            with clock("update"):
                metrics, tokens = to_host((values["metrics"], values["tokens"]))
            state = values["state"]
            self.find_fault(metrics, lambda: self._fault(state, batch, metrics))
            flops = lambda model: next_token_flops(
                model, self._optimizer_flops, *batch.tokens.shape
            )
            cost = Cost(
                documents=int(tokens),
                rollout=0,
                update=batch.tokens.size,
                flops=by_part(flops(self.setup.model)),
                model_flops=total(flops(without_remat(self.setup.model))),
                seconds=clock.seconds,
            )
        return state, metrics, cost

    def _fault(self, state: TrainState, batch: Batch, metrics: dict[str, float]) -> str:
        """Describe the first value of a step that is not finite."""

        def losses(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
            return next_token_losses(self.setup.model, params, batch), jnp.asarray(batch.index)

        if fault := nonfinite.in_networks({"": lambda: state.params}):
            return fault
        whole = replicated(self.setup.mesh)
        by_row, index = jax.device_get(jax.jit(losses, out_shardings=whole)(state.params, batch))
        gradient = lambda *arguments: next_token_gradient(self.setup.model, *arguments)[-1]
        return (
            nonfinite.in_rows(by_row, lambda row: int(index[row]))
            or nonfinite.in_gradient(gradient, (state.params, batch), self.setup.model, whole)
            or nonfinite.in_update(metrics)
        )
