"""Tokens that no thought can stand beside: the thinking tags, padding, and a bos in a text."""

from collections.abc import Sequence

import numpy as np

from rlp.data.windows import Windows
from rlp.tokenizers.tokenizer import Tokenizer


def never_in_text(tokenizer: Tokenizer) -> str:
    """The tokens that no text holds off which thoughts branch, in words."""
    others = {tokenizer.pad: "padding"} | dict.fromkeys(tokenizer.bos, "bos")
    ends = {tokenizer.eos, tokenizer.separator}
    named = [f"{what} {tokenizer.decode([i])!r}" for i, what in others.items() if i not in ends]
    return " or ".join(["a thinking tag", *named])


def tagged(tokens: np.ndarray, windows: Windows, tokenizer: Tokenizer) -> np.ndarray:
    """Whether each window holds a tag, whole, or an id that document text cannot hold, bool
    [windows]."""
    start, length = windows.start, windows.length - len(tokenizer.bos)
    ends = {tokenizer.eos, tokenizer.separator}  # an id that ends a text is text
    one = {(i,) for i in (tokenizer.pad, *tokenizer.bos) if i not in ends}
    found = np.zeros(len(windows), np.int64)
    for tag in {tokenizer.think_open, tokenizer.think_close} | one:
        before = np.concatenate([[0], np.cumsum(begins(tokens, tag))])
        # A tag of n tokens that is whole in a window begins before its last n - 1 tokens.
        end = np.maximum(start, start + length - (len(tag) - 1))
        found += before[end] - before[start]
    return found > 0


def begins(tokens: np.ndarray, sequence: Sequence[int]) -> np.ndarray:
    """Where a sequence of ids begins in the tokens, bool [total]."""
    begins = np.ones(len(tokens), bool)
    for offset, token in enumerate(sequence):
        begins[: len(tokens) - offset] &= tokens[offset:] == token
        begins[max(0, len(tokens) - offset) :] = False
    return begins
