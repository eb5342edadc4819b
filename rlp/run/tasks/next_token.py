"""Next-token prediction on documents, on prompt-response pairs, or on both."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jax.sharding import Mesh

from configs.default import Config
from models.config import ModelConfig
from rlp.capacity import step_memory
from rlp.capacity.device_memory import Need
from rlp.data.batch import HeldOut, Stream
from rlp.data.lookahead import LookaheadStream
from rlp.data.mix import MixedStream
from rlp.engine.method import Method
from rlp.engine.optimizer import Optimizer
from rlp.engine.step import RLPSettings
from rlp.evaluation.response_format import ResponseFormat
from rlp.run.datasets.dataset import Dataset, hold_out_problems
from rlp.run.tasks.task import DOCUMENTS, PAIRS, Task
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer
from rlp.training.flops import by_part, next_token_flops
from rlp.training.trainers import NextTokenTrainer

if TYPE_CHECKING:
    from rlp.run.assembly import RunParts


class NextToken(Task):
    """Cross-entropy of the next token: pretraining, continued pretraining and SFT."""

    name = "next_token"

    def check(self, dataset: Dataset) -> None:
        """See `Task`."""
        share = self.config.data.lookahead.share
        if share and not self.reads_documents:
            raise UserError.of(
                "data.lookahead.share",
                share,
                "is a share of the documents, but data.sft.share=1 leaves none; lower "
                "data.sft.share, or set data.lookahead.share to 0",
            )
        self.refuse_training_problems()

    @property
    def files(self) -> list[str]:
        """See `Task`."""
        share = self.config.data.sft.share
        return ([DOCUMENTS] if share != 1 else []) + ([PAIRS] if share else [])

    def data(
        self,
        dataset: Dataset,
        config: Config,
        tokenizer: Tokenizer,
        template: str | None,
        response_format: ResponseFormat | None,
    ) -> tuple[Stream, HeldOut]:
        """See `Task`."""
        share = config.data.sft.share
        stream, held_out = None, HeldOut(None)
        if self.reads_documents or dataset.generated:
            documents = dataset.documents(config, tokenizer, self.forks)
            held_out = HeldOut(documents.held_out, fingerprint=documents.fingerprint)
            if self.reads_documents:
                stream = with_lookaheads(config, tokenizer, documents.train)
        if share:
            pairs = dataset.pairs(config, tokenizer, template)
            fingerprint = {**held_out.fingerprint, **pairs.fingerprint}
            held_out = HeldOut(held_out.documents, pairs.held_out, fingerprint=fingerprint)
            stream = MixedStream(stream, pairs.train, share) if stream else pairs.train
        assert stream is not None
        if response_format is not None:
            held_out = hold_out_problems(
                held_out, dataset.problems(config, tokenizer, response_format)
            )
        return stream, held_out

    @property
    def updates_per_step(self) -> int:
        """See `Task`."""
        return 1

    def check_mesh(self, settings: RLPSettings, mesh: Mesh) -> None:
        """See `Task`; nothing to check, because only the batch is split over devices."""

    def sampling_settings(self, settings: RLPSettings) -> RLPSettings | None:
        """See `Task`."""
        return None

    def sampling_method(self, run: "RunParts") -> Method | None:
        """See `Task`."""
        return None

    def trainer(
        self, run: "RunParts", stream: Stream, optimizer: Optimizer, shardings: Any
    ) -> NextTokenTrainer:
        """See `Task`."""
        return NextTokenTrainer(run.method.model, optimizer, run.mesh, shardings)

    def training_memory(self, run: "RunParts") -> Iterator[tuple[str, list[Need]]]:
        """See `Task`."""
        yield "an update", step_memory.of_next_token_update(run.method.model, run.mesh, *self.shape)

    def flops_per_step(self, model: ModelConfig, update: int) -> int:
        """See `Task`."""
        return sum(by_part(next_token_flops(model, update, *self.shape)).values())

    def steps_known(self, unit: str) -> bool:
        """See `Task`; all rows use the same FLOPs, but contain different numbers of tokens."""
        return unit == "flops"

    @property
    def default_metric(self) -> str:
        """See `Task`."""
        return "document_loss" if self.reads_documents else "response_loss"


def with_lookaheads(config: Config, tokenizer: Tokenizer, documents: Stream) -> Stream:
    """Add lookaheads to a share of the training documents, as `data.lookahead` defines."""
    lookahead = config.data.lookahead
    if lookahead.share == 0:
        return documents
    return LookaheadStream(
        documents,
        seed=config.seed,
        share=lookahead.share,
        length=lookahead.length,
        distance=lookahead.distance,
        think_open=tokenizer.think_open,
        think_close=tokenizer.think_close,
        bos=len(tokenizer.bos),
        pad=tokenizer.pad,
        ends={tokenizer.pad, *tokenizer.bos, tokenizer.eos, tokenizer.separator},
    )
