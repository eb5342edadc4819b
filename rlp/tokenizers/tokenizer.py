"""The protocol that every tokenizer obeys, and the thinking tags.

A thinking tag is one or more tokens: those that a tokenizer gives for the tag when it stands alone.
A thought is closed by exactly these ids. Other ids that read the same (`</` joined with the token
before it) do not close it, nor are they looked for in documents.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlp.runtime.errors import UserError
from rlp.tokenizers.chat_templates import Request

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"


class Tokenizer(Protocol):
    """What the rest of the code asks of a tokenizer.

    Attributes:
      vocab_size: every id is smaller.
      pad: id that fills rows; may equal `eos`.
      eos: id that ends a text.
      bos: ids that stand before every text, () for none: what the model's own tokenizer puts there
        (not what it names its bos_token), unless `data.bos` says otherwise.
      separator: id that stands after every document; may equal `eos`.
      think_open: ids of `<think>`.
      think_close: ids of `</think>`.
      added: ids of its added tokens: their names are found before a text is split further.
      between_pieces: what `pieces` are joined with to read as the text.
      chat_template: Jinja, of its own; None for none.
    """

    vocab_size: int
    pad: int
    eos: int
    bos: tuple[int, ...]
    separator: int
    think_open: tuple[int, ...]
    think_close: tuple[int, ...]
    added: Collection[int]
    between_pieces: str
    chat_template: str | None

    def encode(self, text: str) -> list[int]:
        """Ids of a text, with no bos or eos added."""

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of each text as an int32 array; faster than one by one."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens by their names, broken characters as U+FFFD."""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """A visible string for each token; joined with `between_pieces`, they read as the text.

        A character that several tokens share stands on the last of them, with
        `token_text.PARTIAL` on the others.
        """

    def token_bytes(self) -> list[bytes]:
        """The bytes of text that each id stands for, where they do not depend on its neighbours;
        none for special tokens and for the thinking tags."""

    def encode_spans(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """`encode` of each text, int32 [tokens], and the characters of the text that each token
        covers: the first, and the one after the last, int64 [tokens, 2]."""

    def chat(self, messages: Sequence[Mapping[str, Any]], template: str, ask: bool) -> str:
        """Messages, each with a role and a content, as the text that a Jinja template makes of
        them; at the end what it puts before an answer, where one is asked for.

        Raises:
          UserError: the template cannot be read, refuses the messages, or exceeds a limit of
            `rlp.tokenizers.chat_templates`.
        """

    def chat_all(self, requests: Sequence[Request], template: str) -> list[str | UserError]:
        """`chat` of several messages, each with whether an answer is asked for; faster than one by
        one. Errors stand in the place of texts; after a `LimitExceeded` nothing follows."""

    def files(self) -> Mapping[str, Path | str]:
        """The tokenizer in the Hugging Face format: name of a file to its content, or a copy."""
