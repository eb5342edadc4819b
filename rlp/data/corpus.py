"""Documents as one long array of tokens."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import tqdm

from rlp.answers.verifiers.gym import Name
from rlp.data import locations
from rlp.data.bounds import LIMITS, Limits
from rlp.data.content import universal_newlines
from rlp.data.fingerprint import MOST_FILES, digest
from rlp.data.generated import documents as generated_documents
from rlp.data.overlap import Overlaps
from rlp.data.sources import read_documents
from rlp.data.summary import Summary
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

T = TypeVar("T")

_GROUP = 1 << 20  # characters passed to the tokenizer at once


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Tokenized documents, concatenated.

    Attributes:
      tokens: ids of all documents, [total], in the smallest unsigned integer type that fits. The
        BOS is not included: it is added at the beginning of every window.
      bounds: int64 [documents + 1]; document i is `tokens[bounds[i] : bounds[i + 1]]`.
      forks: int64 [documents], the token of each document where the data asks for a thought; -1
        for none.
      loss_mask: bool [total], the tokens that are in the next-token loss; None for all.
      summary: counts for the files that the documents come from.
    """

    tokens: np.ndarray
    bounds: np.ndarray
    forks: np.ndarray
    loss_mask: np.ndarray | None
    summary: Summary

    def __len__(self) -> int:
        return len(self.forks)

    @functools.cached_property
    def files(self) -> list[list[str]]:
        """Name (without its folder) and digest of each file that has documents; empty if there are
        more than `MOST_FILES`."""
        spans, end = [], 0
        for path, count in self.summary.text_counts.items():
            first, end = end, end + count
            if count:
                spans.append((path.rpartition("/")[2], first, end))
        if len(spans) > MOST_FILES:
            return []
        return [[name, self._digest(first, end)] for name, first, end in spans]

    def _digest(self, first: int, end: int) -> str:
        """Return the digest of the documents `first` … `end - 1`."""
        inside = slice(self.bounds[first], self.bounds[end])
        masks = [] if self.loss_mask is None else [self.loss_mask[inside]]
        lengths = np.diff(self.bounds[first : end + 1])
        return digest([self.tokens[inside], lengths, self.forks[first:end], *masks])


def tokenize(
    files: Sequence[str],
    field: str,
    text_column: str,
    txt_separator: str,
    tokenizer: Tokenizer,
    fork_marker: str,
    max_unusable_share: float = 0.2,
    limits: Limits = LIMITS,
    exclude: Overlaps | None = None,
    generated: Sequence[Name] = (),
) -> Corpus:
    """Tokenize all documents of files and of generated datasets, each followed by a separator;
    show progress if it takes long.

    Args:
      files: paths, see `file_list.find_files`.
      field: config field that the files come from, for messages.
      text_column: column of a JSON line or parquet row that contains the document.
      txt_separator: splits .txt files into documents; "" does not split them.
      tokenizer: encodes the documents.
      fork_marker: text after which the fork is placed; "" for no forks.
      max_unusable_share: maximum share of rows that may be skipped because they are unusable.
      limits: limits on rows and decompression.
      exclude: leaves out the documents that overlap with these problems; None for none.
      generated: datasets whose entries are documents, after those of the files.

    Raises:
      UserError: If a file cannot be read, too many rows are unusable, or the files contain no
        document.
    """
    tail = [tokenizer.separator]
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    summary = Summary(field, files, max_unusable_share, "documents")
    documents: list[np.ndarray] = []
    forks: list[int] = []
    with reading(files, field) as bar:
        read = read_documents(
            summary, text_column, txt_separator, bar.update, limits, exclude=exclude
        )
        written = generated_documents(generated, summary, exclude)
        for texts in grouped(itertools.chain(read, written), len):
            for ids in tokenizer.encode_all(texts):
                documents.append(np.concatenate([ids, tail]).astype(dtype))
            for text in texts:
                forks.append(fork_after(text, fork_marker, tokenizer) if fork_marker else -1)
    summary.finish(txt_separator)
    if not documents:
        raise UserError(
            f"{field}: no documents in {summary.named()}: every text is {summary.why_none()}; "
            "set it to other files",
            field=field,
        )
    bounds = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    return Corpus(np.concatenate(documents), bounds, np.asarray(forks, np.int64), None, summary)


def reading(files: Sequence[str], field: str) -> tqdm.tqdm:
    """Return a progress bar over the bytes of files, which appears if reading takes long."""
    return tqdm.tqdm(
        total=sum(map(locations.size, files)),
        desc=f"reading {field}",
        unit="B",
        unit_scale=True,
        delay=1,
        disable=None,  # no bar if stderr is not a terminal
    )


def fork_after(text: str, marker: str, tokenizer: Tokenizer) -> int:
    """Return the first token that begins at or after the end of the last `marker` in a text.

    A line end in the marker matches LF, CRLF and CR.

    If a token extends across that end and has more than white space after it (" north" after a
    marker that ends in a space), return that token: a thought before the next one would already
    have seen the text to be predicted.

    Returns:
      Index of the token in `tokenizer.encode(text)`; -1 if the text does not contain the marker or
      ends with it.
    """
    end = _end_of_last(marker, text)
    if end < 0:
        return -1
    ((_, spans),) = tokenizer.encode_spans([text])
    starts = spans[:, 0]
    token = int(np.searchsorted(starts, end))
    next_start = starts[token] if token < len(starts) else len(text)
    if text[end:next_start].strip():
        return token - 1
    return token if token < len(starts) else -1


def _end_of_last(marker: str, text: str) -> int:
    """Return the end of the last occurrence of a marker in a text; -1 if it does not occur."""
    lines = universal_newlines(marker).split("\n")
    if len(lines) == 1:
        start = text.rfind(marker)
        return start + len(marker) if start >= 0 else -1
    pattern = r"(?:\r\n|\r|\n)".join(map(re.escape, lines))
    matches = re.finditer(f"(?=({pattern}))", text)  # a lookahead, so that matches may overlap
    return max((match.end(1) for match in matches), default=-1)


def hold_out(
    count: int, every: int, group: str = "data", noun: str = "documents"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the documents to train on and of those to hold out: one in `every`.

    Args:
      count: number of documents.
      every: one document of this many is held out.
      group: group of the config fields that name the files, for messages.
      noun: what messages call the documents.

    Raises:
      UserError: If there are fewer than `every` documents, or `every` leaves none to train on.
    """
    if every < 2:
        raise UserError.of("data.holdout_every", every, "leaves nothing to train on: use 2 or more")
    if count < every:
        split = "split .txt files with data.txt_separator, " if noun == "documents" else ""
        raise UserError(
            f"{group}.train has too few {noun} ({count}) to hold out one in {every}: set "
            f"{group}.evaluation, {split}or lower data.holdout_every",
            field="data.holdout_every",
            value=every,
        )
    numbers = np.arange(count)
    is_held_out = (numbers + 1) % every == 0
    return numbers[~is_held_out], numbers[is_held_out]


def grouped(items: Iterable[T], characters: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield the items in groups of about `_GROUP` characters."""
    group: list[T] = []
    size = 0
    for item in items:
        group.append(item)
        size += characters(item)
        if size >= _GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group
