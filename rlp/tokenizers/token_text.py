"""The text of single tokens."""

from collections.abc import Callable, Sequence

# Shown for a token with an incomplete character; the token that completes it shows the character.
PARTIAL = "◌"
_OPEN_BYTES = 3  # maximum bytes of an incomplete character
_LONGEST_SPAN = 64  # maximum tokens of broken characters to decode together; bounds O(n²) time


def byte_letters() -> dict[int, str]:
    """Return the letter that byte-level BPE writes for each byte.

    Bytes that are not printable characters are written as characters from U+0100 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + index) for index, byte in enumerate(others)}


def pieces_of(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> list[str]:
    """Return the text that each token adds to the text of the tokens before it.

    Decoding a token alone would lose the space that some tokenizers put before a word, so each
    token is decoded together with the span before it.

    Args:
      decode: Returns the text of ids.
      ids: The ids of the tokens.
    """
    pieces: list[str] = []
    before, start = 0, 0  # ids[before:start] is the last complete span, ids[start:] is incomplete
    shown = 0  # characters of decode(ids[before:]) that are already part of a piece
    for end in range(1, len(ids) + 1):
        text = decode(ids[before:end])
        # Broken characters at the end (with some tokenizers one for each byte) may be the beginning
        # of a character that the next tokens complete.
        complete = text.rstrip("\N{REPLACEMENT CHARACTER}") if end < len(ids) else text
        too_long = end - start >= _LONGEST_SPAN
        if too_long:  # only the last few can still be completed
            complete = text[: max(len(complete), len(text) - _OPEN_BYTES)]
        pieces.append(complete[shown:] or PARTIAL)
        shown = max(shown, len(complete))
        if complete == text or too_long:
            before, start = start, end
            shown = len(decode(ids[before:start])) - (len(text) - len(complete))
    return pieces
