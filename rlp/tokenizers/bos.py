"""Which ids stand before a text, as a tokenizer of transformers has it."""

import itertools
from pathlib import Path
from typing import Any

from rlp.runtime.errors import UserError
from rlp.tokenizers.folder_reader import read_json


def put_before(tokenizer: Any) -> tuple[int, ...]:
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


def stated_bos(tokenizer: Any, folder: Path) -> tuple[int, ...]:
    """The bos of a folder that says `add_bos_token` in so many words.

    transformers obeys that, but not where it takes another class for the tokenizer than the folder
    names (DeepSeek-V3's, for one). The model was trained with it all the same.
    """
    states = read_json(folder / "tokenizer_config.json").get("add_bos_token") is True
    return (tokenizer.bos_token_id,) if states and tokenizer.bos_token_id is not None else ()
