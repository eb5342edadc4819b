"""Find the ids that a transformers tokenizer puts before every text."""

import itertools
from pathlib import Path
from typing import Any

from rlp.runtime.errors import UserError
from rlp.tokenizers.folder_reader import read_json


def leading_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that a transformers tokenizer puts before every text by default.

    A tokenizer with a bos_token does not necessarily use it: those of Qwen2 and SmolLM2 name one
    and put nothing before a text; those of Llama and Gemma put it there.

    Raises:
      UserError: If the tokenizer cannot encode any text.
    """
    # The tokenizer may have no token for "a"; then try texts of its first 1000 tokens.
    pieces = (tokenizer.decode([i]) for i in range(min(1000, len(tokenizer))))
    for text in itertools.chain(["a"], pieces):
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        full = tokenizer(text)["input_ids"]
        for start in range(len(full) - len(plain) + 1) if plain else ():
            if full[start : start + len(plain)] == plain:
                return tuple(full[:start])
    raise UserError("the tokenizer cannot encode its own tokens; use another tokenizer")


def declared_bos(tokenizer: Any, folder: Path) -> tuple[int, ...]:
    """Return the BOS of a folder whose tokenizer_config.json has `add_bos_token`: true.

    transformers ignores this field if it loads the tokenizer with another class than the folder
    names (DeepSeek-V3 is an example), but the model was trained with the BOS.
    """
    declared = read_json(folder / "tokenizer_config.json").get("add_bos_token") is True
    return (tokenizer.bos_token_id,) if declared and tokenizer.bos_token_id is not None else ()
