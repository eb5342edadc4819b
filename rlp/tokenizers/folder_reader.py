"""Load and edit Hugging Face tokenizer folders with transformers, and report each of its errors on
one line."""

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlp.runtime import disk_errors, strict_json
from rlp.runtime.errors import UserError

AUTO = "AutoTokenizer"
# The classes of transformers that the tokenizers of supported models name, and those that it loads.
CLASSES = {
    **dict.fromkeys(("PreTrainedTokenizerFast", "TokenizersBackend"), "TokenizersBackend"),
    **dict.fromkeys(("GPT2Tokenizer", "GPT2TokenizerFast"), "GPT2Tokenizer"),
    **dict.fromkeys(("Qwen2Tokenizer", "Qwen2TokenizerFast"), "Qwen2Tokenizer"),
    **dict.fromkeys(("GemmaTokenizer", "GemmaTokenizerFast"), "GemmaTokenizer"),
}
NAMED = ("", "llama", "qwen3", "gemma3_text")  # types of models whose tokenizers have that class …
FIXED = {  # … and those whose tokenizers have this class, whatever they name
    "qwen2": "Qwen2Tokenizer",
    "olmo2": "TokenizersBackend",
    "olmo3": "TokenizersBackend",
}


def read_folder(folder: str) -> Any:
    """Load a fast tokenizer from a folder. Imports transformers here, because that takes seconds.

    Raises:
      UserError: If the folder does not contain a usable tokenizer.
    """
    # Without torch, transformers prints a warning at import that does not matter for tokenizers.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            f"tokenizer {folder}: transformers is not installed; run `pip install transformers`"
        ) from error
    _refuse_files_elsewhere(Path(folder) / "tokenizer_config.json")
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        # model_max_length would only cause warnings: documents are cut into windows later.
        with named_panics(folder):
            tokenizer = getattr(transformers, loading_class(Path(folder))).from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, model_max_length=2**62
            )
    except UserError:
        raise
    except Exception as error:  # the parsers raise many classes, even Exception itself
        reason = " ".join(str(error).split())[:200]
        if _lacks_sentencepiece(Path(folder)):
            raise UserError(
                f"tokenizer {folder}: it has only a tokenizer.model; run `pip install "
                "sentencepiece protobuf` to read it, or add a tokenizer.json"
            ) from error
        raise UserError(
            f"tokenizer {folder}: cannot be read: {reason}; use a folder with a tokenizer.json "
            "that transformers can load"
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    if not tokenizer.is_fast:
        raise UserError(
            f"tokenizer {folder}: it is not a fast tokenizer; convert it to a tokenizer.json"
        )
    return tokenizer


def loading_class(folder: Path) -> str:
    """Return the class of transformers that loads a tokenizer: the one that AutoTokenizer chooses,
    or AutoTokenizer itself if the choice is not known here.

    AutoTokenizer imports the configurations of models, and torch with them, which takes seconds.
    """
    config, model = (read_json(folder / name) for name in ("tokenizer_config.json", "config.json"))
    named, kind = str(config.get("tokenizer_class")), str(model.get("model_type", ""))
    custom = "auto_map" in config or "auto_map" in model
    if custom or named not in CLASSES or not (folder / "tokenizer.json").is_file():
        return AUTO
    return FIXED.get(kind, CLASSES[named] if kind in NAMED else AUTO)


def _refuse_files_elsewhere(config: Path) -> None:
    """Raise UserError if the config of a tokenizer refers to a file outside its folder.

    transformers ignores the other fields that contain paths.
    """
    value = read_json(config).get("fast_tokenizer_files") or []
    names = value if isinstance(value, list) else [value]
    for name in names:
        if not (isinstance(name, str) and disk_errors.is_inside(name)):
            raise UserError(
                f"{config} names the file {name!r}, which is not inside its folder; remove "
                "fast_tokenizer_files from that config"
            )


def _lacks_sentencepiece(folder: Path) -> bool:
    """Whether a folder has only a SentencePiece model, and sentencepiece is not installed."""
    only_model = (folder / "tokenizer.model").is_file() and not (
        folder / "tokenizer.json"
    ).is_file()
    return only_model and importlib.util.find_spec("sentencepiece") is None


@contextmanager
def named_panics(folder: str) -> Iterator[None]:
    """Convert a panic of the `tokenizers` library, which is written in Rust, into a UserError.

    A panic is a BaseException, and its class cannot be imported.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"tokenizer {folder}: the tokenizers library crashes on it ({reason}); correct its "
            "tokenizer.json, or use another tokenizer"
        ) from error


def add_tokens(folder: Path, names: Sequence[str]) -> list[int]:
    """Add special tokens to the tokenizer in a folder, in place.

    Returns:
      The ids of the new tokens.

    Raises:
      UserError: If the folder has no usable tokenizer, or a token exists already or is empty.
    """
    tokenizer = read_folder(str(folder))
    known = tokenizer.get_vocab()
    for name in names:
        if not name or name in known:
            reason = (
                f"it is token {known[name]} of the tokenizer already" if name else "it is empty"
            )
            raise UserError(f"{name!r} cannot be added: {reason}; leave it out")
    tokenizer.add_tokens(list(names), special_tokens=True)
    ids = tokenizer.convert_tokens_to_ids(list(names))
    (folder / "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    # Other versions of transformers read these files.
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
    """Return the JSON object in a file; {} if the file does not exist."""
    return strict_json.read_object(path) if path.is_file() else {}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(strict_json.readable(content), encoding="utf-8")
