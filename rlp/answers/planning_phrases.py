"""Find the planning tokens of a response: tokens of phrases that direct the reasoning.

HICRA (arXiv 2509.03646) extracts such phrases from a corpus of reasoning, as groups of three to
five words that many solutions share; here they come from the list below or from a file.
"""

from collections.abc import Sequence

import numpy as np

PHRASES = (
    "let me think", "let me check", "let me verify", "let me try", "let me see if",
    "let's think", "let's check", "let's try", "let's start with", "let's consider",
    "wait", "hold on", "on second thought", "alternatively", "another way to", "another approach",
    "a different approach", "we need to find", "the key is", "the idea is", "the plan is",
    "first, we", "next, we", "now we need", "then we can", "so we need to", "this means that",
    "this suggests that", "that would mean", "it follows that", "we can use", "to do this",
    "break it down", "step by step", "case by case", "consider the case", "suppose that",
    "assume that", "work backwards", "going back to", "to verify", "double-check", "in summary",
    "putting it together", "what if", "but is this", "does this make sense", "notice that",
    "recall that", "note that",
)  # fmt: skip


def planning_actions(
    actions: np.ndarray, words: np.ndarray, texts: Sequence[bytes], phrases: Sequence[str]
) -> np.ndarray:
    """Return which actions contain a part of a phrase, bool [B, N, L].

    Args:
      actions: ids, [B, N, L].
      words: number of actions that are text, [B, N].
      texts: the bytes of every token of the vocabulary.
      phrases: phrases of whole words; case is ignored.
    """
    planning = np.zeros(actions.shape, bool)
    lower_phrases = [_lower(phrase.strip()) for phrase in phrases if phrase.strip()]
    for index in np.ndindex(words.shape):
        pieces = [texts[token] for token in actions[index][: words[index]]]
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        text = b"".join(pieces).decode(errors="surrogateescape")  # one character per invalid byte
        offsets = _byte_offsets(text)
        text = _lower(text)
        for phrase in lower_phrases:
            start = text.find(phrase)
            while start >= 0:
                end = start + len(phrase)
                if not _touches_letter(text, start, end):
                    first_and_last_byte = [offsets[start], offsets[end] - 1]
                    first, last = np.searchsorted(ends, first_and_last_byte, side="right")
                    planning[index][first : last + 1] = True
                start = text.find(phrase, start + 1)
    return planning


def _lower(text: str) -> str:
    """Convert a text to lower case without changing its number of characters."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _byte_offsets(text: str) -> np.ndarray:
    """Return the byte offset of every character of a text and of its end, int [characters + 1]."""
    if text.isascii():
        return np.arange(len(text) + 1)
    return np.cumsum([0, *(len(c.encode(errors="surrogateescape")) for c in text)])


def _touches_letter(text: str, start: int, end: int) -> bool:
    """Return whether a letter is right before or after a part of a text."""
    return text[max(start - 1, 0) : start].isalpha() or text[end : end + 1].isalpha()
