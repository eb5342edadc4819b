"""Build tokenizers of this project as files in the Hugging Face format."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlp.tokenizers.token_text import byte_letters


def byte_level_files(
    specials: Sequence[str], leading: Sequence[int] = (), **roles: str
) -> Mapping[str, Path | str]:
    """Build a byte tokenizer with 256 byte ids followed by the ids of special tokens.

    Args:
      specials: Names of the special tokens.
      leading: Ids that the tokenizer puts before every text.
      roles: The names of the pad, bos and eos tokens.

    Returns:
      File names and contents.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = byte_letters()
    tokenizer = Tokenizer(models.BPE({letters[byte]: byte for byte in range(256)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _files(tokenizer, specials, leading, roles)


def word_level_files(
    ids: Mapping[str, int], specials: Sequence[str], leading: Sequence[int] = (), **roles: str
) -> Mapping[str, Path | str]:
    """Build a tokenizer with one token for each word.

    Args:
      ids: The id of each word.
      specials: The words that are special tokens, which are recognized anywhere in a text.
      leading: Ids that the tokenizer puts before every text.
      roles: The names of the unk, pad, bos and eos tokens.

    Returns:
      File names and contents.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(dict(ids), unk_token=roles["unk"]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _files(tokenizer, specials, leading, roles)


def _files(
    tokenizer: Any, specials: Sequence[str], leading: Sequence[int], roles: Mapping[str, str]
) -> dict[str, Path | str]:
    """Add special and leading tokens to a tokenizer of the `tokenizers` library, and return it as
    files."""
    from tokenizers import processors

    tokenizer.add_special_tokens(list(specials))
    if leading:
        names = [tokenizer.id_to_token(i) for i in leading]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join([*names, "$A"]),
            pair=" ".join([*names, "$A", "$B"]),
            special_tokens=list(zip(names, leading, strict=True)),
        )
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {f"{role}_token": name for role, name in roles.items()}
    return {
        "tokenizer.json": tokenizer.to_str(),
        "tokenizer_config.json": json.dumps(config, indent=2),
    }
