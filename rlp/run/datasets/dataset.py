"""The interface of a dataset; see `rlp.run.datasets`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from configs.default import Config
from configs.fields import value_of
from rlp.capacity.device_memory import Need
from rlp.data.batch import Batch, HeldOut, Problems, Stream
from rlp.evaluation.response_format import ResponseFormat
from rlp.runtime.errors import UserError
from rlp.runtime.fingerprints import Fingerprint
from rlp.tokenizers.load import load_tokenizer
from rlp.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rlp.run.tasks import Task


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows of documents or of prompt-response pairs.

    Attributes:
      train: The training stream.
      held_out: Held-out rows with one document or one pair each.
      fingerprint: Fingerprints of all held-out rows, by config field.
    """

    train: Stream
    held_out: Batch
    fingerprint: Mapping[str, Fingerprint]


@dataclasses.dataclass(frozen=True)
class ProblemSplit:
    """Problems to train on and held-out problems.

    Attributes:
      train: The training stream, which is also `Answered`; None if there are no training problems.
      held_out: Held-out problems by the name of their file; "" if there is only one file.
      fingerprint: As in `Split`.
    """

    train: Stream | None
    held_out: Mapping[str, Problems]
    fingerprint: Mapping[str, Fingerprint]


class Dataset:
    """A source of documents and, optionally, of pairs and problems.

    A dataset must implement `documents`; the other methods have defaults.

    Attributes:
      generated: Whether rows are generated rather than read, so that documents and problems exist
        for every kind of run.
    """

    generated: ClassVar[bool] = False

    def check(self, config: Config, task: "Task") -> None:
        """Check the fields that this dataset reads, before anything is read.

        Args:
          config: The config of the run.
          task: The task of the run.

        Raises:
          UserError: If a value cannot be used; names the field, its value and the valid values.
        """

    def tokenizer(self, config: Config, files: Path | None) -> Tokenizer:
        """Load the tokenizer of a run.

        Args:
          config: The config of the run.
          files: The tokenizer folder if the config does not name one; None for bytes.

        Raises:
          UserError: If the tokenizer cannot be read.
        """
        data = config.data
        folder = data.tokenizer or (str(files) if files else "bytes")
        return load_tokenizer(folder, data.bos, data.eos, data.separator, config.model.vocab_size)

    def names_tokenizer(self, config: Config) -> bool:
        """Return whether the config names a tokenizer folder."""
        return config.data.tokenizer not in ("", "bytes")

    def documents(self, config: Config, tokenizer: Tokenizer, forks: int) -> Split:
        """Return rows of documents.

        Args:
          config: The config of the run.
          tokenizer: The tokenizer of the run.
          forks: The number of positions per training document at which thoughts are sampled; 0 for
            next-token training, whose rows may contain several documents.

        Raises:
          UserError: If the documents cannot be read.
        """
        raise NotImplementedError

    def memory(self, config: Config) -> list[Need]:
        """Return the host memory that it needs, as far as that follows from the config."""
        return []

    def pairs(self, config: Config, tokenizer: Tokenizer, template: str | None) -> Split:
        """Return rows of prompts with their responses.

        Args:
          config: The config of the run.
          tokenizer: The tokenizer of the run.
          template: The Jinja chat template; None to concatenate prompts and responses.

        Raises:
          UserError: If there are none, or they cannot be read.
        """
        raise UserError.of(
            "data.kind",
            config.data.kind,
            "does not have prompt-response pairs; set data.sft.share to 0",
        )

    def problems(
        self, config: Config, tokenizer: Tokenizer, response_format: ResponseFormat
    ) -> ProblemSplit:
        """Return problems with their answers.

        Args:
          config: The config of the run.
          tokenizer: The tokenizer of the run.
          response_format: The format of responses.

        Raises:
          UserError: If there are none, or they cannot be read.
        """
        raise UserError.of(
            "data.kind",
            config.data.kind,
            "does not have problems; set data.kind to 'text' to read them from files",
        )


def hold_out_problems(held_out: HeldOut, problems: ProblemSplit) -> HeldOut:
    """Add held-out problems to held-out rows."""
    fingerprint = {**held_out.fingerprint, **problems.fingerprint}
    return dataclasses.replace(held_out, problems=problems.held_out, fingerprint=fingerprint)


def given_forks(config: Config) -> list[tuple[str, str]]:
    """Return the fields that are "given" (forks come from the data), with their count fields."""
    trained, held_out = "rlp.positions", "evaluation.positions"
    counts = [(trained, "rlp.forks_per_document")]
    which = held_out if config.evaluation.positions else trained  # applies to held-out documents
    counts.append((which, "evaluation.forks_per_document"))
    return [(rule, count) for rule, count in counts if value_of(config, rule) == "given"]
