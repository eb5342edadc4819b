"""A tokenizer of words for the models of `tests.support.tiny`, and documents with its words."""

import numpy as np

from rlp.data.located_text import LocatedText, locate
from rlp.tokenizers.word_tokenizer import SPECIALS, WordTokenizer

WORDS = ("the", "of", "Mia", "12", "7", *"abcdefghijkl")
TOKENIZER = WordTokenizer(WORDS, "the tests")
USED = len(SPECIALS) + len(WORDS)


def located(seed: int, lengths: list[int]) -> list[LocatedText]:
    """Return documents with these numbers of random words."""
    random = np.random.default_rng(seed)
    return [locate(" ".join(random.choice(WORDS, n)), TOKENIZER) for n in lengths]
