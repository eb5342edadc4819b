"""The small files of a model, as an export has them: tokenizer, template, generation config.

What a run trains with goes into them: the chat template that it used, the ids that end what it
learnt, and the tokens that its config names. They are put into the run's folder when it begins, so
a run that starts from it inherits them by copying.
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
    """The fields of config.json and generation_config.json that name tokens."""
    bos = tokenizer.bos[0] if tokenizer.bos else None
    ids = {"bos": bos, "eos": tokenizer.eos, "pad": tokenizer.pad}
    return {f"{role}_token_id": x for role, x in ids.items()}


def small_files(
    made: TextMethod, folder: Path | None, known: bool, named: Mapping[str, str]
) -> dict[str, Path | str]:
    """Name to content of all that an export has beside its weights and its config.json.

    Args:
      made: the tokenizer, the template and the ends of the run.
      folder: of the small files that the run has or starts from; None for none.
      known: whether the run's tokenizer is the one that the folder's ids are of.
      named: fields of config.data, of which "tokenizer", "bos" and "eos" are read.

    Raises:
      UserError: the tokenizer cannot put the bos of the config before a text.
    """
    generation = generation_config(made, folder, known, named)
    return _tokenizer_files(made, named) | {GENERATION: generation}


def config_ids(
    made: TextMethod,
    given: Mapping[str, Any],
    known: bool,
    files: edits.Files,
    named: Mapping[str, str],
) -> dict[str, Any]:
    """The fields of config.json that name tokens, where they differ from those given.

    Args:
      made, known, named: as of `small_files`.
      given: content of the config.json that the model came with; empty for none.
      files: the small files of the export.
    """
    if not (given and known):
        ids = edits.object_of(files, GENERATION)
        return {name: ids[name] for name in IDS if name in ids}
    return _with_ends(made, given, given, named)


def eos_ids(generation: Path | str) -> tuple[int, ...]:
    """The ids at which `generate` stops, as a generation_config.json says."""
    content = edits.object_of({GENERATION: generation}, GENERATION)
    return tuple(edits.ids_of(content.get("eos_token_id")))


def keep(folder: Path, made: TextMethod, known: bool, named: Mapping[str, str]) -> None:
    """Puts the small files into the folder of a run, over those of what it starts from.

    A tokenizer that is made in code needs none. Of one that the config names by its own folder, the
    chat template is kept here: transformers may read a tokenizer otherwise beside another model.

    Args:
      folder: of the run's files in the Hugging Face format, as copied.
      made, known, named: as of `small_files`.

    Raises:
      UserError: as `small_files` does.
    """
    if not isinstance(made.tokenizer, FolderTokenizer):
        return
    files = small_files(made, folder, known, named)
    if made.template is None and made.tokenizer.chat_template is not None:
        LOGGER.info("the chat template is left out of the export: the run uses none")
    if named["eos"] and not edits.has_token(files, named["eos"]):
        LOGGER.info(
            "data.eos=%r is not an added token, so the exported tokenizer keeps its eos_token; "
            "generate stops at it all the same",
            named["eos"],
        )
    if named["tokenizer"]:
        files = {GENERATION: files[GENERATION]}
        if made.template is not None:
            files[edits.TEMPLATE] = made.template
    if (folder / huggingface.CONFIG).is_file():
        given = huggingface.read_config(folder)
        if changed := config_ids(made, given, known, files, named):
            files[huggingface.CONFIG] = json.dumps(given | changed, indent=2) + "\n"
    write_files(folder, files)
    for name in FILES:
        if name not in files:
            (folder / name).unlink(missing_ok=True)


def check_tokenizer(
    name: str, tokenizer: Tokenizer, files: edits.Files, config: Mapping[str, Any]
) -> None:
    """Refuses an export whose tokenizer transformers would read in another way than training did.

    Which class it takes depends on the model type, and a class may go by rules of its own.

    Args:
      name: of the model.
      tokenizer: of training.
      files: the small files of the export.
      config: content of its config.json.

    Raises:
      UserError: transformers gives other ids, of the text or of what stands before it.
    """
    pieces = [i for i, text in enumerate(tokenizer.token_bytes()) if text]
    pieces = pieces or list(range(tokenizer.vocab_size))  # of words there are no bytes
    texts = ["", tokenizer.decode(pieces[:: len(pieces) // 500 + 1])]
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), {**files, huggingface.CONFIG: json.dumps(config)})
        found = huggingface.text_ids(Path(folder), texts)
    after = found[0][len(tokenizer.bos) :]  # an eos after every text is no concern of prompts
    for text, ids in zip(texts, found, strict=True):
        expected = [*tokenizer.bos, *tokenizer.encode(text), *after]
        if ids != expected:
            pairs = zip(ids, expected, strict=False)
            shorter = min(len(ids), len(expected))
            place = next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)
            theirs, ours = (tokenizer.decode(x[place : place + 3]) for x in (ids, expected))
            raise UserError(
                f"{name} cannot be exported: beside a config.json of model_type "
                f"{config['model_type']!r} transformers reads its tokenizer in another way than "
                f"training did ({theirs!r} for {ours!r}); train with a tokenizer of such a model, "
                "and with data.bos=''"
            )


def write_files(folder: Path, files: edits.Files) -> None:
    """Writes files into a folder, each whole or not at all; one that is there already is left."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        new = content.read_bytes() if isinstance(content, Path) else content.encode()
        path = folder / name
        if path.is_file() and path.read_bytes() == new:
            continue
        write_whole(path, new)


def _tokenizer_files(made: TextMethod, named: Mapping[str, str]) -> dict[str, Path | str]:
    tokenizer = made.tokenizer
    files = dict(tokenizer.files())
    if made.template != tokenizer.chat_template:
        files = edits.with_template(files, made.template)
    if named["eos"] and edits.has_token(files, named["eos"]):
        files = edits.with_token(files, "eos_token", named["eos"])
    if isinstance(tokenizer, FolderTokenizer) and tokenizer.bos != tokenizer.default_bos:
        names = {tokenizer.decode([i]): i for i in tokenizer.bos}
        files = edits.with_leading_tokens(files, names)
        for name in names:
            if edits.has_token(files, name):
                files = edits.with_token(files, "bos_token", name)
    return files


def generation_config(
    made: TextMethod, folder: Path | None, known: bool, named: Mapping[str, str]
) -> Path | str:
    """generation_config.json: the one that the model came with, with the ends of the run.

    Args:
      made, folder, known, named: as of `small_files`.
    """
    path = folder / GENERATION if folder else None
    given = _read(path)
    config = _read(folder / huggingface.CONFIG if folder else None)
    if known and (given or any(name in config for name in IDS)):
        start = given or {name: config[name] for name in IDS if name in config}
        changed = start | _with_ends(made, start, config, named)
    else:
        ids = token_ids(made.tokenizer)
        ends = (made.tokenizer.separator, *made.ends)
        changed = given | ids | {"eos_token_id": edits.with_ids(ids["eos_token_id"], ends)}
    if path is not None and given and changed == given:
        return path
    return json.dumps(changed, indent=2) + "\n"


def _with_ends(
    made: TextMethod, given: Mapping[str, Any], config: Mapping[str, Any], named: Mapping[str, str]
) -> dict[str, Any]:
    """The fields that name tokens, where the run adds to them or the config names others.

    Args:
      made, named: as of `small_files`.
      given: content of the file that is changed.
      config: content of config.json, whose ids count where the file has none.
    """
    changed: dict[str, Any] = {}
    if made.ends:
        before = given.get("eos_token_id", config.get("eos_token_id"))
        before = made.tokenizer.eos if before is None else before
        changed["eos_token_id"] = edits.with_ids(before, made.ends)
    if named["bos"] not in ("", "none"):
        changed["bos_token_id"] = token_ids(made.tokenizer)["bos_token_id"]
    return changed


def _read(path: Path | None) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none.

    Raises:
      UserError: it is something else.
    """
    return read_object(path) if path and path.is_file() else {}
