"""Text to token ids and back: bytes, or any Hugging Face tokenizer folder.

A thinking tag is one or more tokens: those that a tokenizer gives for the tag when it stands alone.
A thought is closed by exactly these ids. Other ids that read the same (`</` joined with the token
before it) do not close it, nor are they looked for in documents.
"""

import importlib.util
import itertools
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlp.runtime import disk_errors, strict_json
from rlp.runtime.errors import UserError
from rlp.tokenizers import regex_probe
from rlp.tokenizers.chat_templates import Request, renderer

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

# What a tokenizer may consist of, in a folder in the Hugging Face format.
FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model"),
    *("chat_template.jinja", "chat_template.json"),
)

# Shown for a token that holds only the beginning of a character; the character stands on the
# token that completes it.
PARTIAL = "◌"
_NO_CHAT = "bytes have no tokens for a chat template; use a tokenizer folder"
_OPEN_BYTES = 3  # of a character that is not complete yet
_LONGEST_STRETCH = 64  # tokens of broken characters that are decoded together: else, n² of n tokens


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
    chat_template: str | None

    def encode(self, text: str) -> list[int]:
        """Ids of a text, with no bos or eos added."""

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of each text as an int32 array; faster than one by one."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens by their names, broken characters as U+FFFD."""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """A visible string for each token; joined, they read as the text.

        A character that several tokens share stands on the last of them, with `PARTIAL` on the
        others.
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


class ByteTokenizer:
    """UTF-8 bytes as ids 0 … 255, and five special tokens that no text encodes to."""

    vocab_size = 261
    pad = 256
    bos: tuple[int, ...] = (257,)
    eos = separator = 258
    think_open: tuple[int, ...] = (259,)
    think_close: tuple[int, ...] = (260,)
    added: Collection[int] = range(256, 261)
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
        return _pieces(self.decode, ids)

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
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        letters = _byte_letters()
        made = Tokenizer(models.BPE({letters[byte]: byte for byte in range(256)}, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
        names = [name.decode() for name in self._bytes[256:]]
        return _files(made, names, self.bos, dict(zip(("pad", "bos", "eos"), names, strict=False)))


class FolderTokenizer:
    """A Hugging Face tokenizer folder, read without touching the network.

    Attributes:
      put_before: ids that transformers puts before a text when it reads the folder.

    As everywhere in that library, the name of a special token that stands in a text encodes to
    that token, so a corpus may hold `<think>` … `</think>`. Where a tag is no token of its own, it
    is the ids of its text; a thought is closed by exactly those of `</think>`.
    """

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
        self._folder, self._tokenizer = folder, _read_folder(folder)
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
        with _named_panics(folder):
            self.put_before: tuple[int, ...] = _put_before(self._tokenizer)
        self.bos: tuple[int, ...] = self.put_before or _stated_bos(self._tokenizer, Path(folder))
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
        with _named_panics(self._folder):
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._fitting(ids)

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        with _named_panics(self._folder):
            rows = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [np.asarray(self._fitting(row), np.int32) for row in rows]

    def decode(self, ids: Sequence[int]) -> str:
        with _named_panics(self._folder):
            return self._tokenizer.decode(
                [int(i) for i in ids],
                skip_special_tokens=False,
                clean_up_tokenization_spaces=False,
            )

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return _pieces(self.decode, ids)

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
            bytes_of = {letter: byte for byte, letter in _byte_letters().items()}
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
        with _named_panics(self._folder):
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


@contextmanager
def _named_panics(folder: str) -> Iterator[None]:
    """A panic of the library in here as a UserError. It is not an Exception in Python, and its
    class cannot be imported."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"tokenizer {folder}: the library breaks down with it ({reason}); correct its "
            "tokenizer.json, or take another tokenizer"
        ) from error


def _put_before(tokenizer: Any) -> tuple[int, ...]:
    """The ids that a tokenizer of transformers puts before a text by itself.

    Naming a bos_token does not mean that: Qwen2's and SmolLM2's tokenizers name one and put nothing
    before a text; Llama's and Gemma's put theirs.
    """
    # A text that it can write: of its own pieces, where a letter has no token.
    pieces = (tokenizer.decode([i]) for i in range(min(1000, len(tokenizer))))
    for text in itertools.chain(["a"], pieces):
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        whole = tokenizer(text)["input_ids"]
        for at in range(len(whole) - len(plain) + 1) if plain else ():
            if whole[at : at + len(plain)] == plain:
                return tuple(whole[:at])
    raise UserError("the tokenizer writes none of its own tokens; take another one")


def _stated_bos(tokenizer: Any, folder: Path) -> tuple[int, ...]:
    """The bos of a folder that says `add_bos_token` in so many words.

    transformers obeys that, but not where it takes another class for the tokenizer than the folder
    names (DeepSeek-V3's, for one). The model was trained with it all the same.
    """
    states = _read_json(folder / "tokenizer_config.json").get("add_bos_token") is True
    return (tokenizer.bos_token_id,) if states and tokenizer.bos_token_id is not None else ()


def load(spec: str, bos: str = "", eos: str = "", separator: str = "", rows: int = 0) -> Tokenizer:
    """The tokenizer that `data.tokenizer` names: "bytes", or the path of a folder.

    Args:
      spec: its name.
      bos, eos, separator, rows: as of `FolderTokenizer`; bytes have their own.

    Raises:
      UserError: a path that is no folder, a folder that cannot be read, a tokenizer that cannot
        write the thinking tags, and a token that it does not have.
    """
    if spec == "bytes":
        for field, name in (("bos", bos), ("eos", eos), ("separator", separator)):
            if name:
                raise UserError.of(
                    f"data.{field}", name, "; bytes have tokens of their own: leave it ''"
                )
        return ByteTokenizer()
    folder = os.path.expanduser(spec)
    if not os.path.isdir(folder):
        raise UserError(
            f'data.tokenizer: no folder {spec!r}; give "bytes" or the path of a Hugging Face '
            "tokenizer folder",
            field="data.tokenizer",
            value=spec,
        )
    return FolderTokenizer(folder, bos, eos, separator, rows)


def _read_folder(folder: str) -> Any:
    """A fast tokenizer from a folder; the import stands here since it takes seconds."""
    # Without torch the library says so at import, which is no concern of a tokenizer.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            f"tokenizer {folder}: reading it needs `pip install transformers`"
        ) from error
    _refuse_files_elsewhere(Path(folder) / "tokenizer_config.json")
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        # Its own limit on length only makes it warn: documents are cut into windows here.
        with _named_panics(folder):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, model_max_length=2**62
            )
    except UserError:
        raise
    except Exception as error:  # the library's parsers raise every class, even Exception itself
        reason = " ".join(str(error).split())[:200]
        if _lacks_sentencepiece(Path(folder)):
            raise UserError(
                f"tokenizer {folder}: it has tokenizer.model alone, and reading that needs "
                "`pip install sentencepiece protobuf`; install them, or add its tokenizer.json"
            ) from error
        raise UserError(f"tokenizer {folder}: cannot be read: {reason}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    if not tokenizer.is_fast:
        raise UserError(
            f"tokenizer {folder}: no fast tokenizer in it; convert it to tokenizer.json"
        )
    return tokenizer


def _refuse_files_elsewhere(config: Path) -> None:
    """Raises UserError if the config of a tokenizer has transformers read a file outside of its
    folder. (Of other fields that hold paths transformers takes no notice.)"""
    listed = _read_json(config).get("fast_tokenizer_files") or []
    named = listed if isinstance(listed, list) else [listed]
    for name in named:
        if not (isinstance(name, str) and disk_errors.is_inside(name)):
            raise UserError(
                f"{config} names the file {name!r}, which is not inside of its folder; remove "
                "fast_tokenizer_files from it"
            )


def _lacks_sentencepiece(folder: Path) -> bool:
    """Whether a folder holds a SentencePiece model alone, and the library for it is absent."""
    alone = (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file()
    return alone and importlib.util.find_spec("sentencepiece") is None


def word_level_files(
    ids: Mapping[str, int], specials: Sequence[str], before: Sequence[int] = (), **named: str
) -> Mapping[str, Path | str]:
    """A tokenizer of one token a word, as the files of a folder in the Hugging Face format.

    Args:
      ids: of all words.
      specials: those of them that no text is split from: found wherever they stand.
      before: ids that it puts before a text.
      named: which of these are unk, pad, bos, eos.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel(dict(ids), unk_token=named["unk"]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _files(made, specials, before, named)


def _files(
    made: Any, specials: Sequence[str], before: Sequence[int], named: Mapping[str, str]
) -> dict[str, Path | str]:
    """A tokenizer of the library `tokenizers` as files, with its special tokens added, and with
    those that it puts before a text."""
    from tokenizers import processors

    made.add_special_tokens(list(specials))
    if before:
        names = [made.id_to_token(i) for i in before]
        made.post_processor = processors.TemplateProcessing(
            single=" ".join([*names, "$A"]),
            pair=" ".join([*names, "$A", "$B"]),
            special_tokens=list(zip(names, before, strict=True)),
        )
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {f"{role}_token": name for role, name in named.items()}
    return {
        "tokenizer.json": made.to_str(),
        "tokenizer_config.json": json.dumps(config, indent=2),
    }


def add_tokens(folder: Path, names: Sequence[str]) -> list[int]:
    """Adds special tokens to the tokenizer in a folder, in place; all else stays as it is.

    Returns:
      Their ids.

    Raises:
      UserError: there is no usable tokenizer, or it has one of them already.
    """
    tokenizer = _read_folder(str(folder))
    known = tokenizer.get_vocab()
    for name in names:
        if not name or name in known:
            reason = (
                f"it is token {known[name]} of the tokenizer already" if name else "it is empty"
            )
            raise UserError(f"{name!r} cannot be added: {reason}")
    tokenizer.add_tokens(list(names), special_tokens=True)
    ids = tokenizer.convert_tokens_to_ids(list(names))
    (folder / "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    # What readers of other versions look at, besides.
    settings = _read_json(folder / "tokenizer_config.json")
    settings.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    if "added_tokens_decoder" in settings:
        plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
        added = {
            str(i): {"content": name} | plain | {"special": True}
            for name, i in zip(names, ids, strict=True)
        }
        settings["added_tokens_decoder"] |= added
    _write_json(folder / "tokenizer_config.json", settings)
    if (older := folder / "added_tokens.json").is_file():
        _write_json(older, _read_json(older) | dict(zip(names, ids, strict=True)))
    return ids


def _read_json(path: Path) -> dict[str, Any]:
    return strict_json.read_object(path) if path.is_file() else {}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(strict_json.readable(content), encoding="utf-8")


def _byte_letters() -> dict[int, str]:
    """The letter that byte-level BPE writes for each byte: a byte without a printable character of
    its own has one assigned to it, beyond 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + place) for place, byte in enumerate(others)}


def _pieces(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> list[str]:
    """The text that each token adds to what stands before it.

    Decoding a token alone would lose the space that some tokenizers put before a word, so each is
    decoded after the stretch before it.
    """
    pieces: list[str] = []
    before, start = 0, 0  # ids[before:start] was the last whole stretch, ids[start:] is open
    shown = 0  # characters of decode(ids[before:]) that have been given to a token
    for end in range(1, len(ids) + 1):
        text = decode(ids[before:end])
        # Broken characters at the end, one for each of its bytes with some tokenizers, may be one
        # that the next tokens complete.
        whole = text.rstrip("\N{REPLACEMENT CHARACTER}") if end < len(ids) else text
        long = end - start >= _LONGEST_STRETCH
        if long:  # all but the last few are broken for good
            whole = text[: max(len(whole), len(text) - _OPEN_BYTES)]
        pieces.append(whole[shown:] or PARTIAL)
        shown = max(shown, len(whole))
        if whole == text or long:
            before, start = start, end
            shown = len(decode(ids[before:start])) - (len(text) - len(whole))
    return pieces
