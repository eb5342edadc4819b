"""Reading and changing Hugging Face tokenizer folders with the library, whose every error is told
in one line."""

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlp.runtime import disk_errors, strict_json
from rlp.runtime.errors import UserError


def read_folder(folder: str) -> Any:
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
        with named_panics(folder):
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
    listed = read_json(config).get("fast_tokenizer_files") or []
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


@contextmanager
def named_panics(folder: str) -> Iterator[None]:
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


def add_tokens(folder: Path, names: Sequence[str]) -> list[int]:
    """Adds special tokens to the tokenizer in a folder, in place; all else stays as it is.

    Returns:
      Their ids.

    Raises:
      UserError: there is no usable tokenizer, or it has one of them already.
    """
    tokenizer = read_folder(str(folder))
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
    settings = read_json(folder / "tokenizer_config.json")
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
        _write_json(older, read_json(older) | dict(zip(names, ids, strict=True)))
    return ids


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no file."""
    return strict_json.read_object(path) if path.is_file() else {}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(strict_json.readable(content), encoding="utf-8")
