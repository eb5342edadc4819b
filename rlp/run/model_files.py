"""The small files of an exported model: tokenizer, chat template and generation config.

They reflect the training setup: the chat template that was used, the ids that end training texts,
and the special tokens that the config names. A run writes them to its folder when it begins, so
that a run initialized from it inherits them by copying.
"""

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlp.interop import huggingface
from rlp.interop.init_from import GENERATION
from rlp.run.method import TextMethod
from rlp.runtime.atomic_files import write_whole
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import read_object
from rlp.tokenizers import files as edits
from rlp.tokenizers.files import FILES
from rlp.tokenizers.folder_tokenizer import FolderTokenizer
from rlp.tokenizers.tokenizer import Tokenizer

LOGGER = logging.getLogger(__name__)

IDS = ("bos_token_id", "eos_token_id", "pad_token_id")  # in config.json and GENERATION


def token_ids(tokenizer: Any) -> dict[str, Any]:
    """Return the fields of config.json and generation_config.json that contain token ids."""
    bos = tokenizer.bos[0] if tokenizer.bos else None
    ids = {"bos": bos, "eos": tokenizer.eos, "pad": tokenizer.pad}
    return {f"{role}_token_id": x for role, x in ids.items()}


def small_files(
    method: TextMethod, folder: Path | None, known: bool, data: Mapping[str, str]
) -> dict[str, Path | str]:
    """Return all files of an export except its weights and config.json: name -> content.

    Args:
      method: The tokenizer, chat template and end ids of the run.
      folder: The Hugging Face files of the run or of its initial model; None for none.
      known: Whether the run's tokenizer is that of `folder`, so that its token ids apply.
      data: The fields of config.data, of which "tokenizer", "bos" and "eos" are read.

    Raises:
      UserError: If the tokenizer cannot add the BOS token of the config.
    """
    generation = generation_config(method, folder, known, data)
    files, tokenizer = _tokenizer_files(method, data), method.tokenizer
    in_part = folder is not None and known and huggingface.has_other_parts(folder)
    if in_part and isinstance(tokenizer, FolderTokenizer):
        # transformers selects another class for a language model than for the whole model.
        files = edits.with_class(files, tokenizer.class_name)
    return files | {GENERATION: generation}


def config_ids(
    method: TextMethod,
    original: Mapping[str, Any],
    known: bool,
    files: edits.Files,
    data: Mapping[str, str],
) -> dict[str, Any]:
    """Return the token-id fields of config.json that differ from the original ones.

    Args:
      method: As in `small_files`.
      original: The content of the model's original config.json; empty for none.
      known: As in `small_files`.
      files: The small files of the export.
      data: As in `small_files`.
    """
    if not (original and known):
        ids = edits.object_of(files, GENERATION)
        return {name: ids[name] for name in IDS if name in ids}
    return _with_ends(method, original, original, data)


def eos_ids(generation: Path | str) -> tuple[int, ...]:
    """Return the ids at which `generate` stops, from a generation_config.json."""
    content = edits.object_of({GENERATION: generation}, GENERATION)
    return tuple(edits.ids_of(content.get("eos_token_id")))


def save_small_files(
    folder: Path, method: TextMethod, known: bool, data: Mapping[str, str]
) -> None:
    """Write the small files to a run folder, replacing those of the initial model.

    A tokenizer defined in code has no files. If the config names a tokenizer folder, only the chat
    template is written: transformers may read a tokenizer differently next to another model.

    Args:
      folder: The copied Hugging Face files of the run.
      method: As in `small_files`.
      known: As in `small_files`.
      data: As in `small_files`.

    Raises:
      UserError: As in `small_files`.
    """
    if not isinstance(method.tokenizer, FolderTokenizer):
        return
    files = small_files(method, folder, known, data)
    if method.template is None and method.tokenizer.chat_template is not None:
        LOGGER.info("the run does not use a chat template, so exports will not contain one")
    if data["eos"] and not edits.has_token(files, data["eos"]):
        LOGGER.info(
            "data.eos=%r is not an added token, so the exported tokenizer keeps its eos_token; "
            "generate stops at data.eos nevertheless",
            data["eos"],
        )
    if data["tokenizer"]:
        files = {GENERATION: files[GENERATION]}
        if method.template is not None:
            files[edits.TEMPLATE] = method.template
    if (folder / huggingface.CONFIG).is_file():
        original = huggingface.read_config(folder)
        if changed := config_ids(method, original, known, files, data):
            files[huggingface.CONFIG] = json.dumps(original | changed, indent=2) + "\n"
    write_files(folder, files)
    for name in FILES:
        if name not in files:
            (folder / name).unlink(missing_ok=True)


def check_tokenizer(
    name: str, tokenizer: Tokenizer, files: edits.Files, config: Mapping[str, Any]
) -> None:
    """Refuse an export whose tokenizer behaves differently in transformers than in training.

    Transformers selects the tokenizer class by the model type, and a class may have special rules.

    Args:
      name: The name of the model, for the message.
      tokenizer: The tokenizer of training.
      files: The small files of the export.
      config: The content of the export's config.json.

    Raises:
      UserError: If transformers produces other ids for the text or the BOS.
    """
    pieces = [i for i, text in enumerate(tokenizer.token_bytes()) if text]
    pieces = pieces or list(range(tokenizer.vocab_size))  # word-level tokenizers have no bytes
    texts = ["", tokenizer.decode(pieces[:: len(pieces) // 500 + 1])]
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), {**files, huggingface.CONFIG: json.dumps(config)})
        ids_by_text = huggingface.text_ids(Path(folder), texts)
    after = ids_by_text[0][len(tokenizer.bos) :]  # an EOS after every text is irrelevant here
    for text, ids in zip(texts, ids_by_text, strict=True):
        expected = [*tokenizer.bos, *tokenizer.encode(text), *after]
        if ids != expected:
            pairs = zip(ids, expected, strict=False)
            shorter = min(len(ids), len(expected))
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)
            theirs, ours = (tokenizer.decode(x[at : at + 3]) for x in (ids, expected))
            raise UserError(
                f"{name} cannot be exported: with model_type {config['model_type']!r} in "
                f"config.json, transformers tokenizes differently than training did ({theirs!r} "
                f"instead of {ours!r}); train with a tokenizer of such a model and data.bos=''"
            )


def write_files(folder: Path, files: edits.Files) -> None:
    """Write files to a folder, each atomically; skip a file whose content is already the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        new = content.read_bytes() if isinstance(content, Path) else content.encode()
        path = folder / name
        if path.is_file() and path.read_bytes() == new:
            continue
        write_whole(path, new)


def _tokenizer_files(method: TextMethod, data: Mapping[str, str]) -> dict[str, Path | str]:
    tokenizer = method.tokenizer
    files = dict(tokenizer.files())
    if method.template != tokenizer.chat_template:
        files = edits.with_template(files, method.template)
    if data["eos"] and edits.has_token(files, data["eos"]):
        files = edits.with_token(files, "eos_token", data["eos"])
    if isinstance(tokenizer, FolderTokenizer) and tokenizer.bos != tokenizer.default_bos:
        names = {tokenizer.decode([i]): i for i in tokenizer.bos}
        files = edits.with_leading_tokens(files, names)
        for name in names:
            if edits.has_token(files, name):
                files = edits.with_token(files, "bos_token", name)
    return files


def generation_config(
    method: TextMethod, folder: Path | None, known: bool, data: Mapping[str, str]
) -> Path | str:
    """Return generation_config.json: the original one, with the end ids of the run added.

    Args:
      method: As in `small_files`.
      folder: As in `small_files`.
      known: As in `small_files`.
      data: As in `small_files`.

    Returns:
      The new content, or the path of the original file if nothing changes.
    """
    path = folder / GENERATION if folder else None
    original = _read(path)
    config = _read(folder / huggingface.CONFIG if folder else None)
    if known and (original or any(name in config for name in IDS)):
        start = original or {name: config[name] for name in IDS if name in config}
        changed = start | _with_ends(method, start, config, data)
    else:
        ids = token_ids(method.tokenizer)
        ends = (method.tokenizer.separator, *method.ends)
        changed = original | ids | {"eos_token_id": edits.with_ids(ids["eos_token_id"], ends)}
    if path is not None and original and changed == original:
        return path
    return json.dumps(changed, indent=2) + "\n"


def _with_ends(
    method: TextMethod,
    original: Mapping[str, Any],
    config: Mapping[str, Any],
    data: Mapping[str, str],
) -> dict[str, Any]:
    """Return the token-id fields that the run extends or its config overrides.

    Args:
      method: As in `small_files`.
      original: The original content of the file that is changed.
      config: The content of config.json, whose ids apply if the file has none.
      data: As in `small_files`.
    """
    changed: dict[str, Any] = {}
    if method.ends:
        before = original.get("eos_token_id", config.get("eos_token_id"))
        before = method.tokenizer.eos if before is None else before
        changed["eos_token_id"] = edits.with_ids(before, method.ends)
    if data["bos"] not in ("", "none"):
        changed["bos_token_id"] = token_ids(method.tokenizer)["bos_token_id"]
    return changed


def _read(path: Path | None) -> dict[str, Any]:
    """Read a JSON object from a file; return {} if the file does not exist.

    Raises:
      UserError: If the file does not contain a JSON object.
    """
    return read_object(path) if path and path.is_file() else {}
