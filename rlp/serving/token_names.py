"""The text of single tokens, and where the tokens of a text begin in it."""

import functools
from collections.abc import Sequence

from rlp.tokenizers.token_text import PARTIAL
from rlp.tokenizers.tokenizer import Tokenizer


class TokenNames:
    """Names the tokens of a tokenizer in responses."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Create it; nothing is computed before it is needed."""
        self._tokenizer = tokenizer

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        return self._tokenizer.token_bytes()

    @functools.cached_property
    def longest(self) -> int | None:
        """The most bytes that a token stands for; None if the tokenizer does not say, as for one
        whose tokens are words."""
        named = [token for token, own in enumerate(self._bytes) if not own]
        if not all(token in self._tokenizer.added for token in named):
            return None
        names = [self._tokenizer.decode([token]).encode() for token in named]
        return max(map(len, [*self._bytes, *names]))

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of a token; b"" if it has none of its own, or does not exist."""
        return self._bytes[token] if token < len(self._bytes) else b""

    def name(self, token: int) -> str:
        """Return the text of a token wherever it is. A part of a character is written "bytes:\\xe2"
        as in OpenAI's interface, and a row of the embedding without a token as "token_id:7"."""
        if token >= self._tokenizer.vocab_size:
            return f"token_id:{token}"
        own = self.bytes_of(token)
        if not own:
            return self._tokenizer.decode([token])
        try:
            return own.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)

    def offsets(self, tokens: Sequence[int]) -> list[int]:
        """Return the index of the first character of each token in the text of all. A part of a
        character is where the character is."""
        found, at = [], 0
        for token, piece in zip(tokens, self._tokenizer.pieces(tokens), strict=True):
            name = self.name(token)
            # A piece may begin with what tokens before it have left: a broken character.
            found.append(at + (len(piece) - len(name) if piece.endswith(name) else 0))
            if piece != PARTIAL or name == PARTIAL:
                at += len(piece) + len(self._tokenizer.between_pieces)
        return found
