"""RL on responses to problems, rewarded by a verifier: RLVR and related objectives."""

from typing import TYPE_CHECKING, Any

from configs.default import Config
from rlp.data.batch import Answered, HeldOut, Stream
from rlp.engine.method import Method
from rlp.engine.optimizer import Optimizer
from rlp.engine.step import RLPSettings
from rlp.evaluation.response_format import ResponseFormat
from rlp.run.datasets.dataset import Dataset, hold_out_problems
from rlp.run.tasks.sampling import SamplingTask
from rlp.run.tasks.task import PROBLEMS, RESPONSE, Limit
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer
from rlp.training.trainers import AnswerTrainer

if TYPE_CHECKING:
    from rlp.run.assembly import RunParts


class Answers(SamplingTask):
    """Reinforcement learning on problems with verifiable answers."""

    @property
    def files(self) -> list[str]:
        """See `Task`."""
        return [PROBLEMS]

    @property
    def answer_objective(self) -> str:
        """See `Task`."""
        return self.name

    @property
    def limit(self) -> Limit:
        """See `Task`."""
        return Limit(
            RESPONSE, self.config.data.problems.response_length, "an end", lambda tokenizer: 1
        )

    def check(self, dataset: Dataset) -> None:
        """See `Task`."""
        if self.single_sample:
            raise UserError.of(
                "rlp.group_size",
                1,
                "leaves no other response in the group, and answers have no other baseline; set "
                "group_size to 2 or more",
            )
        self.refuse_next_token_data()
        self._check_problems(dataset)

    def _check_problems(self, dataset: Dataset) -> None:
        """Check that there are problems to train on, and no other data."""
        config = self.config
        if not dataset.generated and not config.data.problems.train:
            raise UserError.of(
                "objective",
                self.name,
                "trains on problems; set data.problems.train to their files",
            )
        if config.data.train or config.data.evaluation:
            raise UserError.of(
                "objective",
                self.name,
                "trains on problems and reads no documents; set data.train and data.evaluation "
                "to ''",
            )
        if config.rlp.target_weight:
            raise UserError.of(
                "rlp.target_weight",
                config.rlp.target_weight,
                f": no text follows a response of objective={self.name!r}; set it to 0",
            )
        if self.objective.weighs_planning and config.rlp.ratio == "sequence":
            raise UserError.of(
                "objective",
                self.name,
                "weights single tokens, but rlp.ratio='sequence' weights whole responses; set "
                "rlp.ratio to 'token'",
            )

    def data(
        self,
        dataset: Dataset,
        config: Config,
        tokenizer: Tokenizer,
        template: str | None,
        response_format: ResponseFormat | None,
    ) -> tuple[Stream, HeldOut]:
        """See `Task`; generated documents are always held out, because they are cheap."""
        assert response_format is not None
        held_out = HeldOut(None)
        if dataset.generated:
            documents = dataset.documents(config, tokenizer, self.forks)
            held_out = HeldOut(documents.held_out, fingerprint=documents.fingerprint)
        problems = dataset.problems(config, tokenizer, response_format)
        assert problems.train is not None
        return problems.train, hold_out_problems(held_out, problems)

    @property
    def default_metric(self) -> str:
        """See `Task`."""
        return "accuracy"

    def sampling_settings(self, settings: RLPSettings) -> RLPSettings:
        """See `Task`."""
        return self.response_settings(settings)

    def sampling_method(self, run: "RunParts") -> Method:
        """See `Task`."""
        assert run.answering is not None
        return run.answering.method

    def trainer(
        self, run: "RunParts", stream: Stream, optimizer: Optimizer, shardings: Any
    ) -> AnswerTrainer:
        """See `Task`."""
        self.log_rollout_batch(run)
        assert run.answering is not None
        assert isinstance(stream, Answered)
        common = (optimizer, run.mesh, shardings)
        return AnswerTrainer(run.answering, stream.answer, *common)
