"""The classes of words follow the rule of the module, and do not depend on the tokenizer."""

import pytest

from rlp.data.located_text import locate
from rlp.evaluation.measures.token_classes import CLASSES, classify
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.load import load_tokenizer
from tests.support import folders

BYTES = ByteTokenizer()
WORDS = {
    "number": ["12", "3.14", "1,000", "$5", "20%", "5km", "1st", "(7)", "-2,", "10:30"],
    "code": ["os.path", "f(x)", "a_b", r"\frac{1}{2}", "x=1", "<<48/2=24>>", "camelCase", "run()",
             "http://a.b", "`x`", "{"],
    "function": ["the", "of", "And", "don't", "can’t", "it's", "she,", "(which", "I'm",
                 "I", "without."],
    "name": ["Paris", "Mia's", "“Berlin”", "NASA", "U.S.", "O'Brien,"],
    "other": ["house", "running,", "well-known", "e.g.", "a.m.", "three", "naïve", "漢字", "X"],
}  # fmt: skip


def class_of(word: str, before: str = "we saw ") -> str:
    """The class of the tokens of a word with letters or digits, or of all if it has none."""
    document = locate(f"{before}{word} there", BYTES)
    first = len(before.encode())
    tokens = range(first, first + len(word.encode()))
    lettered = [t for t in tokens if document.text[document.spans[t, 0]].isalnum()]
    classes = {CLASSES[classify(document)[t]] for t in lettered or tokens}
    assert len(classes) == 1, classes
    return classes.pop()


@pytest.mark.parametrize(("name", "word"), [(n, w) for n, ws in WORDS.items() for w in ws])
def test_words_have_their_class(name, word):
    assert class_of(word) == ("name" if word == "X" else name)


@pytest.mark.parametrize("before", ["", "It ended. ", "so:\n", "He said: “Go!” ", "a\n  "])
def test_a_capital_at_the_beginning_is_not_a_name(before):
    assert class_of("House", before) == "other"
    assert class_of("NASA", before) == "name"
    assert class_of("The", before) == "function"


def test_punctuation_and_white_space_are_other_except_in_code():
    text = "In Paris, f(x) is 5."
    document = locate(text, BYTES)
    classes = [CLASSES[c] for c in classify(document)]
    expected = {"In": "function", "Paris": "name", "f(x)": "code", " is": "function", "5": "number"}
    for word, name in expected.items():
        end = text.index(word) + len(word)
        start = end - len(word.strip())
        assert classes[start:end] == [name] * (end - start)
    others = [classes[i] for i, c in enumerate(text) if c in " ," or i == len(text) - 1]
    assert set(others) == {"other"}


def test_tokenizers_agree_on_every_character(tmp_path):
    text = "Q: 5 + 5 = a_b, so the 漢字 of Paris is 25. And f(x)?"
    bpe = load_tokenizer(folders.folder_of(tmp_path, "bpe"))
    found = []
    for tokenizer in (BYTES, bpe):
        document = locate(text, tokenizer)
        of_character = ["other"] * len(text)
        for (start, end), c in zip(document.spans, classify(document), strict=True):
            for i in range(start, end):
                of_character[i] = CLASSES[c]
        found.append([c for c, character in zip(of_character, text, strict=True)
                      if character.isalnum()])  # fmt: skip
    assert found[0] == found[1]
    assert set(found[0]) == set(CLASSES)
