"""Build the layout of rows of documents, shared by all datasets of documents."""

from configs.default import Config
from rlp.data.layout import Layout
from rlp.data.text_stream import TextStream
from rlp.run.datasets.dataset import Split, given_forks
from rlp.tokenizers.tokenizer import Tokenizer


def document_layout(config: Config, tokenizer: Tokenizer, forks: int) -> Layout:
    """Return how documents become rows; `forks` as in `Dataset.documents`."""
    data, rlp, evaluation = config.data, config.rlp, config.evaluation
    min_prefix = max(rlp.min_prefix, len(tokenizer.bos))  # no thought starts inside a BOS
    given = {count for _, count in given_forks(config)}

    def shortest(field: str, count: int) -> int:
        """Return the tokens that a number of forks needs; a given fork needs one after it."""
        return min_prefix + (1 if field in given else rlp.horizon - 1 + count)

    return Layout(
        tokenizer=tokenizer,
        sequence_length=data.sequence_length,
        holdout_every=data.holdout_every,
        pack=data.pack and not forks,
        train_forks=bool(forks),
        min_tokens=shortest("rlp.forks_per_document", forks) if forks else 2,
        held_out_min_tokens=shortest(
            "evaluation.forks_per_document", evaluation.forks_per_document
        ),
        fork_marker=data.fork_marker if given else "",
        min_prefix=min_prefix,
        horizon=rlp.horizon,
        seed=config.seed,
    )


def first_held_out(config: Config, train: TextStream, held_out: TextStream) -> Split:
    """Return a split with the first `evaluation.documents` held-out rows."""
    count = min(config.evaluation.documents, len(held_out))
    return Split(train, held_out.batch(0, count), held_out.fingerprint())
