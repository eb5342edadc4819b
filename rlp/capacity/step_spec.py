"""The specification of a training step to plan."""

import dataclasses

from jax.sharding import Mesh

from models.config import ModelConfig
from models.sharding import batch_shards
from rlp.engine.branches import Vocabulary
from rlp.engine.microbatching import largest_batch
from rlp.engine.optimizer import Optimizer
from rlp.engine.stages import Setup
from rlp.engine.step import RLPSettings, copies_kept
from rlp.engine.step.rollout_batches import rollout_batch_shape
from rlp.engine.token_bytes import TokenBytes
from rlp.objectives.registry import reads_answers


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """A training step on the devices of a mesh.

    Attributes:
      model: config of the network.
      settings: of the method; None for next-token training.
      vocabulary: tags and banned ids.
      optimizer: of the run.
      mesh: over all devices.
      rows: B.
      length: T, without the thinking prompt.
      table: bytes of the tokens, for an objective that reads `Outcome.matches`.
    """

    model: ModelConfig
    settings: RLPSettings | None
    vocabulary: Vocabulary
    optimizer: Optimizer
    mesh: Mesh
    rows: int
    length: int
    table: TokenBytes | None = None

    @property
    def setup(self) -> Setup:
        """The configuration that its stages are compiled for."""
        return Setup(self.model, self.settings, self.vocabulary, self.optimizer, self.mesh)

    @property
    def rlp(self) -> RLPSettings:
        """The settings of the method.

        Raises:
          ValueError: For next-token training.
        """
        if self.settings is None:
            raise ValueError("next-token training has no settings of the method")
        return self.settings

    @property
    def baseline(self) -> bool:
        """Whether the state contains phi."""
        return copies_kept(self.settings)[0]

    @property
    def reference(self) -> bool:
        """Whether the state contains pi_ref."""
        return copies_kept(self.settings)[1]

    @property
    def answers(self) -> bool:
        """Whether the host grades responses to problems."""
        return self.settings is not None and reads_answers(self.settings.objective)

    @property
    def branches(self) -> int:
        """N, thoughts per document."""
        s = self.settings
        return s.forks_per_document * s.group_size if s else 0

    @property
    def rollout_batch(self) -> tuple[int, int]:
        """Documents of a rollout batch, and forks of each."""
        return rollout_batch_shape(self.rlp, self.rows, batch_shards(self.mesh))

    @property
    def rollout_batches(self) -> tuple[int, int]:
        """Number of batches of documents, and number of rollout batches for each of them."""
        rows, forks = self.rollout_batch
        return self.rows // rows, self.rlp.forks_per_document // forks

    @property
    def update_rows(self) -> int:
        """Documents of an update, a minibatch."""
        return self.rows // (self.settings.minibatches if self.settings else 1)

    @property
    def micro_batch(self) -> tuple[int, int]:
        """Documents of a micro-batch of the update, and branches of each."""
        if self.settings is None:
            return self.rows, 0
        limit, shards = self.settings.update_micro_batch, batch_shards(self.mesh)
        return largest_batch(
            self.update_rows, self.branches, 1, limit, shards, "rlp.update_micro_batch"
        )

    @property
    def micro_batches(self) -> int:
        """Micro-batches of an update."""
        rows, branches = self.micro_batch
        return self.update_rows // rows * (self.branches // branches if branches else 1)
