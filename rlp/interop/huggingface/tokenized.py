"""How transformers reads text with the tokenizer of a folder."""

from collections.abc import Sequence
from pathlib import Path

from rlp.runtime.errors import UserError


def text_ids(folder: Path, texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts by transformers, with what it puts before them.

    Raises:
      UserError: it does not read the tokenizer.
    """
    import transformers  # here: it takes seconds

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # of long texts, which nobody computes with
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return [list(tokenizer(text)["input_ids"]) for text in texts]
    except Exception as error:  # the library's parsers raise every class
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"transformers cannot read the tokenizer beside this model's config.json: {reason}"
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
