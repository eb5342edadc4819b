"""The text that single tokens stand for."""

from collections.abc import Callable, Sequence

# Shown for a token that holds only the beginning of a character; the character stands on the
# token that completes it.
PARTIAL = "◌"
_OPEN_BYTES = 3  # of a character that is not complete yet
_LONGEST_STRETCH = 64  # tokens of broken characters that are decoded together: else, n² of n tokens


def byte_letters() -> dict[int, str]:
    """The letter that byte-level BPE writes for each byte: a byte without a printable character of
    its own has one assigned to it, beyond 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + place) for place, byte in enumerate(others)}


def pieces_of(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> list[str]:
    """The text that each token adds to what stands before it; `decode` gives the text of ids.

    Decoding a token alone would lose the space that some tokenizers put before a word, so each is
    decoded after the stretch before it.
    """
    pieces: list[str] = []
    before, start = 0, 0  # ids[before:start] was the last whole stretch, ids[start:] is open
    shown = 0  # characters of decode(ids[before:]) that have been given to a token
    for end in range(1, len(ids) + 1):
        text = decode(ids[before:end])
        # Broken characters at the end, one for each of its bytes with some tokenizers, may be one
        # that the next tokens complete.
        whole = text.rstrip("\N{REPLACEMENT CHARACTER}") if end < len(ids) else text
        long = end - start >= _LONGEST_STRETCH
        if long:  # all but the last few are broken for good
            whole = text[: max(len(whole), len(text) - _OPEN_BYTES)]
        pieces.append(whole[shown:] or PARTIAL)
        shown = max(shown, len(whole))
        if whole == text or long:
            before, start = start, end
            shown = len(decode(ids[before:start])) - (len(text) - len(whole))
    return pieces
