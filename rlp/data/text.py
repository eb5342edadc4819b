"""Streams of tokenised text documents.

    files → documents → tokens → windows of at most T tokens, each behind a bos → rows → records

All documents are tokenised once, when the stream is made; from then on the set of rows is fixed.
A row is one window, or, packed, several whole windows side by side. Record k of the training
stream is row `order[k]`, where the order is a fresh permutation of all rows in every epoch and a
pure function of (seed, k): a run that restarts needs no other position than k.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from rlp.data import locations
from rlp.data.batch import Batch
from rlp.data.bounds import LIMITS, Limits
from rlp.data.corpus import Corpus, hold_out, tokenize
from rlp.data.fingerprint import digest, first_records
from rlp.data.sources import find_files
from rlp.data.summary import many
from rlp.data.windows import Windows, cut_windows, pack_windows
from rlp.runtime.errors import UserError
from rlp.runtime.fingerprints import Fingerprint
from rlp.tokenizers.tokenizer import Tokenizer

HELD_OUT = "{}, held out"  # what a part of a field's files is called
_HASHED = 4096  # windows whose tokens are hashed at a time


class TextStream:
    """Rows of a corpus by record number; endless and shuffled, or one pass.

    Attributes:
      records_per_epoch: number of rows.
      skipped: windows left out since they were too short or had no usable given fork.
    """

    def __init__(
        self,
        corpus: Corpus,
        windows: Windows,
        rows: Sequence[Sequence[int]],
        order: Sequence[int],
        *,
        field: str,
        documents: int,
        sequence_length: int,
        bos: Sequence[int],
        pad: int,
        skipped: int,
    ) -> None:
        """A stream over windows that have been laid into rows.

        Args:
          corpus: whose tokens are laid out.
          windows: stretches of them.
          rows: numbers of the windows of each row.
          order: number of the row of each record.
          field: of the config, which names what the rows are.
          documents: number of documents (or pairs) that the rows were chosen from.
          sequence_length: T, tokens of a row.
          bos: ids at the beginning of every window, which its length includes.
          pad: id that fills a row.
          skipped: number of windows that were left out before.
        """
        self._corpus, self._windows, self._rows, self._order = corpus, windows, rows, order
        self._field, self._documents = field, documents
        self._sequence_length, self._pad = sequence_length, pad
        self._bos = np.array(bos, np.int32)
        self.records_per_epoch: int | None = len(rows)
        self.skipped = skipped

    def __len__(self) -> int:
        """Number of rows: of one epoch, or of the one pass."""
        return len(self._rows)

    def batch(self, first: int, size: int) -> Batch:
        """Records `first` … `first + size - 1`, B = `size`, K = 1.

        Raises:
          IndexError: a negative record, or one past the end of a stream that has an end.
        """
        if first < 0 or first + size > len(self._order):
            raise IndexError(f"no records {first} to {first + size - 1} among {len(self)} rows")
        shape = (size, self._sequence_length)
        tokens = np.full(shape, self._pad, np.int32)
        segment, position = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        forks = np.full((size, 1), -1, np.int32)
        learnt = self._corpus.loss_mask
        mask = None if learnt is None else np.zeros(shape, bool)
        for b in range(size):
            row = self._rows[self._order[first + b]]
            at = 0
            for number, window in enumerate(row, 1):
                start, length = self._windows.start[window], self._windows.length[window]
                here, text = slice(at, at + length), at + len(self._bos)
                source = slice(start, start + length - len(self._bos))
                tokens[b, at:text] = self._bos
                tokens[b, text : at + length] = self._corpus.tokens[source]
                if mask is not None and learnt is not None:
                    mask[b, text : at + length] = learnt[source]
                segment[b, here] = number
                position[b, here] = np.arange(length)
                at += length
            forks[b, 0] = self._windows.fork[row[0]]
        index = np.asarray(range(first, first + size), np.int32)
        return Batch(tokens, segment, position, index, forks, mask)

    def fingerprint(self) -> dict[str, Fingerprint]:
        """See `Stream`."""
        summary = self._corpus.summary
        return {
            self._field: {
                "digest": digest(self._content()),
                summary.what: self._documents,
                "rows": len(self),
                "tokens": int(self._windows.length.sum()),
                "files": self._corpus.files,
            }
        }

    def _content(self) -> Iterator[np.ndarray]:
        """All that `batch` makes rows of."""
        yield np.array([self._sequence_length, self._pad])
        yield self._bos
        yield first_records(self._order, len(self))
        yield np.array([len(row) for row in self._rows])
        windows = np.concatenate([np.asarray(row, np.int64) for row in self._rows])
        yield self._windows.fork[windows]
        start = self._windows.start[windows]
        length = self._windows.length[windows] - len(self._bos)
        yield length
        learnt = self._corpus.loss_mask
        for first in range(0, len(windows), _HASHED):
            some = slice(first, first + _HASHED)
            before = np.cumsum(length[some]) - length[some]
            places = np.repeat(start[some] - before, length[some])
            places += np.arange(len(places))
            yield self._corpus.tokens[places]
            if learnt is not None:
                yield learnt[places]


def text_streams(
    *,
    train: str,
    evaluation: str = "",
    holdout_every: int = 20,
    text_column: str = "text",
    txt_separator: str = "",
    tokenizer: Tokenizer,
    sequence_length: int,
    pack: bool = False,
    train_forks: bool = True,
    min_tokens: int = 2,
    held_out_min_tokens: int = 2,
    fork_marker: str = "",
    min_prefix: int = 1,
    horizon: int = 1,
    max_unusable_share: float = 0.2,
    limits: Limits = LIMITS,
    seed: int = 0,
) -> tuple[TextStream, TextStream]:
    """The training stream and the held-out one; logs what they were made of.

    The held-out stream has one window a row and ends. Its order is the same whatever the seed,
    and spreads any first few records over all documents and all places in them.

    Args:
      train: files, folders or globs, separated by commas.
      evaluation: held-out files in the same forms; "" holds out every `holdout_every`-th
        document of `train`.
      holdout_every: documents.
      text_column: field of a JSON line or parquet row that holds the document.
      txt_separator: splits .txt files into documents; "" keeps them whole.
      tokenizer: gives ids; a document is tokens separator.
      sequence_length: T, tokens of a row; longer documents are cut into windows, each of which
        begins with the tokenizer's bos.
      pack: training rows hold several windows; otherwise one. Packed rows have no forks.
      train_forks: thoughts branch off training rows, as they do off held-out rows. Windows must
        then be without tags (`<think>`, `</think>`, padding, a bos in the text), which no target
        can hold; those with one are left out and counted.
      min_tokens: training windows with fewer are left out and counted.
      held_out_min_tokens: the same for held-out windows.
      fork_marker: text after whose last occurrence in a document the fork stands; windows in
        which that place does not lie are left out and counted. "" gives no forks.
      min_prefix: tokens that a window must have before a given fork, at least 1.
      horizon: H, tokens that a window must have from a given fork on.
      max_unusable_share: of the rows of files that may be left out since they cannot be used.
      limits: of what is read of files.
      seed: of the training order.

    Raises:
      UserError: files that cannot be read, no documents, too few to hold out any, none that is
        long enough.
    """
    if seed < 0:
        raise UserError.of("seed", seed, "is negative; set it to 0 or more")
    head = len(tokenizer.bos)
    if sequence_length < (least := max(head + 1, 2, min_tokens, held_out_min_tokens)):
        raise UserError.of(
            "data.sequence_length",
            sequence_length,
            f"is shorter than the {least} tokens that a row needs: raise it",
        )
    files = find_files(train, "data.train")
    reading = (text_column, txt_separator, tokenizer, fork_marker, max_unusable_share, limits)
    held_field = "data.evaluation" if evaluation else HELD_OUT.format("data.train")
    if evaluation:
        held_files = find_files(evaluation, held_field)
        check_disjoint(files, held_files)
        corpus = tokenize(files, "data.train", *reading)
        held_corpus = tokenize(held_files, held_field, *reading)
        kept, held = np.arange(len(corpus)), np.arange(len(held_corpus))
    else:
        corpus = held_corpus = tokenize(files, "data.train", *reading)
        kept, held = hold_out(len(corpus), holdout_every)

    def stream(
        which: str, corpus: Corpus, documents: np.ndarray, packed: bool, least: int, forked: bool
    ) -> TextStream:
        cut = cut_windows(corpus, documents, sequence_length, head)
        plain = cut.select(~_tagged(corpus.tokens, cut, tokenizer)) if forked else cut
        if not len(plain):
            raise UserError(
                f"every {which} window holds {_never_in_text(tokenizer)}, so no thought can branch "
                "off: use documents without these tokens"
            )
        marker = fork_marker if forked else ""
        windows = _usable(which, plain, least, marker, min_prefix, horizon)
        rows = [[window] for window in range(len(windows))]
        if packed:
            rows = pack_windows(windows.length, sequence_length)
            # A fork is a position of *the* document of its row.
            windows = dataclasses.replace(windows, fork=np.full_like(windows.fork, -1))
        return TextStream(
            corpus,
            windows,
            rows,
            shuffled(len(rows), seed) if which == "training" else spread(len(rows)),
            field="data.train" if which == "training" else held_field,
            documents=len(documents),
            sequence_length=sequence_length,
            bos=tokenizer.bos,
            pad=tokenizer.pad,
            skipped=len(cut) - len(windows),
        )

    made = (
        stream("training", corpus, kept, pack, min_tokens, train_forks and not pack),
        stream("held-out", held_corpus, held, False, held_out_min_tokens, True),
    )
    tell(corpus, held_corpus, *made, "windows", "too short, with tags, or without their fork")
    return made


def tell(
    corpus: Corpus,
    held_corpus: Corpus,
    train: TextStream,
    held: TextStream,
    what: str,
    reasons: str,
) -> None:
    """Logs a line for each field that was read: its files, what they hold, and the rows.

    Args:
      corpus, held_corpus: what was read, for training and held out; may be the same.
      train, held: the streams of them.
      what: the stretches are called that rows are made of.
      reasons: why some of them are left out.
    """
    rows = []
    for name, stream in (("training", train), ("held-out", held)):
        left_out = f", {many(stream.skipped, what)} left out ({reasons})" if stream.skipped else ""
        rows.append(f"{many(len(stream), f'{name} rows')}{left_out}")
    if corpus is held_corpus:
        corpus.summary.tell(len(corpus.tokens), "; ".join(rows))
        return
    for each, line in zip((corpus, held_corpus), rows, strict=True):
        each.summary.tell(len(each.tokens), line)


def shuffled(count: int, seed: int) -> Sequence[int]:
    """0 … count - 1 in an endless order: each epoch is a permutation of its own."""
    return grain.MapDataset.source(range(count)).seed(seed).shuffle().repeat()


def spread(count: int) -> list[int]:
    """A permutation of 0 … count - 1 of which every beginning is spread evenly.

    Windows lie in the order of the files: the first 64 may all come from one document. Steps of
    the golden ratio of the whole visit every part of it early.
    """
    step = max(1, round(count * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, count) > 1:
        step += 1
    return [k * step % count for k in range(count)]


def _never_in_text(tokenizer: Tokenizer) -> str:
    """The tokens that no text holds off which thoughts branch, in words."""
    others = {tokenizer.pad: "padding"} | dict.fromkeys(tokenizer.bos, "bos")
    ends = {tokenizer.eos, tokenizer.separator}
    named = [f"{what} {tokenizer.decode([i])!r}" for i, what in others.items() if i not in ends]
    return " or ".join(["a thinking tag", *named])


def _tagged(tokens: np.ndarray, windows: Windows, tokenizer: Tokenizer) -> np.ndarray:
    """Whether each window holds a tag, whole, or an id that document text cannot hold, bool
    [windows]."""
    start, length = windows.start, windows.length - len(tokenizer.bos)
    ends = {tokenizer.eos, tokenizer.separator}  # an id that ends a text is text
    one = {(i,) for i in (tokenizer.pad, *tokenizer.bos) if i not in ends}
    found = np.zeros(len(windows), np.int64)
    for tag in {tokenizer.think_open, tokenizer.think_close} | one:
        before = np.concatenate([[0], np.cumsum(begins(tokens, tag))])
        # A tag of n tokens that is whole in a window begins before its last n - 1 tokens.
        end = np.maximum(start, start + length - (len(tag) - 1))
        found += before[end] - before[start]
    return found > 0


def begins(tokens: np.ndarray, sequence: Sequence[int]) -> np.ndarray:
    """Where a sequence of ids begins in the tokens, bool [total]."""
    begins = np.ones(len(tokens), bool)
    for offset, token in enumerate(sequence):
        begins[: len(tokens) - offset] &= tokens[offset:] == token
        begins[max(0, len(tokens) - offset) :] = False
    return begins


def _usable(
    which: str,
    windows: Windows,
    min_tokens: int,
    fork_marker: str,
    min_prefix: int,
    horizon: int,
) -> Windows:
    """The windows that are long enough and, where forks are given, hold a fork.

    Raises:
      UserError: there is none.
    """
    keep = windows.length >= min_tokens
    if not keep.any():
        raise UserError(
            f"none of the {len(windows)} {which} windows has the {min_tokens} tokens that a row "
            f"needs (the longest has {windows.length.max()}): use longer documents"
        )
    if fork_marker:
        if (windows.fork < 0).all():
            raise UserError(
                f"no {which} document goes on after data.fork_marker={fork_marker!r}: set it to a "
                "text that stands before what is to be predicted",
                field="data.fork_marker",
                value=fork_marker,
            )
        room = (windows.fork >= max(1, min_prefix)) & (windows.fork + horizon <= windows.length)
        keep &= room
        if not keep.any():
            raise UserError(
                f"no {which} window has {max(1, min_prefix)} tokens before the place that "
                f"data.fork_marker={fork_marker!r} gives and {horizon} from it on: raise "
                "data.sequence_length, or lower rlp.min_prefix or rlp.horizon",
                field="data.sequence_length",
            )
    return windows.select(keep)


def check_disjoint(train: Sequence[str], evaluation: Sequence[str], group: str = "data") -> None:
    """Raises UserError if a file is both trained on and held out."""
    trained = {locations.identity(path) for path in train}
    for path in evaluation:
        if locations.identity(path) in trained:
            raise UserError(
                f"{path} is in both {group}.train and {group}.evaluation: take it out of one"
            )
