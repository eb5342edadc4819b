"""How documents become rows for training and held-out rows.

corpus → windows → those that can be used → rows in their order → `TextStream`
"""

import dataclasses

import numpy as np

from rlp.data.corpus import Corpus, hold_out
from rlp.data.order import shuffled, spread
from rlp.data.tags import never_in_text, tagged
from rlp.data.text_stream import TextStream, tell
from rlp.data.windows import cut_windows, pack_windows, usable_windows
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

HELD_OUT = "{}, held out"  # what a part of a field's documents is called


@dataclasses.dataclass(frozen=True)
class Layout:
    """How documents are laid into rows.

    Attributes:
      tokenizer: gives ids; a document is tokens separator.
      sequence_length: T, tokens of a row; longer documents are cut into windows, each of which
        begins with the tokenizer's bos.
      holdout_every: one document in so many is held out where none are held out by themselves.
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
      seed: of the training order.
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
        """Refuses numbers with which there are no rows, before anything is read.

        Raises:
          UserError: names them.
        """
        if self.seed < 0:
            raise UserError.of("seed", self.seed, "is negative; set it to 0 or more")
        head = len(self.tokenizer.bos)
        least = max(head + 1, 2, self.min_tokens, self.held_out_min_tokens)
        if self.sequence_length < least:
            raise UserError.of(
                "data.sequence_length",
                self.sequence_length,
                f"is shorter than the {least} tokens that a row needs: raise it",
            )

    def streams(
        self, train: Corpus, held_out: Corpus | None = None
    ) -> tuple[TextStream, TextStream]:
        """The training stream and the held-out one; logs what they were made of.

        The held-out stream has one window a row and ends. Its order is the same whatever the seed,
        and spreads any first few records over all documents and all places in them.

        Args:
          train: documents.
          held_out: documents; None holds out every `holdout_every`-th of `train`.

        Raises:
          UserError: too few documents to hold out any, or none that is long enough.
        """
        field = train.summary.field
        held = train if held_out is None else held_out
        if held_out is None:
            held_field = HELD_OUT.format(field)
            kept, left = hold_out(len(train), self.holdout_every)
        else:
            held_field = held.summary.field
            kept, left = np.arange(len(train)), np.arange(len(held))
        made = (
            self._stream("training", train, kept, field),
            self._stream("held-out", held, left, held_field),
        )
        tell(train, held, *made, "windows", "too short, with tags, or without their fork")
        return made

    def _stream(self, which: str, corpus: Corpus, documents: np.ndarray, field: str) -> TextStream:
        """The rows of some documents of a corpus."""
        trained, tokenizer = which == "training", self.tokenizer
        packed = trained and self.pack
        forked = self.train_forks and not packed if trained else True
        cut = cut_windows(corpus, documents, self.sequence_length, len(tokenizer.bos))
        plain = cut.select(~tagged(corpus.tokens, cut, tokenizer)) if forked else cut
        if not len(plain):
            raise UserError(
                f"every {which} window holds {never_in_text(tokenizer)}, so no thought can branch "
                "off: use documents without these tokens"
            )
        windows = usable_windows(
            which,
            plain,
            self.min_tokens if trained else self.held_out_min_tokens,
            self.fork_marker if forked else "",
            self.min_prefix,
            self.horizon,
        )
        rows = [[window] for window in range(len(windows))]
        if packed:
            rows = pack_windows(windows.length, self.sequence_length)
            # A fork is a position of *the* document of its row.
            windows = dataclasses.replace(windows, fork=np.full_like(windows.fork, -1))
        return TextStream(
            corpus,
            windows,
            rows,
            shuffled(len(rows), self.seed) if trained else spread(len(rows)),
            field=field,
            documents=len(documents),
            sequence_length=self.sequence_length,
            bos=tokenizer.bos,
            pad=tokenizer.pad,
            skipped=len(cut) - len(windows),
        )
