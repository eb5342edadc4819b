"""Which tokens of a response plan: those of phrases that say how the reasoning goes on.

HICRA (arXiv 2509.03646) finds such phrases in a corpus of reasoning, as groups of three to five
words that many solutions share; here they are given, these or a file's.
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
    """Which actions hold a part of a phrase, bool [B, N, L].

    Args:
      actions: [B, N, L] ids.
      words: how many of them are text, [B, N].
      texts: the bytes of every token.
      phrases: whole words, in any case.
    """
    found = np.zeros(actions.shape, bool)
    wanted = [_lower(phrase.strip()) for phrase in phrases if phrase.strip()]
    for place in np.ndindex(words.shape):
        pieces = [texts[token] for token in actions[place][: words[place]]]
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        text = b"".join(pieces).decode(errors="surrogateescape")  # one character for a stray byte
        begins = _byte_offsets(text)
        text = _lower(text)
        for phrase in wanted:
            start = text.find(phrase)
            while start >= 0:
                end = start + len(phrase)
                if not _inside_a_word(text, start, end):
                    bytes_of = [begins[start], begins[end] - 1]
                    first, last = np.searchsorted(ends, bytes_of, side="right")
                    found[place][first : last + 1] = True
                start = text.find(phrase, start + 1)
    return found


def _lower(text: str) -> str:
    """A text in lower case, of as many characters."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _byte_offsets(text: str) -> np.ndarray:
    """The byte at which every character of a text begins, and where the text ends."""
    if text.isascii():
        return np.arange(len(text) + 1)
    return np.cumsum([0, *(len(c.encode(errors="surrogateescape")) for c in text)])


def _inside_a_word(text: str, start: int, end: int) -> bool:
    """Whether a letter stands right before or after a stretch of a text."""
    return text[max(start - 1, 0) : start].isalpha() or text[end : end + 1].isalpha()
