"""How transformers reads text with the tokenizer of a folder."""

from collections.abc import Sequence
from pathlib import Path


def text_ids(folder: Path, texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts by transformers, with what it puts before them."""
    import transformers  # here: it takes seconds

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # of long texts, which nobody computes with
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return [list(tokenizer(text)["input_ids"]) for text in texts]
    finally:
        transformers.logging.set_verbosity(verbosity)
