"""Build the end condition and the optimizer of a run from its config."""

from configs.default import Config
from models.config import ModelConfig
from models.transformer import shapes
from rlp.engine.optimizer import Optimizer, make_optimizer
from rlp.run import tasks
from rlp.runtime import hosts
from rlp.training.budget import UNITS, Budget, End, Steps, split, used_by


def build_end(config: Config, model: ModelConfig) -> End:
    """Return when a run ends: after `steps`, or when it has used the budget of `match`.

    Raises:
      UserError: If `match` names a run that has not finished, or that did not record what it used.
    """
    if not config.match:
        return Steps(config.steps)
    used, unit = hosts.agree(lambda: used_by(config.match)), split(config.match)[1]
    task = tasks.of(config)
    if not task.steps_known(unit):
        return Budget(UNITS[unit], used)
    update = build_optimizer(config, None).flops(shapes(model))
    return Steps(max(1, round(used / task.flops_per_step(model, update))))


def build_optimizer(config: Config, steps: int | None) -> Optimizer:
    """Build the optimizer of a run; `steps` is None if the learning rate does not depend on it."""
    per_step = tasks.of(config).updates_per_step
    return make_optimizer(total_steps=(steps or 1) * per_step, **config.optimizer)
