"""Files as a dataset: documents, prompt-response pairs, problems."""

import logging
from typing import TYPE_CHECKING

from configs.default import Config
from rlp.answers.gold_answers import GoldAnswers
from rlp.data.bounds import Limits
from rlp.data.conversations import Format
from rlp.data.overlap import Overlaps
from rlp.data.pairs import pair_streams
from rlp.data.problem_format import ProblemFormat
from rlp.data.problems import problem_streams
from rlp.data.task_files import exclusion
from rlp.data.text import text_streams
from rlp.evaluation.response_format import ResponseFormat
from rlp.run.datasets.dataset import Dataset, ProblemSplit, Split, given_forks
from rlp.run.datasets.rows import document_layout, first_held_out
from rlp.run.grader import make_grader
from rlp.runtime.errors import UserError
from rlp.runtime.fingerprints import Fingerprint
from rlp.tokenizers.tokenizer import Tokenizer
from rlp.tokenizers.turns import end_of_turn

if TYPE_CHECKING:
    from rlp.run.tasks import Task

LOGGER = logging.getLogger(__name__)


class FileDataset(Dataset):
    """The content of files named by `data.train`, `data.sft.train`, `data.problems.train` and the
    corresponding fields of held-out files."""

    def check(self, config: Config, task: "Task") -> None:
        """See `Dataset`."""
        self._check_documents(config, task)
        if task.reads_documents and not config.data.fork_marker:
            for rule, _ in given_forks(config):
                raise UserError.of(
                    rule, "given", "needs data.fork_marker, the text that marks forks; set it"
                )
        _check_pairs(config)

    def _check_documents(self, config: Config, task: "Task") -> None:
        """Check that the config names documents if the task reads them."""
        if task.reads_documents and not config.data.train:
            raise UserError(
                "data.train is empty; set --config.data.train=<file or folder>",
                field="data.train",
                value="",
            )

    def documents(self, config: Config, tokenizer: Tokenizer, forks: int) -> Split:
        """See `Dataset`."""
        data = config.data
        train, held_out = text_streams(
            document_layout(config, tokenizer, forks),
            train=data.train,
            evaluation=data.evaluation,
            text_column=data.text_column,
            txt_separator=data.txt_separator,
            max_unusable_share=data.max_unusable_share,
            limits=read_limits(config),
            exclude=excluded(config),
        )
        return first_held_out(config, train, held_out)

    def pairs(self, config: Config, tokenizer: Tokenizer, template: str | None) -> Split:
        """See `Dataset`."""
        data = config.data
        LOGGER.info(
            "formatting prompt-response pairs %s",
            "by concatenation" if template is None else "with the chat template",
        )
        train, held_out = pair_streams(
            train=data.sft.train,
            evaluation=data.sft.evaluation,
            holdout_every=data.holdout_every,
            form=Format(
                prompt=data.sft.prompt_column,
                response=data.sft.response_column,
                messages=data.sft.messages_column,
            ),
            template=template,
            end=_end_of_response(tokenizer, template),
            tokenizer=tokenizer,
            sequence_length=data.sequence_length,
            pack=data.pack,
            max_unusable_share=data.max_unusable_share,
            limits=read_limits(config),
            seed=config.seed,
            exclude=excluded(config),
        )
        return first_held_out(config, train, held_out)

    def problems(
        self, config: Config, tokenizer: Tokenizer, response_format: ResponseFormat
    ) -> ProblemSplit:
        """See `Dataset`."""
        data, count = config.data, config.evaluation.problems
        train, held_out = problem_streams(
            train=data.problems.train,
            evaluation=data.problems.evaluation,
            holdout_every=data.holdout_every,
            form=ProblemFormat(
                prompt=data.problems.prompt_column,
                answer=data.problems.answer_column,
                options=data.problems.options_column,
                marker=data.problems.answer_marker,
                instruction=data.problems.instruction,
            ),
            ask=response_format.ask,
            gold_answers=GoldAnswers(make_grader(config)),
            tokenizer=tokenizer,
            head=response_format.head,
            opening=response_format.opening[0] if response_format.shared else None,
            sequence_length=data.sequence_length,
            max_unusable_share=data.max_unusable_share,
            limits=read_limits(config),
            seed=config.seed,
            exclude=excluded(config) if data.problems.train else None,
        )
        fingerprint: dict[str, Fingerprint] = {}
        for name, problems in held_out.items():
            fingerprint |= problems.fingerprint(f"data.problems, held out {name}".rstrip())
        first = {name: problems.beginning(count) for name, problems in held_out.items()}
        return ProblemSplit(train, first, fingerprint)


def _end_of_response(tokenizer: Tokenizer, template: str | None) -> int | None:
    """Return the token that ends a response; None if there is no template or no such token."""
    if template is None:
        return None
    end = end_of_turn(tokenizer, template)
    if end is None:
        LOGGER.warning(
            "the chat template does not end a response with a special token, so the model does not "
            "learn to stop: sampling and `generate` continue to the length limit; set "
            "data.chat_template to a template that ends turns with a special token"
        )
    return end


def read_limits(config: Config) -> Limits:
    """Return the limits for reading files."""
    return Limits(config.data.max_row_bytes, config.data.max_decompression_ratio)


def excluded(config: Config) -> Overlaps | None:
    """Return the problems that texts to train on must not contain."""
    return exclusion(config.data.exclude_overlaps, read_limits(config))


def _check_pairs(config: Config) -> None:
    """Check that the files, the columns and the share of pairs are consistent."""
    share, train = config.data.sft.share, config.data.sft.train
    if bool(train) != bool(share):
        raise UserError.of(
            "data.sft.train",
            train,
            f"does not match data.sft.share={share}; set both: the files of prompt-response pairs, "
            "and their share of the rows (1 for all)",
        )
    if not share:
        return
    if share == 1 and (config.data.train or config.data.evaluation):
        raise UserError.of(
            "data.sft.share",
            1,
            "leaves no rows for documents; lower it, or set data.train and data.evaluation to ''",
        )
    prompt, response, messages = (
        bool(config.data.sft[f"{name}_column"]) for name in ("prompt", "response", "messages")
    )
    if not prompt == response != messages:
        raise UserError(
            "data.sft needs the names of its columns; set either data.sft.prompt_column and "
            "data.sft.response_column, or data.sft.messages_column",
            field="data.sft.prompt_column",
            value=config.data.sft.prompt_column,
        )
