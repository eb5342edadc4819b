"""Tokenize texts with transformers."""

from collections.abc import Sequence
from pathlib import Path

from rlp.runtime.errors import UserError


def text_ids(folder: Path, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of texts according to transformers, including special tokens.

    Raises:
      UserError: If transformers cannot load the tokenizer.
    """
    import transformers  # on demand: the import takes seconds

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # no warnings about texts longer than the context
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return [list(tokenizer(text)["input_ids"]) for text in texts]
    except Exception as error:  # the parsers of the library raise errors of any class
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            "transformers cannot load the exported tokenizer together with the model's config.json "
            f"({reason}); set data.tokenizer to a tokenizer of this model family"
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
