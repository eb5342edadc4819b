"""Changes to the files of a tokenizer in the Hugging Face format, made without loading it.

Files are a mapping from names to contents, or to paths that hold them, as `Tokenizer.files` gives
them. Every function returns a new mapping; nothing is written.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import parse, readable

Files = Mapping[str, Path | str]

# What a tokenizer may consist of, in a folder in the Hugging Face format.
FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model"),
    *("chat_template.jinja", "chat_template.json"),
)

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIALS = "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
OLD_TEMPLATE = "chat_template.json"  # transformers wrote templates here for a while


def text_of(files: Files, name: str) -> str:
    """The content of a file; "" where there is none."""
    content = files.get(name, "")
    return content.read_text(encoding="utf-8") if isinstance(content, Path) else content


def with_template(files: Files, template: str | None) -> dict[str, Path | str]:
    """The files with this chat template and no other; None for no template at all."""
    changed = {name: x for name, x in files.items() if name not in (TEMPLATE, OLD_TEMPLATE)}
    config = object_of(changed, CONFIG)
    if config.pop("chat_template", None) is not None:
        changed[CONFIG] = readable(config)
    return changed if template is None else changed | {TEMPLATE: template}


def has_token(files: Files, name: str) -> bool:
    """Whether a token is one of the added tokens, which text is never split around."""
    added = object_of(files, TOKENIZER).get("added_tokens", [])
    older = object_of(files, CONFIG).get("added_tokens_decoder", {}).values()
    return any(token.get("content") == name for token in (*added, *older))


def with_token(files: Files, role: str, name: str) -> dict[str, Path | str]:
    """The files with another token in a role.

    Args:
      files: of a tokenizer.
      role: "bos_token" or "eos_token".
      name: one of the added tokens. (A word of the vocabulary would become an added token, and
        texts that hold it would be split in another way.)
    """
    changed = dict(files)
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | object_of(files, CONFIG)
    changed[CONFIG] = readable(config | {role: name})
    if SPECIALS in files:
        changed[SPECIALS] = readable(object_of(files, SPECIALS) | {role: name})
    return changed


def with_beginning(files: Files, tokens: Mapping[str, int]) -> dict[str, Path | str]:
    """The files of a tokenizer that puts these tokens before a text, and no others.

    Args:
      files: of a tokenizer.
      tokens: names to ids, in order; empty for none.

    Raises:
      UserError: the files do not say what stands before a text in a way that can be changed.
    """
    changed, whole = dict(files), object_of(files, TOKENIZER)
    if not whole:
        raise UserError(
            f"data.bos cannot be exported: the tokenizer has no {TOKENIZER}; convert it to one"
        )
    steps = whole.get("post_processor") or {"type": "TemplateProcessing"}
    many = steps["type"] == "Sequence"
    found = steps["processors"] if many else [steps]
    others = [step for step in found if step["type"] == "ByteLevel"]  # it changes offsets alone
    templates = [step for step in found if step["type"] == "TemplateProcessing"]
    if len(others) + len(templates) != len(found) or len(templates) > 1:
        kinds = ", ".join(step["type"] for step in found)
        raise UserError(
            f"data.bos cannot be exported: the tokenizer's post-processor ({kinds}) is not a "
            "template; leave data.bos empty"
        )
    template = _beginning(templates[0] if templates else {}, tokens)
    steps = {"type": "Sequence", "processors": [*others, template]} if others else template
    changed[TOKENIZER] = readable(whole | {"post_processor": steps})
    config = object_of(files, CONFIG)
    if "add_bos_token" in config:  # where it is there, transformers goes by it
        changed[CONFIG] = readable(config | {"add_bos_token": bool(tokens)})
    return changed


def _beginning(template: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[str, Any]:
    """A template of a post-processor with these tokens before each text."""

    def sequence(name: str, kind: int) -> list[dict[str, Any]]:
        """One text with what stands around it."""
        before = [{"SpecialToken": {"id": token, "type_id": kind}} for token in tokens]
        return [*before, {"Sequence": {"id": name, "type_id": kind}}, *after(name, kind)]

    def after(name: str, kind: int) -> list[dict[str, Any]]:
        """What the template has after a text already."""
        parts = template.get("single", [])
        place = next((i for i, part in enumerate(parts) if "Sequence" in part), len(parts))
        return [
            {"SpecialToken": part["SpecialToken"] | {"type_id": kind}}
            for part in parts[place + 1 :]
        ]

    one, two = sequence("A", 0), sequence("B", 1)
    named = {
        token: {"id": token, "ids": [number], "tokens": [token]} for token, number in tokens.items()
    }
    return {
        "type": "TemplateProcessing",
        "single": one,
        "pair": [*one, *two],
        "special_tokens": template.get("special_tokens", {}) | named,
    }


def ids_of(value: Any) -> list[int]:
    """The ids of a field such as `eos_token_id`: a number, a list of them, or null.

    Raises:
      UserError: it is something else.
    """
    if value is None:
        return []
    ids = list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(i, int) for i in ids):
        raise UserError(f"eos_token_id={value!r} is neither a number nor a list of numbers")
    return ids


def with_ids(value: Any, more: Iterable[int]) -> Any:
    """A field such as `eos_token_id` with further ids; unchanged where it has them."""
    before = ids_of(value)
    found = list(dict.fromkeys([*before, *more]))
    if found == before:
        return value
    return found[0] if len(found) == 1 else found


def object_of(files: Files, name: str) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none.

    Raises:
      UserError: it is something else.
    """
    try:
        content = parse(text_of(files, name).removeprefix("\ufeff") or "{}")
    except ValueError as error:  # not UTF-8, or not JSON
        raise UserError(f"{name} of the tokenizer is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{name} of the tokenizer is not a JSON object")
    return content
