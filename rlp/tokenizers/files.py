"""Edit the files of a Hugging Face tokenizer without loading it.

Files are a mapping from names to contents, or to the paths of files with the contents, as returned
by `Tokenizer.files`. The functions that edit files return a new mapping and write nothing.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import parse, readable

Files = Mapping[str, Path | str]

# The files that may belong to a tokenizer in the Hugging Face format.
FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model"),
    *("chat_template.jinja", "chat_template.json"),
)

_REPAIR = "repair the file, or use another tokenizer"
TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIALS = "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
OLD_TEMPLATE = "chat_template.json"  # some versions of transformers wrote templates here


def text_of(files: Files, name: str) -> str:
    """Return the content of a file; "" if there is no such file."""
    content = files.get(name, "")
    return content.read_text(encoding="utf-8") if isinstance(content, Path) else content


def with_template(files: Files, template: str | None) -> dict[str, Path | str]:
    """Replace all chat templates by `template`, or remove them if it is None."""
    changed = {name: x for name, x in files.items() if name not in (TEMPLATE, OLD_TEMPLATE)}
    config = object_of(changed, CONFIG)
    if config.pop("chat_template", None) is not None:
        changed[CONFIG] = readable(config)
    return changed if template is None else changed | {TEMPLATE: template}


def has_token(files: Files, name: str) -> bool:
    """Whether `name` is an added token, that is, one that is recognized before a text is split."""
    added = object_of(files, TOKENIZER).get("added_tokens", [])
    older = object_of(files, CONFIG).get("added_tokens_decoder", {}).values()
    return any(token.get("content") == name for token in (*added, *older))


def with_token(files: Files, role: str, name: str) -> dict[str, Path | str]:
    """Give a role to another token.

    Args:
      files: Files of a tokenizer.
      role: "bos_token" or "eos_token".
      name: An added token. (Any other token would become an added token, which would change how
        texts that contain it are split.)
    """
    changed = dict(files)
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | object_of(files, CONFIG)
    changed[CONFIG] = readable(config | {role: name})
    if SPECIALS in files:
        changed[SPECIALS] = readable(object_of(files, SPECIALS) | {role: name})
    return changed


def with_class(files: Files, name: str) -> dict[str, Path | str]:
    """Name the class with which transformers loads a tokenizer."""
    return dict(files) | {CONFIG: readable(object_of(files, CONFIG) | {"tokenizer_class": name})}


def with_leading_tokens(files: Files, tokens: Mapping[str, int]) -> dict[str, Path | str]:
    """Make the tokenizer put exactly these tokens before every text.

    Args:
      files: Files of a tokenizer.
      tokens: Names and ids of the tokens in order; {} for none.

    Raises:
      UserError: If the post-processor of the tokenizer cannot be edited.
    """
    changed, content = dict(files), object_of(files, TOKENIZER)
    if not content:
        raise UserError(
            f"data.bos cannot be exported: the tokenizer has no {TOKENIZER}; convert it to one"
        )
    steps = content.get("post_processor") or {"type": "TemplateProcessing"}
    is_sequence = steps["type"] == "Sequence"
    processors = steps["processors"] if is_sequence else [steps]
    others = [step for step in processors if step["type"] == "ByteLevel"]  # changes only offsets
    templates = [step for step in processors if step["type"] == "TemplateProcessing"]
    if len(others) + len(templates) != len(processors) or len(templates) > 1:
        kinds = ", ".join(step["type"] for step in processors)
        raise UserError(
            f"data.bos cannot be exported: the tokenizer's post-processor ({kinds}) is not a "
            "template; leave data.bos empty"
        )
    template = _template(templates[0] if templates else {}, tokens)
    steps = {"type": "Sequence", "processors": [*others, template]} if others else template
    changed[TOKENIZER] = readable(content | {"post_processor": steps})
    config = object_of(files, CONFIG)
    if "add_bos_token" in config:  # transformers obeys this field if it exists
        changed[CONFIG] = readable(config | {"add_bos_token": bool(tokens)})
    return changed


def _template(template: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[str, Any]:
    """Return the template of a post-processor with these tokens before each text."""

    def sequence(name: str, kind: int) -> list[dict[str, Any]]:
        """Return a text with the tokens before and after it."""
        before = [{"SpecialToken": {"id": token, "type_id": kind}} for token in tokens]
        return [*before, {"Sequence": {"id": name, "type_id": kind}}, *after(name, kind)]

    def after(name: str, kind: int) -> list[dict[str, Any]]:
        """Return the tokens that the old template puts after a text."""
        parts = template.get("single", [])
        text_at = next((i for i, part in enumerate(parts) if "Sequence" in part), len(parts))
        return [
            {"SpecialToken": part["SpecialToken"] | {"type_id": kind}}
            for part in parts[text_at + 1 :]
        ]

    first, second = sequence("A", 0), sequence("B", 1)
    special = {
        token: {"id": token, "ids": [number], "tokens": [token]} for token, number in tokens.items()
    }
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [*first, *second],
        "special_tokens": template.get("special_tokens", {}) | special,
    }


def ids_of(value: Any) -> list[int]:
    """Return the ids in a field such as `eos_token_id`: an integer, a list of integers, or null.

    Raises:
      UserError: If the value is anything else.
    """
    if value is None:
        return []
    ids = list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(i, int) for i in ids):
        raise UserError(
            f"eos_token_id={value!r} is neither an integer nor a list of integers; correct it in "
            "the model's config"
        )
    return ids


def with_ids(value: Any, more: Iterable[int]) -> Any:
    """Add ids to a field such as `eos_token_id`; a value that has them already is unchanged."""
    before = ids_of(value)
    ids = list(dict.fromkeys([*before, *more]))
    if ids == before:
        return value
    return ids[0] if len(ids) == 1 else ids


def object_of(files: Files, name: str) -> dict[str, Any]:
    """Return the JSON object in a file; {} if there is no such file.

    Raises:
      UserError: If the file does not contain a JSON object.
    """
    try:
        content = parse(text_of(files, name).removeprefix("\ufeff") or "{}")
    except ValueError as error:  # not UTF-8, or not JSON
        raise UserError(f"{name} of the tokenizer is not JSON ({error}); {_REPAIR}") from error
    if not isinstance(content, dict):
        raise UserError(f"{name} of the tokenizer is not a JSON object; {_REPAIR}")
    return content
