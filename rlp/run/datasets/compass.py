"""The compass of the demo as a dataset: walks, pairs of their questions and answers, problems."""

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


ROW_BYTES = 3 * 4  # of a token of a row: its id, its segment and its position, int32


class CompassDataset(Dataset):
    """Generated walks; those that are held out have no thoughts."""

    generated = True

    def check(self, config: Config, task: "Task") -> None:
        """See `Dataset`: documents of one length, so what is asked of them fits, or never will."""
        _check_length(config)
        _check_text_fields(config)
        _check_forks(config, task)
        _check_generated(config)

    def tokenizer(self, config: Config, files: Path | None) -> Tokenizer:
        """See `Dataset`: its own words."""
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
        """See `Dataset`: held-out documents, which are made, and not read from a file."""
        wanted = config.evaluation.documents
        size = wanted * compass.DOCUMENT_LENGTH * ROW_BYTES
        return [Need("held-out documents", size, {"evaluation.documents": wanted})]

    def pairs(self, config: Config, tokenizer: Tokenizer, template: str | None) -> Split:
        """See `Dataset`: held out, with thoughts where training has them."""
        data, wanted = config.data, config.evaluation.documents
        walks = compass.CompassStream(config.seed, data.sequence_length, **data.compass)
        held = compass.CompassStream(0, data.sequence_length, held_out=True, **data.compass)
        pairs = compass.CompassPairs(held)
        return Split(compass.CompassPairs(walks), pairs.batch(0, wanted), pairs.fingerprint())

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
    """Rows hold a document, with its thought where there are some."""
    need, length = compass.DOCUMENT_LENGTH, config.data.sequence_length
    if config.data.compass.thought_share > 0:
        need += compass.THOUGHT_LENGTH
    if length < need:
        raise UserError.of("data.sequence_length", length, f"; compass needs {need}")


def _check_text_fields(config: Config) -> None:
    """Its words are its own."""
    for field in ("data.bos", "data.eos", "data.separator"):
        if named := value_of(config, field):
            raise UserError.of(field, named, "; compass has tokens of its own: leave it ''")
    if config.data.chat_template not in ("", "none"):
        raise UserError.of(
            "data.chat_template",
            config.data.chat_template,
            "; compass has no words for a chat: leave it ''",
        )
    if config.rlp.prompt != "none":
        raise UserError.of(
            "rlp.prompt",
            config.rlp.prompt,
            "; compass has no words for a prompt: set it to 'none'",
        )


def _check_forks(config: Config, task: "Task") -> None:
    """A document has room for its forks and what is predicted at them."""
    prefix, horizon = config.rlp.min_prefix, config.rlp.horizon
    forks = max(config.evaluation.forks_per_document, task.forks)
    if prefix + horizon + forks - 1 > compass.DOCUMENT_LENGTH:
        raise UserError.of(
            "rlp.min_prefix",
            prefix,
            f", rlp.horizon={horizon} and {forks} forks do not fit into the "
            f"{compass.DOCUMENT_LENGTH} tokens of a compass document; lower one of them",
        )
    for rule, _ in given_forks(config) if horizon > compass.ANSWER_LENGTH else ():
        raise UserError.of(
            "rlp.horizon",
            horizon,
            f"; from the answer on, which {rule}='given' means, a compass document has "
            f"{compass.ANSWER_LENGTH} tokens",
        )


def _check_generated(config: Config) -> None:
    """Its pairs and problems come from no file."""
    share, train = config.data.sft.share, config.data.sft.train
    if train or share not in (0, 1):
        raise UserError.of(
            "data.sft.train",
            train,
            f"with data.sft.share={share}; compass makes its pairs: leave train '', and set share "
            "to 1 (all rows are pairs) or 0",
        )
    train, evaluation = config.data.problems.train, config.data.problems.evaluation
    if train or evaluation not in ("", "compass"):
        raise UserError.of(
            "data.problems.train",
            train,
            f"and evaluation={evaluation!r}; compass makes its problems: leave train '', and set "
            "evaluation to '' or 'compass'",
        )
