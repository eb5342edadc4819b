"""What every dataset does; see `rlp.run.datasets`."""

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
    """Rows of documents, or of pairs of prompt and response.

    Attributes:
      train: the training stream.
      held_out: rows of one document or one pair each.
      fingerprint: of all rows that were held out, by fields of the config.
    """

    train: Stream
    held_out: Batch
    fingerprint: Mapping[str, Fingerprint]


@dataclasses.dataclass(frozen=True)
class ProblemSplit:
    """Problems.

    Attributes:
      train: the training stream, which is `Answered`, too; None where there are none to train on.
      held_out: by the name of their file; the name is "" where there is only one.
      fingerprint: as of `Split`.
    """

    train: Stream | None
    held_out: Mapping[str, Problems]
    fingerprint: Mapping[str, Fingerprint]


class Dataset:
    """Documents, and what else a source of rows may have.

    A dataset has to give `documents`; the rest has defaults.

    Attributes:
      generated: rows are made rather than read, so there are documents and problems for every kind
        of run.
    """

    generated: ClassVar[bool] = False

    def check(self, config: Config, task: "Task") -> None:
        """Refuses values of the fields that it reads, before anything is read.

        Args:
          config: of the run.
          task: of the run.

        Raises:
          UserError: names the field, its value and what it can be.
        """

    def tokenizer(self, config: Config, files: Path | None) -> Tokenizer:
        """The tokenizer of a run.

        Args:
          config: of the run.
          files: folder of the tokenizer where the config names none; None for bytes.

        Raises:
          UserError: it cannot be read.
        """
        data = config.data
        folder = data.tokenizer or (str(files) if files else "bytes")
        return load_tokenizer(folder, data.bos, data.eos, data.separator, config.model.vocab_size)

    def names_tokenizer(self, config: Config) -> bool:
        """Whether the config names the folder of a tokenizer."""
        return config.data.tokenizer not in ("", "bytes")

    def documents(self, config: Config, tokenizer: Tokenizer, forks: int) -> Split:
        """Rows of documents.

        Args:
          config: of the run.
          tokenizer: of the run.
          forks: positions of a training document that thoughts branch off; 0 for next-token
            training, whose rows may hold several documents.

        Raises:
          UserError: they cannot be read.
        """
        raise NotImplementedError

    def memory(self, config: Config) -> list[Need]:
        """What it needs on the host, as far as that follows from a config."""
        return []

    def pairs(self, config: Config, tokenizer: Tokenizer, template: str | None) -> Split:
        """Rows of prompts with their responses.

        Args:
          config: of the run.
          tokenizer: of the run.
          template: of the chat, Jinja; None for texts as they are.

        Raises:
          UserError: there are none, or they cannot be read.
        """
        raise UserError.of(
            "data.kind",
            config.data.kind,
            "has no pairs of prompts and responses; set data.sft.share to 0",
        )

    def problems(
        self, config: Config, tokenizer: Tokenizer, response_format: ResponseFormat
    ) -> ProblemSplit:
        """Problems with their answers.

        Args:
          config: of the run.
          tokenizer: of the run.
          response_format: of responses.

        Raises:
          UserError: there are none, or they cannot be read.
        """
        raise UserError.of("data.kind", config.data.kind, "has no problems")


def hold_out_problems(held_out: HeldOut, problems: ProblemSplit) -> HeldOut:
    """Held-out rows with problems beside them."""
    found = {**held_out.fingerprint, **problems.fingerprint}
    return dataclasses.replace(held_out, problems=problems.held_out, fingerprint=found)


def given_forks(config: Config) -> list[tuple[str, str]]:
    """The fields that say that the data gives the forks, each with the one that counts these."""
    trained, held_out = "rlp.positions", "evaluation.positions"
    counts = [(trained, "rlp.forks_per_document")]
    which = held_out if config.evaluation.positions else trained  # says it of held-out documents
    counts.append((which, "evaluation.forks_per_document"))
    return [(rule, count) for rule, count in counts if value_of(config, rule) == "given"]
