"""Untrusted text is displayed without anything that a terminal interprets, and else unchanged."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.runtime.display import error_lines, markdown_cell, markdown_code, printable, tag
from rlp.runtime.errors import UserCodeError, UserError

ANY = st.text(st.characters(exclude_categories=()))  # includes lone surrogates
MarkdownIt = pytest.importorskip("markdown_it").MarkdownIt  # a dependency of rich
BAD = "\x1b]0;owned\x07 \r\n \u202etxt.exe \u2066 \ud800 \x9b31m <script>alert(1)</script> | `x` $"


def moves(character: str) -> bool:
    """Whether a terminal interprets a character instead of showing it."""
    directed = unicodedata.bidirectional(character) in {
        *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
    }
    return directed or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


@given(ANY)
def test_printable_text_moves_nothing_and_can_be_encoded(text):
    shown = printable(text)
    assert not any(map(moves, shown))
    shown.encode()


@given(st.text(st.characters(exclude_categories=("C", "Zl", "Zp"))))
def test_other_text_is_left_as_it_is(text):
    assert printable(text) == text


def test_what_is_kept_and_what_joins_letters_is_left_as_it_is():
    joined = "\U0001f468\u200d\U0001f469 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u3000"
    assert printable(joined) == joined
    assert printable("a\tb\nc\rd", keep="\n\t") == "a\tb\nc\\x0dd"
    assert printable("\x1b[31m\u202e\ud800") == "\\x1b[31m\\u202e\\ud800"


@given(ANY, ANY)
def test_tags_are_different_where_texts_are(one, other):
    for text in (one, other):
        tag(text).encode()
        assert not set("<>&\"'") & set(tag(text))
    assert (tag(one) == tag(other)) == (one == other)


def test_tags_of_figures_are_their_names():
    for name in ("loss", "evaluation/accuracy/gsm8k-test.jsonl", "seconds_update", "a b+c=d,e"):
        assert tag(name) == name


@settings(max_examples=40)
@pytest.mark.parametrize("cell", [markdown_cell, markdown_code])
@given(text=st.one_of(st.just(BAD), ANY, st.text("|`\\*_<>[]&~ab\n-", max_size=12)))
def test_a_cell_shows_the_text_and_nothing_leaves_it(cell, text):
    table = f"| a | b |\n| - | - |\n| {cell('x' + text)} | end |\n"
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table)
    cells = [token for token in tokens if token.type == "inline"]
    assert len(cells) == 4
    shown = "".join(part.content for part in cells[2].children)
    assert shown.rstrip() == printable("x" + text).rstrip()
    kinds = {part.type for part in cells[2].children}
    assert kinds <= {"text", "code_inline", "text_special"}
    assert cells[3].content == "end"


def test_an_error_is_one_line_and_the_frames_of_the_users_code():
    assert error_lines(UserError("no\n folder \x1b[2J")) == "error: no folder \\x1b[2J"
    error = UserCodeError("mine raised", '  File "mine.py", line 3, in f\n    1 / 0\x1b\n')
    assert error_lines(error) == (
        'error: mine raised\n  File "mine.py", line 3, in f\n    1 / 0\\x1b'
    )
