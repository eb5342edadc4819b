"""Documents whose tokens are located in their text, in windows that score every token once.

    files → texts → `LocatedText` → `Window` → rows

A document that is longer than a row is cut into windows that overlap by half: the first half of a
window is only context, so that every token (but those of the first window of a document) is scored
after at least half a window of the text before it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rlp.data.batch import Batch
from rlp.data.file_list import find_files
from rlp.data.order import spread
from rlp.data.sources import read_documents
from rlp.data.summary import Summary
from rlp.data.tags import has_excluded_token
from rlp.data.windows import Windows
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

UNUSABLE_SHARE = 0.2  # maximum share of rows of a file that are skipped, as in training
ROOM = 64  # rows that are shorter than asked for are padded to a multiple of this


@dataclasses.dataclass(frozen=True)
class LocatedText:
    """A document.

    Attributes:
      text: its text.
      ids: int32 [n], its tokens, without BOS, EOS or separator.
      spans: int64 [n, 2], the first character of each token, and the one after its last.
    """

    text: str
    ids: np.ndarray
    spans: np.ndarray

    def bytes_of_tokens(self) -> np.ndarray:
        """Return the UTF-8 bytes of the text that each token accounts for, int64 [n].

        They add up to the bytes of the text: a token accounts for those from the end of the tokens
        before it to its own end, and the last one for the rest. So white space that a tokenizer
        drops belongs to the token after it, and a character that is split over several tokens to
        the first of them.
        """
        offsets = np.cumsum([0, *(len(character.encode()) for character in self.text)])
        ends = np.maximum.accumulate(offsets[self.spans[:, 1]])
        ends[-1] = offsets[-1]
        return np.diff(ends, prepend=0)


@dataclasses.dataclass(frozen=True)
class Window:
    """Tokens `start` … `end` - 1 of a document, of which those from `scored` on are scored."""

    start: int
    scored: int
    end: int


def read_texts(paths: str, field: str, column: str, separator: str) -> list[str]:
    """Return the documents of files, in an order whose first few are spread over all of them.

    Args:
      paths: files, folders and globs, separated by commas.
      field: flag that they come from, for messages; <field>_column is that of the column.
      column: column of a JSON line or parquet row with the document.
      separator: splits .txt files into documents; "" does not split them.

    Raises:
      UserError: If a file cannot be read, or there is no document.
    """
    summary = Summary(field, find_files(paths, field), UNUSABLE_SHARE, "documents")
    texts = list(read_documents(summary, column, separator, column_field=f"{field}_column"))
    summary.finish(separator)
    if not texts:
        raise UserError(f"{field}={paths}: every text is empty; set it to other files")
    return [texts[number] for number in spread(len(texts))]


def locate(text: str, tokenizer: Tokenizer) -> LocatedText:
    """Tokenize a document."""
    ((ids, spans),) = tokenizer.encode_spans([text])
    return LocatedText(text, ids, spans)


def windows_of(document: LocatedText, length: int, tokenizer: Tokenizer) -> list[Window]:
    """Return the windows of a document, in order; the scored parts contain every token once.

    Windows with a token that cannot occur in a text (a thinking tag, padding, BOS) are left out.

    Args:
      document: has at least one token.
      length: tokens of a row, of which the tokenizer's BOS takes some.
      tokenizer: of the document.
    """
    room, count = length - len(tokenizer.bos), len(document.ids)
    windows = [Window(0, 0, min(room, count))]
    while windows[-1].end < count:
        last = windows[-1]
        start = min(last.start + room - room // 2, count - room)
        windows.append(Window(start, last.end, start + room))
    starts = np.array([window.start for window in windows])
    lengths = np.array([window.end for window in windows]) - starts + len(tokenizer.bos)
    spans = Windows(starts, lengths, np.full(len(windows), -1))
    tagged = has_excluded_token(document.ids, spans, tokenizer)
    return [window for window, left_out in zip(windows, tagged, strict=True) if not left_out]


def rows_of(
    windows: Sequence[tuple[LocatedText, Window]],
    forks: np.ndarray,
    index: np.ndarray,
    length: int,
    tokenizer: Tokenizer,
) -> Batch:
    """Return windows as rows, each after the tokenizer's BOS; T is at most `length`.

    Args:
      windows: R windows of documents.
      forks: int32 [R, K], positions in the rows, which count the BOS.
      index: int32 [R], numbers that seed the random draws of the rows.
      length: maximum T; less if all windows are shorter.
      tokenizer: of the documents.
    """
    longest = len(tokenizer.bos) + max(window.end - window.start for _, window in windows)
    length = min(length, -(-longest // ROOM) * ROOM)
    tokens = np.full((len(windows), length), tokenizer.pad, np.int32)
    segment = np.zeros_like(tokens)
    for row, (document, window) in enumerate(windows):
        ids = [*tokenizer.bos, *document.ids[window.start : window.end]]
        tokens[row, : len(ids)] = ids
        segment[row, : len(ids)] = 1
    position = np.where(segment > 0, np.arange(length, dtype=np.int32), 0).astype(np.int32)
    return Batch(tokens, segment, position, index, forks)
