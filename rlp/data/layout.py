"""Arrange documents in training rows and held-out rows.

corpus → windows → usable windows → rows in their order → `TextStream`
"""

import dataclasses

import numpy as np

from rlp.data.corpus import Corpus, hold_out
from rlp.data.order import shuffled, spread
from rlp.data.tags import excluded_tokens, has_excluded_token
from rlp.data.text_stream import TextStream, log_streams
from rlp.data.windows import cut_windows, pack_windows, usable_windows
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

HELD_OUT = "{}, held out"  # name of the held-out part of a field's documents


@dataclasses.dataclass(frozen=True)
class Layout:
    """How documents are arranged in rows.

    Attributes:
      tokenizer: encodes documents; a document is its tokens and the separator.
      sequence_length: T, tokens per row; longer documents are cut into windows, each of which
        begins with the tokenizer's BOS.
      holdout_every: one document in this many is held out if no held-out documents are passed.
      pack: put several windows in a training row instead of one. Packed rows have no forks.
      train_forks: thoughts branch off training rows, as they do off held-out rows. Windows must
        then have no tags (`<think>`, `</think>`, padding, a BOS in the text), since no target may
        contain one; windows with a tag are left out and counted.
      min_tokens: training windows with fewer tokens are left out and counted.
      held_out_min_tokens: the same for held-out windows.
      fork_marker: the fork is after the last occurrence of this text in a document; windows
        without the fork are left out and counted. "" sets no forks.
      min_prefix: minimum tokens of a window before its fork, if `fork_marker` sets one; at least 1.
      horizon: H; a window has so many tokens from such a fork on, or all that its document has.
      seed: seed of the training order.
    """

    tokenizer: Tokenizer
    sequence_length: int
    holdout_every: int = 20
    pack: bool = False
    train_forks: bool = True
    min_tokens: int = 2
    held_out_min_tokens: int = 2
    fork_marker: str = ""
    min_prefix: int = 1
    horizon: int = 1
    seed: int = 0

    def check(self) -> None:
        """Check the numbers before any file is read.

        Raises:
          UserError: If the seed is negative, or the sequence length is too short for any row.
        """
        if self.seed < 0:
            raise UserError.of("seed", self.seed, "is negative; set it to 0 or more")
        head = len(self.tokenizer.bos)
        shortest = max(head + 1, 2, self.min_tokens, self.held_out_min_tokens)
        if self.sequence_length < shortest:
            raise UserError.of(
                "data.sequence_length",
                self.sequence_length,
                f"is shorter than the {shortest} tokens that a row needs: raise it",
            )

    def streams(
        self, train: Corpus, held_out: Corpus | None = None
    ) -> tuple[TextStream, TextStream]:
        """Return the training stream and the held-out stream, and log their contents.

        The held-out stream has one window per row and ends after one pass. Its order does not
        depend on the seed, and spreads any first few records evenly over all windows.

        Args:
          train: documents to train on.
          held_out: held-out documents; None holds out every `holdout_every`-th one of `train`.

        Raises:
          UserError: If there are too few documents to hold out any, or none is long enough.
        """
        field = train.summary.field
        held = train if held_out is None else held_out
        if held_out is None:
            held_field = HELD_OUT.format(field)
            train_numbers, held_numbers = hold_out(len(train), self.holdout_every)
        else:
            held_field = held.summary.field
            train_numbers, held_numbers = np.arange(len(train)), np.arange(len(held))
        streams = (
            self._stream("training", train, train_numbers, field),
            self._stream("held-out", held, held_numbers, held_field),
        )
        log_streams(train, held, *streams, "windows", "too short, with tags, or without their fork")
        return streams

    def _stream(self, which: str, corpus: Corpus, documents: np.ndarray, field: str) -> TextStream:
        """Return the stream of some documents of a corpus, for "training" or "held-out" rows."""
        is_train, tokenizer = which == "training", self.tokenizer
        packed = is_train and self.pack
        has_forks = self.train_forks and not packed if is_train else True
        cut = cut_windows(corpus, documents, self.sequence_length, len(tokenizer.bos))
        untagged = cut
        if has_forks:
            untagged = cut.select(~has_excluded_token(corpus.tokens, cut, tokenizer))
        if not len(untagged):
            raise UserError(
                f"{field}: every {which} window contains {excluded_tokens(tokenizer)}, so no "
                "thought can branch off: use documents without these tokens"
            )
        ends = np.searchsorted(corpus.bounds, untagged.start, side="right")  # of their documents
        windows = usable_windows(
            which,
            untagged,
            len(tokenizer.bos) + corpus.bounds[ends] - untagged.start,
            self.min_tokens if is_train else self.held_out_min_tokens,
            self.fork_marker if has_forks else "",
            self.min_prefix,
            self.horizon,
        )
        rows = [[window] for window in range(len(windows))]
        if packed:
            rows = pack_windows(windows.length, self.sequence_length)
            # A packed row has several documents, but a fork is a position in a single one.
            windows = dataclasses.replace(windows, fork=np.full_like(windows.fork, -1))
        return TextStream(
            corpus,
            windows,
            rows,
            shuffled(len(rows), self.seed) if is_train else spread(len(rows)),
            field=field,
            documents=len(documents),
            sequence_length=self.sequence_length,
            bos=tokenizer.bos,
            pad=tokenizer.pad,
            skipped=len(cut) - len(windows),
        )
