"""Any tokenizer that transformers reads from a folder."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlp.runtime.errors import UserError
from rlp.tokenizers import regex_probe
from rlp.tokenizers.bos import put_before, stated_bos
from rlp.tokenizers.chat_templates import Request, renderer
from rlp.tokenizers.files import FILES
from rlp.tokenizers.folder_reader import named_panics, read_folder
from rlp.tokenizers.token_text import byte_letters, pieces_of
from rlp.tokenizers.tokenizer import THINK_CLOSE, THINK_OPEN


class FolderTokenizer:
    """A Hugging Face tokenizer folder, read without touching the network.

    Attributes:
      put_before: ids that transformers puts before a text when it reads the folder.

    As everywhere in that library, the name of a special token that stands in a text encodes to
    that token, so a corpus may hold `<think>` … `</think>`. Where a tag is no token of its own, it
    is the ids of its text; a thought is closed by exactly those of `</think>`.
    """

    between_pieces = ""

    def __init__(
        self, folder: str, bos: str = "", eos: str = "", separator: str = "", rows: int = 0
    ) -> None:
        """Reads a folder.

        Args:
          folder: path.
          bos: token before every text; "" for what the tokenizer itself puts there, "none" for
            nothing.
          eos: token that ends a text; "" for the folder's eos_token. A folder made for chat may
            name the end of a *turn* there.
          separator: token after every document; "" for eos.
          rows: of the embedding; 0 for as many as there are ids. Special tokens may have an id
            beyond, as that for images in Gemma 3's: a text that holds one is refused.

        Raises:
          UserError: the folder holds no usable tokenizer, or not these tokens, or has more ids than
            there are rows.
        """
        regex_probe.check(folder)
        self._folder, self._tokenizer = folder, read_folder(folder)
        vocabulary = self._tokenizer.get_vocab()
        special = self._tokenizer.get_added_vocab()
        self.vocab_size = max(vocabulary.values()) + 1
        if rows and max(i for name, i in vocabulary.items() if name not in special) < rows:
            self.vocab_size = min(self.vocab_size, rows)
        self.think_open = self._tag(THINK_OPEN)
        self.think_close = self._tag(THINK_CLOSE)
        ends = self._token("data.eos", eos) if eos else self._tokenizer.eos_token_id
        if ends is None:
            raise UserError(
                f"tokenizer {folder}: it names no token that ends a text (eos_token); set data.eos",
                field="data.eos",
                value="",
            )
        self.eos: int = ends
        self.separator = self._token("data.separator", separator) if separator else self.eos
        with named_panics(folder):
            self.put_before: tuple[int, ...] = put_before(self._tokenizer)
        self.bos: tuple[int, ...] = self.put_before or stated_bos(self._tokenizer, Path(folder))
        if bos:
            self.bos = () if bos == "none" else (self._token("data.bos", bos),)
        self.added: Collection[int] = set(self._tokenizer.added_tokens_decoder)
        # What a template calls bos_token and eos_token, where they are not the folder's.
        given = {"bos_token": bos, "eos_token": eos}
        self._named = {role: name for role, name in given.items() if name in special}
        own = self._tokenizer.chat_template
        self.chat_template: str | None = own.get("default") if isinstance(own, dict) else own
        pad = self._tokenizer.pad_token_id
        self.pad: int = self.eos if pad is None else pad
        self._fitting([self.pad, *self.bos, self.eos, self.separator])

    def encode(self, text: str) -> list[int]:
        with named_panics(self._folder):
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._fitting(ids)

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        with named_panics(self._folder):
            rows = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [np.asarray(self._fitting(row), np.int32) for row in rows]

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
        """See `Tokenizer`: of byte-level BPE, and of pieces with "▁" for a space and "<0xE2>" for a
        byte. Other kinds (whole words) have none: how a token reads depends on its neighbours."""
        made = self._tokenizer.backend_tokenizer
        decoder = json.loads(made.to_str())["decoder"] or {}
        kinds = {part["type"] for part in [decoder, *decoder.get("decoders", [])] if part}
        # Added tokens that are not special are text: Gemma's line breaks, for example. They are not
        # written in the letters of byte-level BPE, but may hold a "▁" for a space.
        added = made.get_added_tokens_decoder()
        if "ByteLevel" in kinds:
            bytes_of = {letter: byte for byte, letter in byte_letters().items()}
            read = lambda piece: bytes(map(bytes_of.__getitem__, piece))
        elif "ByteFallback" in kinds:
            byte = re.compile(r"<0x([0-9A-F]{2})>")
            read = lambda piece: (
                bytes([int(found[1], 16)])
                if (found := byte.fullmatch(piece))
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
            piece = made.id_to_token(i)
            return b"" if piece is None else read(piece)

        return [bytes_of_token(i) for i in range(self.vocab_size)]

    def encode_spans(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        with named_panics(self._folder):
            encoded = self._tokenizer(
                list(texts), add_special_tokens=False, return_offsets_mapping=True
            )
        rows = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [
            (np.asarray(self._fitting(ids), np.int32), np.array(spans, np.int64).reshape(-1, 2))
            for ids, spans in rows
        ]

    def chat(self, messages: Sequence[Mapping[str, Any]], template: str, ask: bool) -> str:
        (found,) = self.chat_all([(list(messages), ask)], template)
        if isinstance(found, UserError):
            raise found
        return found

    def chat_all(self, requests: Sequence[Request], template: str) -> list[str | UserError]:
        own = template == self.chat_template
        source = f"of the tokenizer {self._folder}" if own else "that data.chat_template names"
        named = self._tokenizer.special_tokens_map | self._named
        return renderer().render(template, requests, named, f"the chat template {source}")

    def files(self) -> Mapping[str, Path | str]:
        paths = {name: Path(self._folder) / name for name in FILES}
        return {name: path for name, path in paths.items() if path.is_file()}

    def _fitting(self, ids: list[int]) -> list[int]:
        """The ids, none of which may be without a row in the embedding."""
        if ids and (most := max(ids)) >= self.vocab_size:
            raise UserError(
                f"token {self.decode([most])!r} is {most}, and the embedding has "
                f"{self.vocab_size} rows; take it out of the text or the tokenizer"
            )
        return ids

    def _tag(self, tag: str) -> tuple[int, ...]:
        """Ids of a thinking tag that stands alone."""
        ids = self.encode(tag)
        if (text := self.decode(ids)) != tag:
            raise UserError(
                f"tokenizer {self._folder}: {tag} cannot be written with it (it reads {text!r}); "
                f"add {THINK_OPEN} and {THINK_CLOSE} to its added tokens"
            )
        return tuple(ids)

    def _token(self, field: str, name: str) -> int:
        """The id of a token by its name."""
        ids = self.encode(name)
        if len(ids) != 1 or self.decode(ids) != name:
            raise UserError.of(field, name, f"is not one token of the tokenizer {self._folder}")
        return ids[0]
