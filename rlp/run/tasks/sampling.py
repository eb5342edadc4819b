"""The base class of RL tasks, which sample from the model and learn from rewards."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jax.sharding import Mesh

from configs.default import Config
from models.sharding import batch_shards
from rlp.capacity import step_memory
from rlp.capacity.device_memory import Need
from rlp.engine import readings
from rlp.engine.microbatching import largest_batch
from rlp.engine.placement import check_memory
from rlp.engine.readings import OTHER_DOCUMENT, needs
from rlp.engine.step import RLPSettings
from rlp.engine.step.rollout_batches import cache_bytes, rollout_batch_shape
from rlp.metrics import declared
from rlp.metrics.metric import Metric
from rlp.metrics.watch import Rule
from rlp.objectives import Objective
from rlp.objectives.equations import ADVANTAGES
from rlp.run.tasks.task import Task
from rlp.runtime.errors import UserError

if TYPE_CHECKING:
    from rlp.run.assembly import RunParts

LOGGER = logging.getLogger(__name__)


class SamplingTask(Task):
    """A run whose steps consist of rollout, reward and update.

    Attributes:
      objective: Defines its rewards and advantages.
    """

    def __init__(self, config: Config, objective: Objective) -> None:
        """Create the task of a config.

        Raises:
          UserError: If the readings, metrics or warnings of the objective are invalid.
        """
        super().__init__(config)
        self.name, self.objective = config.objective, objective
        readings.check(self.name)
        declared.check(self.metrics, self.warnings, f"objective={self.name!r}")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """See `Task`."""
        return tuple(self.objective.metrics)

    @property
    def warnings(self) -> tuple[Rule, ...]:
        """See `Task`."""
        return self.objective.warnings

    def refuse_next_token_data(self) -> None:
        """Refuse pairs and lookaheads, which only next-token training uses."""
        if share := self.config.data.sft.share:
            raise UserError.of(
                "data.sft.share", share, "is only for objective='next_token'; set it to 0"
            )
        if share := self.config.data.lookahead.share:
            raise UserError.of(
                "data.lookahead.share",
                share,
                f"is only for objective='next_token', but objective={self.name!r} needs documents "
                "without thinking tags; set it to 0",
            )

    @property
    def single_sample(self) -> bool:
        """Whether a group contains a single sample.

        Raises:
          UserError: If it does, but the advantages compare the samples of a group.
        """
        compare = ADVANTAGES.get(self.config.rlp.advantages, self.objective.advantages)
        lone = self.config.rlp.group_size == 1
        if lone and compare is not ADVANTAGES["leave_one_out"]:
            raise UserError.of(
                "rlp.group_size",
                1,
                "leaves no other sample in the group to compare with; set group_size to 2 or more",
            )
        if lone and (least := self.config.rlp.min_reward_std):
            raise UserError.of(
                "rlp.min_reward_std",
                least,
                "would exclude every group, since rlp.group_size=1; set it to 0",
            )
        return lone

    @property
    def updates_per_step(self) -> int:
        """See `Task`."""
        return self.config.rlp.updates_per_rollout * self.config.rlp.minibatches

    def training_memory(self, run: "RunParts") -> Iterator[tuple[str, list[Need]]]:
        """See `Task`."""
        method = self.sampling_method(run)
        assert method is not None
        common = (method.model, run.mesh, method.settings)
        step = (*self.shape, self.limit.field)
        yield "a rollout", step_memory.of_rollout(*common, *step)
        yield "an update", step_memory.of_update(*common, method.vocabulary, *step)

    def check_mesh(self, settings: RLPSettings, mesh: Mesh) -> None:
        """See `Task`."""
        sampling = self.sampling_settings(settings)
        assert sampling is not None
        check_memory(mesh, self.config.rlp.baseline_memory)
        _check_batches(self.config.batch_size, sampling, batch_shards(mesh))

    def log_rollout_batch(self, run: "RunParts") -> None:
        """Log the size of a rollout batch."""
        method, (rows, length) = self.sampling_method(run), self.shape
        assert method is not None
        batch = rollout_batch_shape(method.settings, rows, batch_shards(run.mesh))
        size = cache_bytes(method.model, method.settings, method.vocabulary, length, *batch)
        LOGGER.info(
            "rollout batch: %d documents, %d forks per document, %d thoughts per fork; caches take "
            "%.3g MiB",
            *batch,
            method.settings.group_size,
            size / 2**20,
        )


def _check_batches(documents: int, rlp: RLPSettings, shards: int) -> None:
    """Check that rollout batches and minibatches divide a batch of `documents` documents."""
    branches = rlp.forks_per_document * rlp.group_size
    if documents % (rlp.minibatches * shards):
        raise UserError.of(
            "batch_size",
            documents,
            f"is not a multiple of {rlp.minibatches * shards}: rlp.minibatches={rlp.minibatches} "
            f"times the {shards} device(s) that share each minibatch; change one of them",
        )
    wanted = {
        "max_branches_in_flight": (documents, rlp.group_size),
        "update_micro_batch": (documents // rlp.minibatches, 1),
    }
    batches = {
        field: largest_batch(rows, branches, unit, getattr(rlp, field), shards, f"rlp.{field}")
        for field, (rows, unit) in wanted.items()
    }
    if OTHER_DOCUMENT in needs(rlp.objective) and batches["max_branches_in_flight"][0] < 2:
        raise UserError.of(
            "objective",
            rlp.objective,
            "puts thoughts into another document of their rollout batch, which has only one; raise "
            "batch_size or rlp.max_branches_in_flight",
        )
