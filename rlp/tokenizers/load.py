"""Finds the tokenizer that a config names."""

import os

from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.folder_tokenizer import FolderTokenizer
from rlp.tokenizers.tokenizer import Tokenizer


def load_tokenizer(
    spec: str, bos: str = "", eos: str = "", separator: str = "", rows: int = 0
) -> Tokenizer:
    """The tokenizer that `data.tokenizer` names: "bytes", or the path of a folder.

    Args:
      spec: its name.
      bos, eos, separator, rows: as of `FolderTokenizer`; bytes have their own.

    Raises:
      UserError: a path that is no folder, a folder that cannot be read, a tokenizer that cannot
        write the thinking tags, and a token that it does not have.
    """
    if spec == "bytes":
        for field, name in (("bos", bos), ("eos", eos), ("separator", separator)):
            if name:
                raise UserError.of(
                    f"data.{field}", name, "; bytes have tokens of their own: leave it ''"
                )
        return ByteTokenizer()
    folder = os.path.expanduser(spec)
    if not os.path.isdir(folder):
        raise UserError(
            f'data.tokenizer: no folder {spec!r}; give "bytes" or the path of a Hugging Face '
            "tokenizer folder",
            field="data.tokenizer",
            value=spec,
        )
    return FolderTokenizer(folder, bos, eos, separator, rows)
