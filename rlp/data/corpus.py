"""Documents as one long array of tokens."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import tqdm

from rlp.data import locations
from rlp.data.bounds import LIMITS, Limits
from rlp.data.content import universal_newlines
from rlp.data.fingerprint import MOST_FILES, digest
from rlp.data.sources import read_documents
from rlp.data.summary import Summary
from rlp.runtime.display import listed
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

T = TypeVar("T")

_GROUP = 1 << 20  # characters handed to the tokenizer at once


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Tokenised documents, end to end.

    Attributes:
      tokens: ids of all documents, [total], the smallest unsigned integers that hold them. What
        stands before a text (bos) is not among them: every row begins with it.
      bounds: int64 [documents + 1]; document i is `tokens[bounds[i] : bounds[i + 1]]`.
      forks: int64 [documents], the token of each document where the data says that a thought
        belongs; -1 for none.
      loss_mask: bool [total], the tokens that a next-token loss counts; None for all.
      summary: of the files that the documents come from.
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
        """Name and digest of each file that gave documents, without its folder; nothing for very
        many files."""
        spans, end = [], 0
        for path, count in self.summary.found.items():
            first, end = end, end + count
            if count:
                spans.append((path.rpartition("/")[2], first, end))
        if len(spans) > MOST_FILES:
            return []
        return [[name, self._digest(first, end)] for name, first, end in spans]

    def _digest(self, first: int, end: int) -> str:
        """Of the documents `first` … `end - 1`."""
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
) -> Corpus:
    """All documents of files, each as its tokens and a separator; shows its progress if it takes
    long.

    Args:
      files: paths, see `sources.find_files`.
      field: name of the config field they come from, for messages.
      text_column: field of a JSON line or parquet row that holds the document.
      txt_separator: splits .txt files into documents; "" keeps them whole.
      tokenizer: gives the ids.
      fork_marker: text after which the fork stands; "" for no forks.
      max_unusable_share: of the rows that may be left out since they cannot be used.
      limits: of what is read.

    Raises:
      UserError: a file that cannot be read, too many rows that cannot be used, or no document in
        any of the files.
    """
    tail = [tokenizer.separator]
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    summary = Summary(field, files, max_unusable_share, "documents")
    documents: list[np.ndarray] = []
    forks: list[int] = []
    with reading(files, field) as bar:
        read = read_documents(summary, text_column, txt_separator, bar.update, limits)
        for texts in grouped(read, len):
            for ids in tokenizer.encode_all(texts):
                documents.append(np.concatenate([ids, tail]).astype(dtype))
            for text in texts:
                forks.append(fork_after(text, fork_marker, tokenizer) if fork_marker else -1)
    summary.finish(txt_separator)
    if not documents:
        raise UserError(
            f"{field}: no documents in {listed(files)}: every text is empty", field=field
        )
    bounds = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    return Corpus(np.concatenate(documents), bounds, np.asarray(forks, np.int64), None, summary)


def reading(files: Sequence[str], field: str) -> tqdm.tqdm:
    """A progress bar over the bytes of files, shown if they take long to read."""
    return tqdm.tqdm(
        total=sum(map(locations.size, files)),
        desc=f"reading {field}",
        unit="B",
        unit_scale=True,
        delay=1,
        disable=None,  # off where no one watches a terminal
    )


def fork_after(text: str, marker: str, tokenizer: Tokenizer) -> int:
    """The first token that begins at or after the end of the last `marker` in a text.

    A line end in the marker stands for LF, CRLF and CR alike.

    A token across that end which holds more than white space beyond it (" north" after a marker
    that ends in a space) is the one: the next would already have seen what is to be predicted.

    Returns:
      Number of the token in `tokenizer.encode(text)`; -1 if the text lacks the marker or ends
      with it.
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
    """The place behind the last occurrence of a marker in a text; -1 if there is none."""
    lines = universal_newlines(marker).split("\n")
    if len(lines) == 1:
        place = text.rfind(marker)
        return place + len(marker) if place >= 0 else -1
    pattern = r"(?:\r\n|\r|\n)".join(map(re.escape, lines))
    found = re.finditer(f"(?=({pattern}))", text)  # overlapping ones, as rfind counts them
    return max((match.end(1) for match in found), default=-1)


def hold_out(
    count: int, every: int, group: str = "data", what: str = "documents"
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the documents that are trained on, and of those held out: one in `every`.

    Args:
      count: documents.
      every: documents.
      group: of the config fields that name their files, for messages.
      what: the documents are called there.

    Raises:
      UserError: fewer than `every` documents, or an `every` that leaves none to train on.
    """
    if every < 2:
        raise UserError.of("data.holdout_every", every, "leaves nothing to train on: use 2 or more")
    if count < every:
        split = "split .txt files with data.txt_separator, " if what == "documents" else ""
        raise UserError(
            f"{group}.train holds too few {what} ({count}) to hold out one in {every}: give "
            f"{group}.evaluation, {split}or lower data.holdout_every",
            field="data.holdout_every",
            value=every,
        )
    numbers = np.arange(count)
    held = (numbers + 1) % every == 0
    return numbers[~held], numbers[held]


def grouped(items: Iterable[T], characters: Callable[[T], int]) -> Iterator[list[T]]:
    """Items in groups of about `_GROUP` characters."""
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
