"""Tokens that exclude a window from thoughts: thinking tags, padding, and a BOS inside a text."""

from collections.abc import Sequence

import numpy as np

from rlp.data.windows import Windows
from rlp.tokenizers.tokenizer import Tokenizer


def excluded_tokens(tokenizer: Tokenizer) -> str:
    """Describe the tokens that a text must not contain for thoughts to branch off, for messages."""
    others = {tokenizer.pad: "padding"} | dict.fromkeys(tokenizer.bos, "BOS")
    ends = {tokenizer.eos, tokenizer.separator}
    names = [f"{kind} {tokenizer.decode([i])!r}" for i, kind in others.items() if i not in ends]
    return " or ".join(["a thinking tag", *names])


def has_excluded_token(tokens: np.ndarray, windows: Windows, tokenizer: Tokenizer) -> np.ndarray:
    """Return whether each window contains a complete thinking tag, padding or a BOS in its text,
    bool [windows]."""
    start, length = windows.start, windows.length - len(tokenizer.bos)
    ends = {tokenizer.eos, tokenizer.separator}  # allowed, also if they are the pad or BOS id
    single_ids = {(i,) for i in (tokenizer.pad, *tokenizer.bos) if i not in ends}
    counts = np.zeros(len(windows), np.int64)
    for tag in {tokenizer.think_open, tokenizer.think_close} | single_ids:
        before = np.concatenate([[0], np.cumsum(sequence_starts(tokens, tag))])
        # A tag of n tokens that is complete in a window begins before its last n - 1 tokens.
        end = np.maximum(start, start + length - (len(tag) - 1))
        counts += before[end] - before[start]
    return counts > 0


def sequence_starts(tokens: np.ndarray, sequence: Sequence[int]) -> np.ndarray:
    """Return at which tokens a sequence of ids begins, bool [total]."""
    starts = np.ones(len(tokens), bool)
    for offset, token in enumerate(sequence):
        starts[: len(tokens) - offset] &= tokens[offset:] == token
        starts[max(0, len(tokens) - offset) :] = False
    return starts
