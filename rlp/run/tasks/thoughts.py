"""RL on thoughts in documents, rewarded by the text that follows: RLP and related objectives."""

from typing import TYPE_CHECKING, Any

from configs.default import Config
from rlp.data.batch import HeldOut, Stream
from rlp.engine.method import Method
from rlp.engine.optimizer import Optimizer
from rlp.engine.readings import BASELINE, needs
from rlp.engine.step import RLPSettings
from rlp.evaluation.response_format import ResponseFormat
from rlp.run.datasets.dataset import Dataset, hold_out_problems
from rlp.run.tasks.sampling import SamplingTask
from rlp.run.tasks.task import DOCUMENTS
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer
from rlp.training.trainers import RLPTrainer

if TYPE_CHECKING:
    from rlp.run.assembly import RunParts


class Thoughts(SamplingTask):
    """Reinforcement pretraining on documents (RLP, arXiv 2510.01265)."""

    @property
    def thought_objective(self) -> str:
        """See `Task`."""
        return self.name

    @property
    def files(self) -> list[str]:
        """See `Task`."""
        return [DOCUMENTS]

    @property
    def forks(self) -> int:
        """See `Task`."""
        return self.config.rlp.forks_per_document

    def check(self, dataset: Dataset) -> None:
        """See `Task`."""
        lone = self.single_sample
        if self.config.rlp.baseline == "none":
            if lone:
                raise UserError.of(
                    "rlp.group_size",
                    1,
                    "leaves no other thought in the group, and rlp.baseline='none' no other "
                    "baseline; set group_size to 2 or more, or rlp.baseline to 'ema'",
                )
            if BASELINE in needs(self.name):
                raise UserError.of(
                    "objective",
                    self.name,
                    "uses the prediction without a thought, which rlp.baseline='none' does not "
                    "compute; set rlp.baseline to 'ema' or 'frozen'",
                )
        self.refuse_next_token_data()
        self.refuse_training_problems()

    def data(
        self,
        dataset: Dataset,
        config: Config,
        tokenizer: Tokenizer,
        template: str | None,
        response_format: ResponseFormat | None,
    ) -> tuple[Stream, HeldOut]:
        """See `Task`."""
        documents = dataset.documents(config, tokenizer, self.forks)
        held_out = HeldOut(documents.held_out, fingerprint=documents.fingerprint)
        if response_format is not None:
            held_out = hold_out_problems(
                held_out, dataset.problems(config, tokenizer, response_format)
            )
        return documents.train, held_out

    @property
    def default_metric(self) -> str:
        """See `Task`."""
        return "think_loss"

    def sampling_settings(self, settings: RLPSettings) -> RLPSettings:
        """See `Task`."""
        return settings

    def sampling_method(self, run: "RunParts") -> Method:
        """See `Task`."""
        return run.method

    def trainer(
        self, run: "RunParts", stream: Stream, optimizer: Optimizer, shardings: Any
    ) -> RLPTrainer:
        """See `Task`."""
        self.log_rollout_batch(run)
        return RLPTrainer(run.method, optimizer, run.mesh, shardings, run.evaluator.table)
