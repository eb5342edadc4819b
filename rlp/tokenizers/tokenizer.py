"""The protocol of all tokenizers, and the thinking tags.

A thinking tag is one or more tokens: the ids to which a tokenizer encodes the tag on its own. A
thought is closed by exactly these ids. Other ids with the same text (such as `</` merged with the
token before it) do not close it, and they are not searched for in documents.
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
    """The interface of a tokenizer.

    Attributes:
      vocab_size: All ids are smaller.
      pad: Id that fills rows; may equal `eos`.
      eos: Id that ends a text.
      bos: Ids that precede every text, () for none: those that the model's tokenizer puts there
        (which may not include its bos_token), unless `data.bos` overrides them.
      bos_token: Id of its bos_token, even if it precedes no text; None if it has none.
      separator: Id that follows every document; may equal `eos`.
      think_open: Ids of `<think>`.
      think_close: Ids of `</think>`.
      added: Ids of the added tokens, whose names are recognized before a text is split.
      between_pieces: String with which `pieces` are joined to give the text.
      chat_template: Jinja source of the tokenizer's own template; None if it has none.
    """

    vocab_size: int
    pad: int
    eos: int
    bos: tuple[int, ...]
    bos_token: int | None
    separator: int
    think_open: tuple[int, ...]
    think_close: tuple[int, ...]
    added: Collection[int]
    between_pieces: str
    chat_template: str | None

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without BOS or EOS."""

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode each text to an int32 array [tokens]; faster than one by one."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, with special tokens by name and broken characters as U+FFFD."""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return a visible string for each token; joined with `between_pieces` they are the text.

        A character that is split over several tokens is shown for the last of them; the others show
        `token_text.PARTIAL`.
        """

    def token_bytes(self) -> list[bytes]:
        """Return the bytes of the text of each id if they do not depend on its neighbors; b"" for
        special tokens and thinking tags."""

    def encode_spans(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Encode each text and locate its tokens.

        Returns:
          For each text its ids, int32 [tokens], and for each token the index of its first character
          and the index after its last character, int64 [tokens, 2].
        """

    def chat(self, messages: Sequence[Mapping[str, Any]], template: str, ask: bool) -> str:
        """Render a conversation with a Jinja template.

        Args:
          messages: Messages, each with a role and a content.
          template: The Jinja source.
          ask: Whether to end the text with the prompt of an answer.

        Raises:
          UserError: If the template is invalid, rejects the messages, or exceeds a limit of
            `rlp.tokenizers.chat_templates`.
        """

    def chat_all(self, requests: Sequence[Request], template: str) -> list[str | UserError]:
        """Render several conversations; faster than one by one.

        Args:
          requests: Conversations, each with its value of `ask`.
          template: The Jinja source.

        Returns:
          For each conversation its text or its error. A `LimitExceeded` is the last element.
        """

    def files(self) -> Mapping[str, Path | str]:
        """Return the tokenizer in the Hugging Face format: file names, and contents or paths."""
