"""A tokenizer of whole words from a small vocabulary."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlp.runtime.errors import UserError
from rlp.tokenizers.build_files import word_level_files
from rlp.tokenizers.chat_templates import Request
from rlp.tokenizers.tokenizer import THINK_CLOSE, THINK_OPEN

SPECIALS = ("<pad>", "<bos>", "<eos>", THINK_OPEN, THINK_CLOSE)
_NO_CHAT = "the word tokenizer has no tokens for a chat template; use a tokenizer folder"


class WordTokenizer:
    """One token for each word; words are separated by white space.

    See `Tokenizer` for the other attributes and the methods.

    Attributes:
      words: The vocabulary, beginning with `SPECIALS`; the index of a word is its id.
    """

    pad, eos = 0, 2
    bos: tuple[int, ...] = (1,)
    bos_token: int | None = 1
    separator = eos
    think_open: tuple[int, ...] = (3,)
    think_close: tuple[int, ...] = (4,)
    added: Collection[int] = range(len(SPECIALS))
    between_pieces = " "
    chat_template: str | None = None

    def __init__(self, words: Sequence[str], source: str) -> None:
        """Create the tokenizer.

        Args:
          words: The words besides `SPECIALS`.
          source: Where the words come from, for error messages.
        """
        self.words = (*SPECIALS, *words)
        self.vocab_size = len(self.words)
        self._ids = {word: i for i, word in enumerate(self.words)}
        self._source = source

    def encode(self, text: str) -> list[int]:
        """Return the ids of the words of a text.

        Raises:
          UserError: If a word is not in the vocabulary.
        """
        try:
            return [self._ids[word] for word in text.split()]
        except KeyError as error:
            known = " ".join(self.words)
            raise UserError(
                f"{error} is not a word of {self._source}; use only these words: {known}"
            ) from error

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array(self.encode(text), np.int32) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return self.between_pieces.join(self.pieces(ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self.words[i] for i in ids]

    def token_bytes(self) -> list[bytes]:
        """See `Tokenizer`. The text of a word depends on its neighbors, so words have no bytes."""
        return [b""] * self.vocab_size

    def encode_spans(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        spans = [[word.span() for word in re.finditer(r"\S+", text)] for text in texts]
        rows = [np.array(span, np.int64).reshape(-1, 2) for span in spans]
        return list(zip(self.encode_all(texts), rows, strict=True))

    def chat(self, messages: Sequence[Mapping[str, Any]], template: str, ask: bool) -> str:
        raise UserError(_NO_CHAT)

    def chat_all(self, requests: Sequence[Request], template: str) -> list[str | UserError]:
        return [UserError(_NO_CHAT)] * len(requests)

    def files(self) -> Mapping[str, Path | str]:
        pad, bos, eos, *_ = SPECIALS
        roles = {"unk": pad, "pad": pad, "bos": bos, "eos": eos}
        return word_level_files(self._ids, SPECIALS, self.bos, **roles)
