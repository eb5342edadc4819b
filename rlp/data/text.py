"""Streams of tokenised text documents.

    files → documents → tokens → windows of at most T tokens, each behind a bos → rows → records

All documents are tokenised once, when the stream is made; from then on the set of rows is fixed.
A row is one window, or, packed, several whole windows side by side. Record k of the training
stream is row `order[k]`, where the order is a fresh permutation of all rows in every epoch and a
pure function of (seed, k): a run that restarts needs no other position than k.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlp.data.bounds import LIMITS, Limits
from rlp.data.corpus import Corpus, hold_out, tokenize
from rlp.data.file_list import check_disjoint, find_files
from rlp.data.order import shuffled, spread
from rlp.data.summary import many
from rlp.data.tags import never_in_text, tagged
from rlp.data.text_stream import TextStream
from rlp.data.windows import Windows, cut_windows, pack_windows, usable_windows
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

HELD_OUT = "{}, held out"  # what a part of a field's files is called


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
        raise UserError(f"seed={seed} is negative")
    head = len(tokenizer.bos)
    if sequence_length < (least := max(head + 1, 2, min_tokens, held_out_min_tokens)):
        raise UserError(
            f"data.sequence_length={sequence_length} is shorter than the {least} "
            "tokens that a row needs: raise it"
        )
    reading = (text_column, txt_separator, tokenizer, fork_marker, max_unusable_share, limits)
    part, held_part = _parts(train, evaluation, holdout_every, reading)
    cut = _Cut(tokenizer, sequence_length, fork_marker, min_prefix, horizon)
    windows, skipped = cut.windows("training", part, min_tokens, train_forks and not pack)
    held_windows, held_skipped = cut.windows("held-out", held_part, held_out_min_tokens, True)
    if pack:
        rows = pack_windows(windows.length, sequence_length)
        # A fork is a position of *the* document of its row.
        windows = dataclasses.replace(windows, fork=np.full_like(windows.fork, -1))
    else:
        rows = _one_each(windows)
    made = (
        cut.stream(part, windows, rows, shuffled(len(rows), seed), skipped),
        cut.stream(
            held_part, held_windows, _one_each(held_windows), spread(len(held_windows)),
            held_skipped,
        ),
    )  # fmt: skip
    reasons = "too short, with tags, or without their fork"
    tell(part.corpus, held_part.corpus, *made, "windows", reasons)
    return made


@dataclasses.dataclass(frozen=True)
class _Part:
    """The documents of a stream.

    Attributes:
      field: what its fingerprint is called.
      corpus: tokenised files.
      documents: numbers of those documents of the corpus that belong to the stream.
    """

    field: str
    corpus: Corpus
    documents: np.ndarray


def _parts(
    train: str, evaluation: str, every: int, reading: tuple[Any, ...]
) -> tuple[_Part, _Part]:
    """The training documents and the held-out ones; `reading`: how `tokenize` reads files."""
    files = find_files(train, "data.train")
    if not evaluation:
        corpus = tokenize(files, "data.train", *reading)
        kept, held = hold_out(len(corpus), every)
        return _Part("data.train", corpus, kept), _Part(HELD_OUT.format("data.train"), corpus, held)
    held_files = find_files(evaluation, "data.evaluation")
    check_disjoint(files, held_files)
    read = {"data.train": files, "data.evaluation": held_files}
    corpora = {field: tokenize(some, field, *reading) for field, some in read.items()}
    part, held_part = (_Part(name, x, np.arange(len(x))) for name, x in corpora.items())
    return part, held_part


@dataclasses.dataclass(frozen=True)
class _Cut:
    """How documents become rows; fields as the arguments of `text_streams`."""

    tokenizer: Tokenizer
    sequence_length: int
    fork_marker: str
    min_prefix: int
    horizon: int

    def windows(
        self, which: str, part: _Part, min_tokens: int, forked: bool
    ) -> tuple[Windows, int]:
        """The windows of some documents, and how many were left out.

        Args:
          which: "training" or "held-out", for messages.
          part: the documents.
          min_tokens: windows with fewer are left out.
          forked: thoughts branch off the windows.

        Raises:
          UserError: none is left.
        """
        head = len(self.tokenizer.bos)
        cut = cut_windows(part.corpus, part.documents, self.sequence_length, head)
        plain = cut.select(~tagged(part.corpus.tokens, cut, self.tokenizer)) if forked else cut
        if not len(plain):
            raise UserError(
                f"every {which} window holds {never_in_text(self.tokenizer)}, so no thought can "
                "branch off: use documents without these tokens"
            )
        marker = self.fork_marker if forked else ""
        usable = usable_windows(which, plain, min_tokens, marker, self.min_prefix, self.horizon)
        return usable, len(cut) - len(usable)

    def stream(
        self,
        part: _Part,
        windows: Windows,
        rows: Sequence[Sequence[int]],
        order: Sequence[int],
        skipped: int,
    ) -> TextStream:
        """The stream of windows that have been laid into rows."""
        return TextStream(
            part.corpus,
            windows,
            rows,
            order,
            field=part.field,
            documents=len(part.documents),
            sequence_length=self.sequence_length,
            bos=self.tokenizer.bos,
            pad=self.tokenizer.pad,
            skipped=skipped,
        )


def _one_each(windows: Windows) -> list[list[int]]:
    """Rows of one window each."""
    return [[window] for window in range(len(windows))]


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
