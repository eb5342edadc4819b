"""Documents from Python code instead of files: `data.kind="<module>:<name>"` names one of these.

    DOCUMENTS = ["one text", "another"]                    a list of documents, or
    def documents(): yield from …                          a function that yields them, or
    SOURCE = Documents(train=documents, held_out=others)   with separate held-out documents

A document is a text, or a sequence of token ids of the run's tokenizer without BOS and EOS. Every
host reads all of them at the start and arranges them in rows like those of files. So record k is a
function of the documents and the seed: a run that resumes reads them again and continues at its
record, and is refused if they have changed.
"""

import dataclasses
import numbers
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tqdm

from rlp.data.corpus import Corpus, fork_after, grouped
from rlp.data.layout import Layout
from rlp.data.overlap import Overlaps
from rlp.data.summary import Summary
from rlp.data.text_stream import TextStream
from rlp.runtime import user_code
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

FIELD = "data.kind"
Document = str | Sequence[int]
Source = Iterable[Document] | Callable[[], Iterable[Document]]


@dataclasses.dataclass(frozen=True)
class Documents:
    """Documents to train on and documents to hold out.

    Attributes:
      train: the documents, or a function without arguments that returns or yields them.
      held_out: held-out documents in the same form; None holds out every `data.holdout_every`-th
        document of `train`.
    """

    train: Source
    held_out: Source | None = None


def document_streams(
    source: Documents, name: str, layout: Layout, exclude: Overlaps | None = None
) -> tuple[TextStream, TextStream]:
    """Return the training stream and the held-out stream, see `Layout.streams`.

    Args:
      source: the documents.
      name: "<module>:<name>" of the source, for messages.
      layout: how documents are arranged in rows.
      exclude: leaves out the training documents that overlap with these problems; they must then be
        texts.

    Raises:
      UserError: If the code of the source raises an error, a document is neither a text nor token
        ids, or there are too few documents.
    """
    layout.check()
    train = _corpus(source.train, name, FIELD, layout, exclude)
    if source.held_out is not None:
        return layout.streams(train, _corpus(source.held_out, name, f"{FIELD}, held out", layout))
    if len(train) < layout.holdout_every:
        raise UserError(
            f"{FIELD}={name!r} yields {len(train)} documents, too few to hold out one in "
            f"{layout.holdout_every}: set held_out of rlp.data.documents.Documents, or lower "
            "data.holdout_every"
        )
    return layout.streams(train)


def _corpus(
    source: Source, name: str, field: str, layout: Layout, exclude: Overlaps | None = None
) -> Corpus:
    """Tokenize the documents, in order."""
    tokenizer, marker = layout.tokenizer, layout.fork_marker
    summary = Summary(field, (), 0.0, "documents")
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    documents: list[np.ndarray] = []
    forks: list[int] = []
    with user_code.running(f"{FIELD}={name!r}", user_code.file_of(name.partition(":")[0])):
        read = _checked(source, name, summary, tokenizer, exclude)
        for group in grouped(read, len):
            texts = [document for document in group if isinstance(document, str)]
            encoded = iter(tokenizer.encode_all(texts))
            for document in group:
                fork = -1
                if isinstance(document, str):
                    ids = next(encoded)
                    fork = fork_after(document, marker, tokenizer) if marker else -1
                else:
                    ids = np.asarray(document)
                documents.append(np.concatenate([ids, [tokenizer.separator]]).astype(dtype))
                forks.append(fork)
    if not documents:
        raise UserError(
            f"{FIELD}={name!r} yields no documents, or every one is {summary.why_none()}; it must "
            "yield at least one other"
        )
    bounds = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    return Corpus(np.concatenate(documents), bounds, np.asarray(forks, np.int64), None, summary)


def _checked(
    source: Source,
    name: str,
    summary: Summary,
    tokenizer: Tokenizer,
    exclude: Overlaps | None,
) -> Iterator[Document]:
    """Check the documents and yield those that are not empty; the summary counts them."""
    if isinstance(source, Iterator):
        raise UserError(
            f"{FIELD}={name!r} is a {type(source).__name__}, which can be read only once; set it "
            "to a function that returns it"
        )
    documents = source() if callable(source) else source
    if isinstance(documents, str) or not isinstance(documents, Iterable):
        raise UserError(
            f"{FIELD}={name!r} is or returns a {type(documents).__name__}; it must be an iterable "
            "of documents, each a text or token ids"
        )
    progress = tqdm.tqdm(
        documents, f"reading {summary.field}", unit=" documents", delay=1, disable=None
    )
    for number, document in enumerate(progress):
        if not isinstance(document, str):
            where = f"{FIELD}={name!r}: document {number}"
            _check_ids(document, where, tokenizer.vocab_size)
            if exclude is not None:
                raise UserError(
                    f"{where} has token ids, which data.exclude_overlaps cannot compare with "
                    "problems: yield texts, or set it to ''"
                )
        if not len(document) or (isinstance(document, str) and document.isspace()):
            summary.empty += 1
        elif exclude is not None and isinstance(document, str) and exclude.find(document):
            summary.overlapping += 1
        else:
            summary.count(name, len(document) if isinstance(document, str) else 0)
            yield document


def _check_ids(document: object, where: str, size: int) -> None:
    """Raise UserError unless a document is a sequence of token ids below `size`."""
    if not isinstance(document, Sequence | np.ndarray):
        raise UserError(f"{where} is a {type(document).__name__}; yield a text or token ids")
    are_integers = all(isinstance(token, numbers.Integral) for token in document)
    if not are_integers or (len(document) and not 0 <= min(document) <= max(document) < size):
        raise UserError(f"{where} contains a value that is not a token id from 0 to {size - 1}")
