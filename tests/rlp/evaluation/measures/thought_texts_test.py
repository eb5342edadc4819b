"""Shuffling keeps the words of a thought; repetition and variety equal their definitions."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from rlp.evaluation.measures.thought_texts import distinct, names, repetition, shuffled
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.load import load_tokenizer
from rlp.tokenizers.word_tokenizer import WordTokenizer
from tests.support import folders

TEXTS = (
    *("the cat sat on  the\n\nmat . ", " a b c d 2 2 2 = = 5", "é 漢字 x", "one", ""),
    "\u3000x y\u3000z",
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    kinds = ("bpe", "space in front")
    made = [load_tokenizer(folders.folder_of(tmp_path_factory.mktemp("t"), k)) for k in kinds]
    return [ByteTokenizer(), *made]


@pytest.mark.parametrize("text", TEXTS)
def test_a_shuffled_thought_has_the_same_words_and_ids(tokenizers, text):
    for tokenizer in tokenizers:
        ids = tokenizer.encode(text)
        for seed in range(20):
            other = shuffled(ids, tokenizer, (seed,))
            assert Counter(other) == Counter(ids)
            words = lambda line, t=tokenizer: Counter(t.decode(line).split())
            assert words(other) == words(ids)


def test_every_order_of_the_words_occurs_and_a_seed_gives_one():
    tokenizer = WordTokenizer(("a", "b", "c"), "here")
    ids = tokenizer.encode("a b c")
    found = {shuffled(ids, tokenizer, (seed,)) for seed in range(100)}
    assert found == set(itertools.permutations(ids))
    assert shuffled(ids, tokenizer, (3, 4)) == shuffled(ids, tokenizer, (3, 4))


def test_broken_characters_are_not_separated_from_what_completes_them():
    tokenizer = ByteTokenizer()
    random = np.random.default_rng(0)
    for seed in range(50):
        ids = random.choice([0x20, 0x61, 0xE3, 0x80, 0xC3, 0xA9], 12).tolist()
        words = Counter(tokenizer.decode(ids).split())
        assert Counter(tokenizer.decode(shuffled(ids, tokenizer, (seed,))).split()) == words


@pytest.mark.parametrize(
    ("thought", "target", "expected"),
    [
        ("so it is 24 now", " 24", True),
        ("so it is 240 now", " 24", False),
        ("so it is 24", "24.", False),
        ("the cat sat", "cat sat ", True),
        ("concatenate", "cat", False),
        ("A Cat", "cat", False),
        ("x = f(1)", "f(1)", True),
        ("a . b", " . ", None),
    ],
)
def test_a_thought_names_a_target_that_it_contains_as_whole_words(thought, target, expected):
    assert names(thought, target) is expected


def test_repetition_is_one_minus_the_share_of_different_n_grams():
    words = ["a", "b", "a", "b", "a", "b", "c"]
    grams = [tuple(words[i : i + 4]) for i in range(4)]
    assert repetition(words) == 1 - len(set(grams)) / 4 == 0.25
    assert repetition(["a"] * 10) == 1 - 1 / 7
    assert repetition(["a", "b", "c", "d", "e"]) == 0
    assert repetition(["a", "b", "c"]) is None


def test_distinct_counts_n_grams_over_all_thoughts():
    thoughts = [["a", "b", "a"], ["a", "b"], []]
    assert distinct(thoughts, 1) == 2 / 5
    assert distinct(thoughts, 2) == 2 / 5  # (a, b) and (b, a)
    assert math.isnan(distinct([[]], 1))
