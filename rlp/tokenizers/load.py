"""Load the tokenizer that a config names."""

import os

from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.folder_tokenizer import FolderTokenizer
from rlp.tokenizers.tokenizer import Tokenizer


def load_tokenizer(
    spec: str, bos: str = "", eos: str = "", separator: str = "", rows: int = 0
) -> Tokenizer:
    """Load the tokenizer that `data.tokenizer` names.

    Args:
      spec: "bytes", or the path of a folder.
      bos, eos, separator, rows: See `FolderTokenizer`. They must be empty for "bytes".

    Raises:
      UserError: If `spec` is not a folder or cannot be loaded, or if the tokenizer cannot encode
        the thinking tags or lacks one of the tokens.
    """
    if spec == "bytes":
        for field, name in (("bos", bos), ("eos", eos), ("separator", separator)):
            if name:
                raise UserError.of(
                    f"data.{field}", name, "; the byte tokenizer has fixed tokens: leave it ''"
                )
        return ByteTokenizer()
    folder = os.path.expanduser(spec)
    if not os.path.isdir(folder):
        raise UserError(
            f'data.tokenizer={spec!r} is not a folder; use "bytes" or the path of a Hugging Face '
            "tokenizer folder",
            field="data.tokenizer",
            value=spec,
        )
    return FolderTokenizer(folder, bos, eos, separator, rows)
