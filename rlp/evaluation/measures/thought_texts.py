"""The words of thoughts: shuffling, repetition, variety, and whether they name the target."""

import re
from collections.abc import Sequence

import numpy as np

from rlp.tokenizers.token_text import PARTIAL
from rlp.tokenizers.tokenizer import Tokenizer

REPEATED = 4  # words of the n-grams of `repetition`


def shuffled(ids: Sequence[int], tokenizer: Tokenizer, seed: Sequence[int]) -> tuple[int, ...]:
    """Return a thought with its words in a random order.

    A word is permuted with the white space before it, as the ids that it was sampled as. So the
    thought keeps its length, its ids and its words; what precedes the first white space stays in
    front, because another word would be joined to the one before it.

    Args:
      ids: of the thought, without tags.
      tokenizer: of the network.
      seed: of the order.
    """
    pieces = tokenizer.pieces(ids)
    if tokenizer.between_pieces:
        starts = list(range(len(ids)))
    else:
        starts = [i for i in range(len(ids)) if _begins_word(pieces, i)]
    if not starts:
        return tuple(ids)
    bounds = [*starts, len(ids)]
    words = [tuple(ids[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
    order = np.random.default_rng(seed).permutation(len(words))
    return (*ids[: starts[0]], *(i for word in order for i in words[word]))


def _begins_word(pieces: Sequence[str], i: int) -> bool:
    """Return whether piece `i` begins with the white space before a word."""
    before = pieces[i - 1] if i else "a"
    return pieces[i][:1].isspace() and before != PARTIAL and not before.isspace()


def names(thought: str, target: str) -> bool | None:
    """Return whether a thought contains a target as whole words; None if the target has no letter
    or digit. White space around the target is ignored, case is not."""
    wanted = target.strip()
    if not any(character.isalnum() for character in wanted):
        return None
    before = r"(?<!\w)" if re.match(r"\w", wanted) else ""
    after = r"(?!\w)" if re.search(r"\w$", wanted) else ""
    return re.search(before + re.escape(wanted) + after, thought) is not None


def repetition(words: Sequence[str], n: int = REPEATED) -> float | None:
    """Return the share of n-grams of a thought that repeat an earlier one; None if it has none.

    This is seq-rep-n of Welleck et al. (arXiv 1908.04319), 1 - |unique n-grams| / |n-grams|, of
    words instead of tokens, so that tokenizers do not matter.
    """
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def distinct(thoughts: Sequence[Sequence[str]], n: int) -> float:
    """Return the number of different n-grams of all thoughts over the number of their words; nan
    without words.

    This is distinct-n of Li et al. (arXiv 1510.03055). It falls with the amount of text, so it
    compares only thoughts of about the same number and length.
    """
    grams = {tuple(t[i : i + n]) for t in thoughts for i in range(len(t) - n + 1)}
    count = sum(map(len, thoughts))
    return len(grams) / count if count else float("nan")
