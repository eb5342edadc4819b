"""Tokenizers that are written by this project, as files in the Hugging Face format."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlp.tokenizers.token_text import byte_letters


def byte_level_files(
    specials: Sequence[str], before: Sequence[int] = (), **named: str
) -> Mapping[str, Path | str]:
    """A tokenizer of bytes, with special tokens after their 256 ids.

    Args:
      specials: names of the special tokens.
      before: ids that it puts before a text.
      named: which of these are pad, bos, eos.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = byte_letters()
    made = Tokenizer(models.BPE({letters[byte]: byte for byte in range(256)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return _files(made, specials, before, named)


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
