"""Tokenizers that transformers loads from a folder."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlp.runtime.errors import UserError
from rlp.tokenizers import regex_probe
from rlp.tokenizers.bos import declared_bos, leading_ids
from rlp.tokenizers.chat_templates import Request, renderer
from rlp.tokenizers.files import FILES
from rlp.tokenizers.folder_reader import named_panics, read_folder
from rlp.tokenizers.token_text import byte_letters, pieces_of
from rlp.tokenizers.tokenizer import THINK_CLOSE, THINK_OPEN


class FolderTokenizer:
    """A Hugging Face tokenizer, loaded from a folder without network access.

    See `Tokenizer` for the other attributes and the methods.

    Attributes:
      class_name: Name of the class of transformers that loaded the folder.
      default_bos: Ids that transformers puts before every text if it loads the folder.

    As in transformers, the name of a special token in a text encodes to that token, so a corpus may
    contain `<think>` … `</think>`. If a tag is not a token, it is the ids of its text, and exactly
    the ids of `</think>` close a thought.
    """

    between_pieces = ""

    def __init__(
        self, folder: str, bos: str = "", eos: str = "", separator: str = "", rows: int = 0
    ) -> None:
        """Load a folder.

        Args:
          folder: Path of the folder.
          bos: Token before every text; "" for the default of the tokenizer, "none" for no token.
          eos: Token that ends a text; "" for the eos_token of the folder, which may be the end of a
            *turn* if the model was trained for chat.
          separator: Token after every document; "" for eos.
          rows: Number of rows of the embedding; 0 for the number of ids. The ids of special tokens
            may exceed it, such as that of images in Gemma 3; a text with such a token is refused.

        Raises:
          UserError: If the folder has no usable tokenizer, lacks one of these tokens, or has more
            ids than the embedding has rows.
        """
        regex_probe.check(folder)
        self._folder, self._tokenizer = folder, read_folder(folder)
        self.class_name: str = type(self._tokenizer).__name__
        vocabulary = self._tokenizer.get_vocab()
        special = self._tokenizer.get_added_vocab()
        self.vocab_size = max(vocabulary.values()) + 1
        if rows and max(i for name, i in vocabulary.items() if name not in special) < rows:
            self.vocab_size = min(self.vocab_size, rows)
        self.think_open = self._tag(THINK_OPEN)
        self.think_close = self._tag(THINK_CLOSE)
        eos_id = self._token("data.eos", eos) if eos else self._tokenizer.eos_token_id
        if eos_id is None:
            raise UserError(
                f"tokenizer {folder}: it has no token that ends a text (eos_token); set data.eos",
                field="data.eos",
                value="",
            )
        self.eos: int = eos_id
        self.separator = self._token("data.separator", separator) if separator else self.eos
        with named_panics(folder):
            self.default_bos: tuple[int, ...] = leading_ids(self._tokenizer)
        self.bos: tuple[int, ...] = self.default_bos or declared_bos(self._tokenizer, Path(folder))
        if bos:
            self.bos = () if bos == "none" else (self._token("data.bos", bos),)
        self.bos_token: int | None = self.bos[-1] if self.bos else self._tokenizer.bos_token_id
        self.added: Collection[int] = set(self._tokenizer.added_tokens_decoder)
        # Overrides for the variables bos_token and eos_token of chat templates.
        overrides = {"bos_token": bos, "eos_token": eos}
        self._roles = {role: name for role, name in overrides.items() if name in special}
        template = self._tokenizer.chat_template
        self.chat_template: str | None = (
            template.get("default") if isinstance(template, dict) else template
        )
        pad = self._tokenizer.pad_token_id
        self.pad: int = self.eos if pad is None else pad
        self._check_ids([self.pad, *self.bos, self.eos, self.separator])

    def encode(self, text: str) -> list[int]:
        with named_panics(self._folder):
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._check_ids(ids)

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        with named_panics(self._folder):
            rows = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [np.asarray(self._check_ids(row), np.int32) for row in rows]

    def decode(self, ids: Sequence[int]) -> str:
        with named_panics(self._folder):
            return self._tokenizer.decode(
                [int(i) for i in ids],
                skip_special_tokens=False,
                clean_up_tokenization_spaces=False,
            )

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return pieces_of(self.decode, ids)

    def token_bytes(self) -> list[bytes]:
        """See `Tokenizer`. Supports byte-level BPE, and pieces with "▁" for a space and "<0xE2>"
        for a byte. Tokens of other kinds (whole words) have no bytes of their own, because their
        text depends on their neighbors."""
        backend = self._tokenizer.backend_tokenizer
        decoder = json.loads(backend.to_str())["decoder"] or {}
        kinds = {part["type"] for part in [decoder, *decoder.get("decoders", [])] if part}
        # Added tokens that are not special are text, such as Gemma's line breaks. They are not
        # written in the letters of byte-level BPE, but may contain a "▁" for a space.
        added = backend.get_added_tokens_decoder()
        if "ByteLevel" in kinds:
            bytes_of = {letter: byte for byte, letter in byte_letters().items()}
            read = lambda piece: bytes(map(bytes_of.__getitem__, piece))
        elif "ByteFallback" in kinds:
            byte = re.compile(r"<0x([0-9A-F]{2})>")
            read = lambda piece: (
                bytes([int(match[1], 16)])
                if (match := byte.fullmatch(piece))
                else piece.replace("▁", " ").encode()
            )
        else:
            read = lambda piece: b""

        tags = {tag[0] for tag in (self.think_open, self.think_close) if len(tag) == 1}

        def bytes_of_token(i: int) -> bytes:
            if i in tags:
                return b""
            if i in added and added[i].special:
                return b""
            if i in added and "ByteFallback" not in kinds:
                return added[i].content.encode()
            piece = backend.id_to_token(i)
            return b"" if piece is None else read(piece)

        return [bytes_of_token(i) for i in range(self.vocab_size)]

    def encode_spans(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        with named_panics(self._folder):
            encoded = self._tokenizer(
                list(texts), add_special_tokens=False, return_offsets_mapping=True
            )
        rows = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [
            (np.asarray(self._check_ids(ids), np.int32), np.array(spans, np.int64).reshape(-1, 2))
            for ids, spans in rows
        ]

    def chat(self, messages: Sequence[Mapping[str, Any]], template: str, ask: bool) -> str:
        (result,) = self.chat_all([(list(messages), ask)], template)
        if isinstance(result, UserError):
            raise result
        return result

    def chat_all(self, requests: Sequence[Request], template: str) -> list[str | UserError]:
        is_default = template == self.chat_template
        source = f"of the tokenizer {self._folder}" if is_default else "in data.chat_template"
        roles = self._tokenizer.special_tokens_map | self._roles
        return renderer().render(template, requests, roles, f"the chat template {source}")

    def files(self) -> Mapping[str, Path | str]:
        paths = {name: Path(self._folder) / name for name in FILES}
        return {name: path for name, path in paths.items() if path.is_file()}

    def _check_ids(self, ids: list[int]) -> list[int]:
        """Return `ids`, or raise UserError if the embedding has no row for one of them."""
        if ids and (largest := max(ids)) >= self.vocab_size:
            raise UserError(
                f"token {self.decode([largest])!r} has the id {largest}, but the embedding has "
                f"{self.vocab_size} rows; remove the token from the text or the tokenizer"
            )
        return ids

    def _tag(self, tag: str) -> tuple[int, ...]:
        """Return the ids of a thinking tag on its own."""
        ids = self.encode(tag)
        if (text := self.decode(ids)) != tag:
            raise UserError(
                f"tokenizer {self._folder}: {tag} cannot be encoded with it (it decodes to "
                f"{text!r}); add {THINK_OPEN} and {THINK_CLOSE} to its added tokens"
            )
        return tuple(ids)

    def _token(self, field: str, name: str) -> int:
        """Return the id of a token, given its name."""
        ids = self.encode(name)
        if len(ids) != 1 or self.decode(ids) != name:
            raise UserError.of(
                field,
                name,
                f"is not one token of the tokenizer {self._folder}; use the name of a token",
            )
        return ids[0]
