"""A response ends at its first stop string, however its tokens arrive and are decoded."""

import numpy as np
import pytest

from rlp.evaluation.generation.requests import Reader, Request

ALPHABET = "ab c\n\u00e9\u4e2d\U0001f600"
PROMPT = tuple("a \u4e2d".encode())


def whole(ids) -> str:
    """Ids are bytes, as in byte-level BPE."""
    return bytes(ids).decode(errors="replace")


def without_space(ids) -> str:
    """The space at the beginning is dropped, as in SentencePiece."""
    return whole(ids).removeprefix(" ")


def broken_runs(ids) -> str:
    """One broken character breaks all of its run of bytes, as in byte fallback."""
    text, run = "", b""
    for byte in [*ids, None]:
        if byte is not None and byte >= 128:
            run += bytes([byte])
            continue
        try:
            text += run.decode()
        except UnicodeDecodeError:
            text += "\ufffd" * len(run)
        text += "" if byte is None else chr(byte)
        run = b""
    return text


def joined(ids) -> str:
    """There are spaces between tokens."""
    return " ".join(map(chr, ids))


DECODERS = [whole, without_space, broken_runs, joined]


def first_stop(request: Request, tokens, decode) -> tuple[int, str] | None:
    """Return the tokens and the text before the first stop string, by decoding all for each."""
    before = len(decode(request.prompt))
    for count in range(1, len(tokens) + 1):
        text = decode([*request.prompt, *tokens[:count]])[before:]
        if found := [text.find(stop) for stop in request.stop if stop in text]:
            return count, text[: min(found)]
    return None


def read(request: Request, tokens, sizes, decode) -> Reader:
    """Give tokens to a reader, so many at a time."""
    reader, at = Reader(request, decode), 0
    while reader.response is None and at < len(tokens):
        new = tokens[at : at + next(sizes)]
        reader.add(new, [0.0] * len(new))
        at += len(new)
    return reader


@pytest.mark.parametrize("decode", DECODERS)
def test_a_response_ends_with_the_first_token_that_completes_a_stop_string(decode):
    random, ended = np.random.default_rng(0), 0
    for _ in range(400):
        text = "".join(random.choice(list(ALPHABET), 40))
        tokens = list(text.encode())
        text = decode([*PROMPT, *tokens])[len(decode(PROMPT)) :]
        starts, lengths = random.integers(0, len(text), 2), random.integers(1, 9, 2)
        stop = tuple(text[a : a + n] for a, n in zip(starts, lengths, strict=True))
        request = Request(PROMPT, len(tokens), stop=("never", *stop))
        most = random.integers(1, 9)
        sizes = iter(lambda random=random, most=most: int(random.integers(1, most + 1)), None)
        response = read(request, tokens, sizes, decode).response
        count, cut = first_stop(request, tokens, decode)
        assert (len(response.tokens), response.text, response.finish) == (count, cut, "stop")
        ended += count < len(tokens)
    assert ended > 200


@pytest.mark.parametrize("decode", DECODERS)
def test_the_tokens_that_are_decoded_grow_in_proportion_to_the_response(decode):
    decoded = []

    def counted(ids):
        decoded.append(len(ids))
        return decode(ids)

    for length in (1000, 4000):
        decoded.clear()
        tokens = list((ALPHABET * length).encode())[:length]
        request = Request(PROMPT, length, stop=("never", "not once"))
        assert read(request, tokens, iter(lambda: 16, None), counted).response.finish == "length"
        assert sum(decoded) <= 8 * length


@pytest.mark.parametrize("decode", DECODERS[:2])
def test_what_is_shown_of_a_text_only_grows_and_ends_as_the_text(decode):
    random, held = np.random.default_rng(1), 0
    for _ in range(100):
        text = "".join(random.choice(list(ALPHABET), 20))
        tokens = list(text.encode())
        start, size = random.integers(0, len(text)), random.integers(1, 6)
        request = Request(PROMPT, len(tokens), stop=(text[start : start + size], "b c\n"))
        reader, shown = Reader(request, decode), ""
        for token in tokens:
            reader.add([token], [0.0])
            now = reader.shown()
            assert now.startswith(shown)
            held += reader.response is None and len(now) < len(decode([*PROMPT, *reader.tokens]))
            shown = now
            if reader.response is not None:
                break
        assert shown == reader.response.text
    assert held


def test_the_beginning_of_a_stop_string_is_not_shown():
    reader = Reader(Request((1,), 9, stop=("abc", "bd")), lambda ids: "".join(map(chr, ids)))
    shown = []
    for token in b"xabab":
        reader.add([token], [0.0])
        shown.append(reader.shown())
    assert shown == ["x", "x", "x", "xab", "xab"]
    reader.add(b"x", [0.0])
    assert reader.shown() == "xababx"
