"""The interface of a kind of run; see `rlp.run.tasks`."""

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
    from rlp.run.assembly import RunParts

THOUGHT, RESPONSE = "rlp.thought_length", "data.problems.response_length"
DOCUMENTS, PAIRS, PROBLEMS = "data.train", "data.sft.train", "data.problems.train"


@dataclasses.dataclass(frozen=True)
class Limit:
    """The length limit of a thought or a response.

    Attributes:
      field: The config field that sets it.
      length: Its value, in tokens.
      end: What ends a sample, for messages.
      end_tokens: Returns the number of tokens of that end for a tokenizer.
    """

    field: str
    length: int
    end: str
    end_tokens: Callable[[Tokenizer], int]


class Task(abc.ABC):
    """A kind of run, for one config.

    Attributes:
      config: The config of the run.
      name: The name of its objective.
    """

    name: str

    def __init__(self, config: Config) -> None:
        """Create the task of a config."""
        self.config = config

    @abc.abstractmethod
    def check(self, dataset: Dataset) -> None:
        """Check the values of the config that concern this kind of run.

        Args:
          dataset: The dataset of the run, which has already checked its fields.

        Raises:
          UserError: If a value cannot be used; names the field, its value and the valid values.
        """

    # Data.

    @property
    @abc.abstractmethod
    def files(self) -> list[str]:
        """The config fields that name the files to train on, if the dataset reads files."""

    @property
    def reads_documents(self) -> bool:
        """Whether training reads documents."""
        return DOCUMENTS in self.files

    @property
    def reads_responses(self) -> bool:
        """Whether training reads or samples responses, which end with an end token."""
        return PAIRS in self.files or PROBLEMS in self.files

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The additional training metrics that the objective declares."""
        return ()

    @property
    def warnings(self) -> tuple[Rule, ...]:
        """The additional warning rules that the objective declares."""
        return ()

    @property
    def answers_problems(self) -> bool:
        """Whether the run answers problems, in training or in evaluation."""
        return PROBLEMS in self.files or bool(self.config.data.problems.evaluation)

    @property
    def forks(self) -> int:
        """The number of positions per training document at which thoughts are sampled."""
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
        """Return the training stream, and held-out rows with one document, pair or problem each.

        Args:
          dataset: The dataset to read.
          config: The config of the run.
          tokenizer: The tokenizer of the run.
          template: The Jinja chat template; None if messages are used without a template.
          response_format: The format of responses; None for a run that does not answer problems.

        Raises:
          UserError: If the data cannot be used.
        """

    # Training.

    @property
    @abc.abstractmethod
    def updates_per_step(self) -> int:
        """The number of optimizer updates per step."""

    @abc.abstractmethod
    def sampling_settings(self, settings: RLPSettings) -> RLPSettings | None:
        """Return the settings that a training step samples with; None if it does not sample.

        Args:
          settings: The settings of thoughts.
        """

    @abc.abstractmethod
    def sampling_method(self, run: "RunParts") -> Method | None:
        """Return the method that a training step samples with; None if it does not sample."""

    @abc.abstractmethod
    def check_mesh(self, settings: RLPSettings, mesh: Mesh) -> None:
        """Check that a step can be distributed over a mesh.

        Args:
          settings: The settings of thoughts.
          mesh: The devices.

        Raises:
          ValueError: If rollout batches or minibatches do not divide a batch, or if the
            devices have no memory of the kind `rlp.baseline_memory`.
        """

    @abc.abstractmethod
    def trainer(
        self, run: "RunParts", stream: Stream, optimizer: Optimizer, shardings: Any
    ) -> Trainer:
        """Build the trainer, which takes a step; `shardings` are those of the state."""

    @abc.abstractmethod
    def training_memory(self, run: "RunParts") -> Iterator[tuple[str, list[Need]]]:
        """Yield the memory peaks of a step: a label, and what is allocated besides the state."""

    def flops_per_step(self, model: ModelConfig, update: int) -> int:
        """Return the FLOPs of a step, for a task whose steps all use the same.

        Args:
          model: The model configuration.
          update: FLOPs of an optimizer update.
        """
        raise NotImplementedError

    def steps_known(self, unit: str) -> bool:
        """Return whether the number of steps follows from a budget in this unit of `match`.

        That is the case if all steps use the same amount. Steps with rollouts do not: they decode
        different numbers of tokens.
        """
        return False

    # Evaluation.

    @property
    def thought_objective(self) -> str:
        """The objective that rewards thoughts at held-out positions."""
        return "rlp"

    @property
    def answer_objective(self) -> str:
        """The objective that rewards responses to problems."""
        return "rlvr"

    @property
    @abc.abstractmethod
    def default_metric(self) -> str:
        """The held-out metric that picks the best checkpoint if the config does not name one."""

    @property
    def best_metric(self) -> str:
        """The held-out metric that picks the best checkpoint."""
        return self.config.evaluation.best_metric or self.default_metric

    # Shared by several kinds of runs.

    def response_settings(self, settings: RLPSettings) -> RLPSettings:
        """Return the settings for sampling responses to problems, in training and evaluation."""
        settings = dataclasses.replace(settings, objective=self.answer_objective)
        return response_settings(settings, self.config.data.problems.response_length)

    @property
    def limit(self) -> Limit:
        """The length limit of a sample."""
        tag = lambda tokenizer: len(tokenizer.think_close)
        return Limit(THOUGHT, self.config.rlp.thought_length, "a closing tag", tag)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows per batch, and of tokens per row."""
        return self.config.batch_size, self.config.data.sequence_length

    def refuse_training_problems(self) -> None:
        """Refuse problems to train on."""
        if train := self.config.data.problems.train:
            raise UserError.of(
                PROBLEMS,
                train,
                f"is not for objective={self.name!r}, which does not train on problems; set "
                "objective to 'rlvr', or use data.problems.evaluation",
            )
