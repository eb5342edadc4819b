"""The generated compass data of the demo as a dataset: walks, question-answer pairs, problems."""

from pathlib import Path
from typing import TYPE_CHECKING

from configs.default import Config
from configs.fields import value_of
from rlp.capacity.device_memory import Need
from rlp.data import compass
from rlp.evaluation.response_format import ResponseFormat
from rlp.run.datasets.dataset import Dataset, ProblemSplit, Split, given_forks
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rlp.run.tasks import Task


TOKEN_BYTES = 3 * 4  # per token of a row: its id, segment and position, int32


class CompassDataset(Dataset):
    """Generated walks; held-out walks have no thoughts."""

    generated = True

    def check(self, config: Config, task: "Task") -> None:
        """See `Dataset`; all documents have the same length, so the lengths can be checked here."""
        _check_length(config)
        _check_text_fields(config)
        _check_forks(config, task)
        _check_generated(config)

    def tokenizer(self, config: Config, files: Path | None) -> Tokenizer:
        """See `Dataset`; compass has a fixed vocabulary of words."""
        return compass.TOKENIZER

    def names_tokenizer(self, config: Config) -> bool:
        """See `Dataset`."""
        return False

    def documents(self, config: Config, tokenizer: Tokenizer, forks: int) -> Split:
        """See `Dataset`."""
        data = config.data
        walks = compass.CompassStream(config.seed, data.sequence_length, **data.compass)
        held = compass.CompassStream(0, compass.DOCUMENT_LENGTH, held_out=True)
        return Split(walks, held.batch(0, config.evaluation.documents), held.fingerprint())

    def memory(self, config: Config) -> list[Need]:
        """See `Dataset`; held-out documents are generated, so their number is not limited."""
        count = config.evaluation.documents
        size = count * compass.DOCUMENT_LENGTH * TOKEN_BYTES
        return [Need("held-out documents", size, {"evaluation.documents": count})]

    def pairs(self, config: Config, tokenizer: Tokenizer, template: str | None) -> Split:
        """See `Dataset`; held-out pairs have thoughts if training pairs have them."""
        data, count = config.data, config.evaluation.documents
        walks = compass.CompassStream(config.seed, data.sequence_length, **data.compass)
        held = compass.CompassStream(0, data.sequence_length, held_out=True, **data.compass)
        pairs = compass.CompassPairs(held)
        return Split(compass.CompassPairs(walks), pairs.batch(0, count), pairs.fingerprint())

    def problems(
        self, config: Config, tokenizer: Tokenizer, response_format: ResponseFormat
    ) -> ProblemSplit:
        """See `Dataset`."""
        length = config.data.sequence_length
        held = compass.CompassProblems(compass.CompassStream(0, length, held_out=True))
        walks = compass.CompassProblems(compass.CompassStream(config.seed, length))
        held_out = {"": held.beginning(config.evaluation.problems)}
        return ProblemSplit(walks, held_out, held.fingerprint())


def _check_length(config: Config) -> None:
    """Check that a row is long enough for a document and its thought."""
    needed, length = compass.DOCUMENT_LENGTH, config.data.sequence_length
    if config.data.compass.thought_share > 0:
        needed += compass.THOUGHT_LENGTH
    if length < needed:
        raise UserError.of(
            "data.sequence_length", length, f"is too short for compass; set it to {needed} or more"
        )


def _check_text_fields(config: Config) -> None:
    """Check that fields of texts are unset, because compass has a fixed vocabulary."""
    for field in ("data.bos", "data.eos", "data.separator"):
        if value := value_of(config, field):
            raise UserError.of(field, value, "; compass has fixed special tokens: set it to ''")
    if value := config.data.exclude_overlaps:
        raise UserError.of(
            "data.exclude_overlaps", value, "; compass contains no problems of others: set it to ''"
        )
    if config.data.chat_template not in ("", "none"):
        raise UserError.of(
            "data.chat_template",
            config.data.chat_template,
            "; compass does not support chat templates: set it to ''",
        )
    if config.rlp.prompt != "none":
        raise UserError.of(
            "rlp.prompt",
            config.rlp.prompt,
            "; compass does not support a thinking prompt: set it to 'none'",
        )


def _check_forks(config: Config, task: "Task") -> None:
    """Check that a document is long enough for its forks and their targets, but for given ones,
    whose targets end with it."""
    prefix, horizon = config.rlp.min_prefix, config.rlp.horizon
    given = {count for _, count in given_forks(config)}
    counts = {
        "rlp.forks_per_document": task.forks,
        "evaluation.forks_per_document": config.evaluation.forks_per_document,
    }
    forks = max((count for field, count in counts.items() if field not in given), default=0)
    if forks and prefix + horizon + forks - 1 > compass.DOCUMENT_LENGTH:
        raise UserError.of(
            "rlp.min_prefix",
            prefix,
            f"with rlp.horizon={horizon} and {forks} forks exceeds the {compass.DOCUMENT_LENGTH} "
            "tokens of a compass document; lower one of them",
        )


def _check_generated(config: Config) -> None:
    """Check that no files are given, because compass generates its pairs and problems."""
    share, train = config.data.sft.share, config.data.sft.train
    if train or share not in (0, 1):
        raise UserError.of(
            "data.sft.train",
            train,
            f"with data.sft.share={share}; compass generates its pairs: set data.sft.train to '', "
            "and data.sft.share to 1 (all rows are pairs) or 0",
        )
    train, evaluation = config.data.problems.train, config.data.problems.evaluation
    if train or evaluation not in ("", "compass"):
        raise UserError.of(
            "data.problems.train",
            train,
            f"with data.problems.evaluation={evaluation!r}; compass generates its problems: set "
            "data.problems.train to '', and data.problems.evaluation to '' or 'compass'",
        )
