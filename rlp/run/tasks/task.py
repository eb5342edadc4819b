"""What every kind of run has to answer; see `rlp.run.tasks`."""

import abc
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from jax.sharding import Mesh

from configs.default import Config
from models.config import ModelConfig
from rlp.capacity.device_memory import Need
from rlp.data.batch import HeldOut, Stream
from rlp.engine.method import Method
from rlp.engine.optimizer import Optimizer
from rlp.engine.step import RLPSettings
from rlp.evaluation.answering import response_settings
from rlp.evaluation.response_format import ResponseFormat
from rlp.metrics.metric import Metric
from rlp.metrics.watch import Rule
from rlp.run.datasets.dataset import Dataset
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer
from rlp.training.trainers import Trainer

if TYPE_CHECKING:
    from rlp.run.assembly import Run

THOUGHT, RESPONSE = "rlp.thought_length", "data.problems.response_length"
DOCUMENTS, PAIRS, PROBLEMS = "data.train", "data.sft.train", "data.problems.train"


@dataclasses.dataclass(frozen=True)
class Limit:
    """The longest that a thought or a response can be.

    Attributes:
      field: of the config.
      length: its value, tokens.
      end: what ends a sample, in words.
      end_tokens: of a tokenizer, how many tokens that has.
    """

    field: str
    length: int
    end: str
    end_tokens: Callable[[Tokenizer], int]


class Task(abc.ABC):
    """A kind of run, for one config.

    Attributes:
      config: of the run.
      name: of its objective.
    """

    name: str

    def __init__(self, config: Config) -> None:
        """A task of a config."""
        self.config = config

    @abc.abstractmethod
    def check(self, dataset: Dataset) -> None:
        """Refuses values of the config that this kind of run cannot use.

        Args:
          dataset: that the run reads; it has checked its own fields.

        Raises:
          UserError: names the field, its value and what it can be.
        """

    # Data.

    @property
    @abc.abstractmethod
    def files(self) -> list[str]:
        """The fields that name the files to train on, where a dataset reads files."""

    @property
    def reads_documents(self) -> bool:
        """Whether training reads documents."""
        return DOCUMENTS in self.files

    @property
    def reads_responses(self) -> bool:
        """Whether training reads or samples responses, each of which has an end."""
        return PAIRS in self.files or PROBLEMS in self.files

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics of training that the objective brings, besides those of every run."""
        return ()

    @property
    def warnings(self) -> tuple[Rule, ...]:
        """Rules of warnings that the objective brings, besides those of every run."""
        return ()

    @property
    def asks_problems(self) -> bool:
        """Whether the run answers problems, in training or held out."""
        return PROBLEMS in self.files or bool(self.config.data.problems.evaluation)

    @property
    def forks(self) -> int:
        """Thoughts branch off at so many positions of a training document."""
        return 0

    @abc.abstractmethod
    def data(
        self,
        dataset: Dataset,
        config: Config,
        tokenizer: Tokenizer,
        template: str | None,
        response_format: ResponseFormat | None,
    ) -> tuple[Stream, HeldOut]:
        """The training stream, and the held-out rows of one document, pair or problem each.

        Args:
          dataset: to read.
          config: of the run.
          tokenizer: of the run.
          template: of its chats, Jinja; None where messages are taken as they are.
          response_format: of responses; None for a run that answers no problems.

        Raises:
          UserError: for files that cannot be used.
        """

    # Training.

    @property
    @abc.abstractmethod
    def updates_per_step(self) -> int:
        """Optimizer updates of a step."""

    @abc.abstractmethod
    def sampling(self, settings: RLPSettings) -> RLPSettings | None:
        """The settings with which a training step samples; None where it samples nothing.

        Args:
          settings: of thoughts.
        """

    @abc.abstractmethod
    def sampled(self, run: "Run") -> Method | None:
        """What a training step samples with; None where it samples nothing."""

    @abc.abstractmethod
    def check_mesh(self, settings: RLPSettings, mesh: Mesh) -> None:
        """Refuses devices that a step cannot be spread over.

        Args:
          settings: of thoughts.
          mesh: of the devices.

        Raises:
          ValueError: If rollout batches or minibatches do not divide a batch, or if the
            devices have no memory of the kind `rlp.baseline_memory`.
        """

    @abc.abstractmethod
    def trainer(self, run: "Run", stream: Stream, optimizer: Optimizer, shardings: Any) -> Trainer:
        """What takes a step; `shardings` are those of the state."""

    @abc.abstractmethod
    def training_memory(self, run: "Run") -> Iterator[tuple[str, list[Need]]]:
        """What is alive besides the state at the moments of a step when most is, each with words
        for it."""

    def flops_per_step(self, model: ModelConfig, update: int) -> int:
        """FLOPs of a step, for a task whose steps all cost the same.

        Args:
          model: the network.
          update: FLOPs of an update of the optimizer.
        """
        raise NotImplementedError

    def steps_known(self, unit: str) -> bool:
        """Whether all steps use the same of this unit (of `match`), so that their number follows
        from the budget. Rollouts do not: they differ by the tokens that they decode."""
        return False

    # Evaluation.

    @property
    def thought_objective(self) -> str:
        """The objective by which thoughts at held-out positions are judged."""
        return "rlp"

    @property
    def answer_objective(self) -> str:
        """The objective by which responses to problems are judged."""
        return "rlvr"

    @property
    @abc.abstractmethod
    def default_metric(self) -> str:
        """The held-out metric that picks the best checkpoint where the config names none."""

    @property
    def best_metric(self) -> str:
        """The held-out metric that picks the best checkpoint."""
        return self.config.evaluation.best_metric or self.default_metric

    # Shared by several kinds.

    def response_settings(self, settings: RLPSettings) -> RLPSettings:
        """The settings with which responses to problems are sampled, in training or held out."""
        own = dataclasses.replace(settings, objective=self.answer_objective)
        return response_settings(own, self.config.data.problems.response_length)

    @property
    def limit(self) -> Limit:
        """What limits the length of a sample."""
        tag = lambda tokenizer: len(tokenizer.think_close)
        return Limit(THOUGHT, self.config.rlp.thought_length, "a closing tag", tag)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of a batch, and tokens of a row."""
        return self.config.batch_size, self.config.data.sequence_length

    def refuse_training_problems(self) -> None:
        """Refuses problems to train on."""
        if train := self.config.data.problems.train:
            raise UserError.of(
                PROBLEMS,
                train,
                f"is not for objective={self.name!r}, which answers no problems; take 'rlvr', or "
                "give them to data.problems.evaluation",
            )
