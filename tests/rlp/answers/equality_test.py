"""The text of an answer is compared without its layout."""

import pytest

from rlp.answers.verifiers import equality


@pytest.mark.parametrize(
    "text",
    [r"\left(a\right)", r"\displaystyle(a)", r"(a\,)", r"( a )", r"(\;a\:)\!", "(a)."],
)
def test_layout_commands_and_spaces_do_not_matter(text):
    assert equality._plain(text) == "(a)"


def test_sizes_of_fractions_do_not_matter():
    plain = {equality._plain(rf"\{name}12") for name in ("frac", "dfrac", "tfrac")}
    assert plain == {r"\frac12"}
