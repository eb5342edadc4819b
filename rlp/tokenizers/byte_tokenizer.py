"""A tokenizer without a vocabulary, whose ids are the UTF-8 bytes of a text."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlp.runtime.errors import UserError
from rlp.tokenizers.build_files import byte_level_files
from rlp.tokenizers.chat_templates import Request
from rlp.tokenizers.token_text import pieces_of
from rlp.tokenizers.tokenizer import THINK_CLOSE, THINK_OPEN

_NO_CHAT = "the byte tokenizer has no tokens for a chat template; use a tokenizer folder"


class ByteTokenizer:
    """UTF-8 bytes with ids 0 … 255, and five special tokens that no text encodes to.

    See `Tokenizer` for the attributes and methods.
    """

    vocab_size = 261
    pad = 256
    bos: tuple[int, ...] = (257,)
    bos_token: int | None = 257
    eos = separator = 258
    think_open: tuple[int, ...] = (259,)
    think_close: tuple[int, ...] = (260,)
    added: Collection[int] = range(256, 261)
    between_pieces = ""
    chat_template: str | None = None

    def __init__(self) -> None:
        names = ("<pad>", "<bos>", "<eos>", THINK_OPEN, THINK_CLOSE)
        self._bytes = [bytes([i]) for i in range(256)] + [name.encode() for name in names]

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join([self._bytes[i] for i in ids]).decode(errors="replace")

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return pieces_of(self.decode, ids)

    def token_bytes(self) -> list[bytes]:
        return [*self._bytes[:256], *[b""] * (self.vocab_size - 256)]

    def encode_spans(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        spans = []
        for text in texts:
            sizes = [len(character.encode()) for character in text]
            first = np.repeat(np.arange(len(text)), sizes)
            spans.append(np.stack([first, first + 1], axis=1))
        return list(zip(self.encode_all(texts), spans, strict=True))

    def chat(self, messages: Sequence[Mapping[str, Any]], template: str, ask: bool) -> str:
        raise UserError(_NO_CHAT)

    def chat_all(self, requests: Sequence[Request], template: str) -> list[str | UserError]:
        return [UserError(_NO_CHAT)] * len(requests)

    def files(self) -> Mapping[str, Path | str]:
        names = [name.decode() for name in self._bytes[256:]]
        pad, bos, eos, *_ = names
        return byte_level_files(names, self.bos, pad=pad, bos=bos, eos=eos)
