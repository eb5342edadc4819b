"""Reading the output of a model takes time linear in its length, whatever the model wrote."""

import contextlib
import time

import numpy as np
import pytest

from rlp.answers import strict_equality, verifiers
from rlp.answers.planning_phrases import PHRASES, planning_actions
from rlp.answers.verifiers import formulas, quantities
from rlp.answers.verifiers.choices import choice
from rlp.answers.verifiers.markup import announced, boxes, formula, meant_boxes, spoken, tidy
from rlp.answers.verifiers.mathematics import gold_expression
from rlp.answers.verifiers.responses import after_thought, answer_region, stated_confidence
from rlp.evaluation.benchmarks.choices import last_line
from rlp.evaluation.benchmarks.extractors import CHOICES, HASHES, MATHEMATICS
from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer

BYTES = ByteTokenizer()


def planned(text):
    ids = np.array(BYTES.encode(text))[None, None, :]
    return planning_actions(ids, np.array([[ids.shape[-1]]]), BYTES.token_bytes(), PHRASES)


READERS = {  # functions, each with the number of characters to test
    "after_thought": (lambda text: after_thought(text, "<think>", "</think>", False), 480_000),
    "answer_region": (answer_region, 480_000),
    "stated_confidence": (stated_confidence, 480_000),
    "exact": (lambda text: verifiers.VERIFIERS["exact"].answer(text, 0), 480_000),
    "choice": (lambda text: choice(text, 4), 480_000),
    "tidy": (tidy, 24_000),
    "boxes": (boxes, 48_000),
    "meant_boxes": (meant_boxes, 48_000),
    "announced": (announced, 48_000),
    "formula": (formula, 24_000),
    "spoken": (spoken, 24_000),
    "bare": (formulas.bare, 24_000),
    "is_formula": (formulas.is_formula, 24_000),
    "quantity": (quantities.quantity, 24_000),
    "number_in_words": (quantities.number_in_words, 24_000),
    "gold_expression": (lambda text: gold_expression(text, None), 24_000),
    "planning": (planned, 24_000),
    "extractors": (
        lambda text: [x.answer(text) for x in (*CHOICES, *MATHEMATICS, HASHES)],
        480_000,
    ),
    "last_line": (last_line, 480_000),
    "without_ending": (strict_equality.without_ending, 480_000),
    "is_delimited": (strict_equality.is_delimited, 480_000),
}
PIECES = (
    "1", "1,", "1.", "1 ", "a", "a ", "A\n", "*", "**a", "_a", "`", "\n", " ", "{", "}", "\\", "$",
    "\\(", "\\[", "(", "[", "- 1\n", "<confidence>", "<confidence>1", "<answer>", "</answer>",
    "<think>", "\\boxed{", "answer is ", "the answer ", "wait ", "option A or ", "A. x\n",
    "1 million ", "x^", "\\sqrt{", "3!", "Answer:", "Answer: ", "The final answer is ", "#### ",
    "A ", "\u4e00", "\u221a(", "\u0301",
)  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_long_text_is_read_in_linear_time(name):
    """A quadratic pattern takes minutes for one of these; a linear one less than 0.2 seconds."""
    read, length = READERS[name]
    for piece in PIECES:
        text = (piece * length)[:length]
        begin = time.process_time()
        for variant in (text, "\\boxed{1} " + text + "x"):
            with contextlib.suppress(UserError):
                read(variant)
        assert time.process_time() - begin < 4, piece


@pytest.mark.parametrize("digits", [12_000, 48_000, 480_000])
def test_a_confidence_of_many_digits_is_none(digits):
    for text in ("1" * digits, "<confidence>" + "1" * digits, "<confidence>0." + "1" * digits):
        begin = time.process_time()
        assert stated_confidence(text) is None
        assert stated_confidence(text + "</confidence>") is None
        assert time.process_time() - begin < 1


@pytest.mark.parametrize("broken", [[0xE2], [0xE2, 0x82], [0xFF], [0xF0, 0x9F, 0x98]])
def test_pieces_of_broken_characters_take_linear_time(broken):
    """The characters after them are complete."""
    ids = [*broken * (24_000 // len(broken)), *BYTES.encode("a\u20acb")]
    begin = time.process_time()
    pieces = BYTES.pieces(ids)
    assert time.process_time() - begin < 4
    assert len(pieces) == len(ids)
    assert "".join(pieces).replace("\u25cc", "").endswith("a\u20acb")
