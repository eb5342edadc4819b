"""Parse formulas with math-verify, and normalize their texts."""

import logging
import re
from typing import Any, Self

from rlp.answers.verifiers import quantities
from rlp.answers.verifiers.markup import BULLET, closing_braces, formula

_SIGNS = {
    "USD": "$",
    "US$": "$",
    "EUR": "\u20ac",
    "GBP": "\u00a3",
    "INR": "\u20b9",
    "Rs.": "\u20b9",
}
_CURRENCY = re.compile(r"^(USD|US\$|EUR|GBP|INR|Rs\.)\s?(?=[-\d])")
SHORT = 200  # maximum characters of a text that can be an answer as a whole
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
COMMAND = re.compile(r"\\[A-Za-z]{1,30}")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s?\{[a-z*]{1,12}\}")
_WORD = re.compile(r"[^\W\d_]{1,60}")
_OF_FORMULAS = {
    "and", "or", "sqrt", "pi", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "lim",
    "max", "min", "gcd", "lcm", "mod", "infinity", "inf", "base", "percent", "per", "square",
    "cubic", "sq", "cu", "am", "pm", "no", "oo",
}  # fmt: skip
_OF_TEXTS = {
    "is", "to", "of", "in", "so", "we", "he", "it", "at", "on", "as", "be", "do", "go", "if", "me",
    "my", "up", "us", "an", "no", "by",
}  # fmt: skip
_DECIMAL_COMMA = re.compile(r"^[-+]?\d{1,20},\d{1,20}$")
_THOUSANDS = re.compile(r"^[-+]?[1-9]\d{0,2},\d{3}$")
_EXCLAIMED = re.compile(r"^([^!]{0,99}\d)!{1,9}$")
_FACTORIAL = re.compile(r"(?<!\d)\d{1,3}!$")  # the factorial of a larger number would take too long
_ASSIGNED = re.compile(r"\$?([A-Za-z])\s?=\s?([^=$]{1,60})\$?")
_NEXT = re.compile(r"[,;]?\s(?:and\s)?|[,;]")
_STYLE = re.compile(r"\\(?:mathbf|boldsymbol|bm|mathrm|textbf|text|mathit|mathsf)\s?(?=\{)")
_NUMBER_IN_TEXT = re.compile(  # "42 apples", but neither "42 or 43" nor "42 squared"
    r"(?i)^([-+]?\d[\d.,/]{0,60})\s(?!(?:[a-z]{1,30}\s){0,9}(?:or|and|to|more|less|times|plus|minus|over"
    r"|squared|cubed|factorial|percent|hundred|thousand|dozen|x|y)\b)[a-z][a-z' -]{0,99}$"
)
_DOZENS = re.compile(r"(?i)(\d{1,9}(?:\.\d{1,3})?)\sdozens?\b")
_SPACED = re.compile(r"^([-+$]{0,2}\d{1,3})((?: \d{3})+)(?=\D|$)")


class MathAnswer(str):
    """The text of an answer, for display, with its parsed values, for comparison.

    Attributes:
      values: values that math-verify parses; the first is the most likely, others are alternatives.
      whole: the text that contains the answer, if it is short: "March 5".
      decimal: for "3,142", which has a thousands separator, the text with a decimal point instead.
    """

    values: list[Any]
    whole: str = ""
    decimal: str = ""

    def within(self, text: str) -> Self:
        """Set `text` as the text that contains the answer, and return the answer."""
        self.whole = text if len(text) <= SHORT else ""
        return self

    def or_else(self, other: Self) -> Self:
        """Add the values of another answer as alternatives, and return the answer."""
        self.values = self.values + [x for x in other.values if x not in self.values]
        return self

    @classmethod
    def of(cls, text: str, *others: str, values: list[Any] | None = None) -> Self:
        """Parse the answer of a text, with alternative readings `others`."""
        answer = cls(text)
        answer.values = values or [x for t in (text, *others) for x in read(f"\\boxed{{{t}}}")]
        return answer


def be_quiet() -> None:
    """Silence math-verify's warning that its time limit is off; ours is on the whole process."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)


def read(text: str, both: bool = False) -> list[Any]:
    """Return what math-verify parses: the expression, or its text if it cannot be parsed; with
    `both`, the expression followed by its text."""
    from math_verify import parse  # on demand: it takes a second, and few programs need it

    be_quiet()
    parsed = parse(text, parsing_timeout=None)
    return parsed if both else parsed[:1]


def of_formula(text: str, *others: str) -> MathAnswer:
    """Parse a formula without its delimiters."""
    text = bare(text)
    if spaced := _SPACED.match(text):
        text = spaced[1] + spaced[2].replace(" ", "") + text[spaced.end() :]
    answer = MathAnswer.of(formula(text), *map(formula, others))
    if (in_words := quantities.number_in_words(text)) is not None:
        answer.values += read(f"\\boxed{{{in_words}}}")
    if (number := quantities.quantity(text)) and number.measured:
        answer.values += [
            x for x in read(f"\\boxed{{{formula(number.number)}}}") if x not in answer.values
        ]
    if counted := _NUMBER_IN_TEXT.match(quantities.without_wrappers(text)):
        answer.values += read(f"\\boxed{{{formula(counted[1])}}}")
    return with_dozens(answer, quantities.without_wrappers(text))


def with_dozens(answer: MathAnswer, text: str = "") -> MathAnswer:
    """Add the number that dozens stand for to an answer such as "2 dozen" (in `text` if given)."""
    if dozens := _DOZENS.match(text or answer):
        answer.values += read(f"\\boxed{{12 \\times {dozens[1]}}}")
    return answer


def unboxed(text: str) -> MathAnswer:
    """Parse a formula without a box, with alternative meanings of its signs: in 0,5 the comma may
    be a decimal point, in 42! the sign an exclamation mark, a dash before a number a minus."""
    plain, others = _without_bullet(text), []
    if plain != text and re.match(r"[\d.\\]", plain):
        others.append(f"-{plain}")
    if exclaimed := _EXCLAIMED.match(plain):
        others.append(exclaimed[1])
        plain = plain if _FACTORIAL.search(plain) else exclaimed[1]
    assigned = [_ASSIGNED.fullmatch(part) for part in _NEXT.split(re.sub(r"\s?=\s?", "=", plain))]
    if len({match and match[1] for match in assigned} - {None}) == len(assigned) > 1:
        others.append(assigned[-1][2])  # type: ignore[index]  # the last of several variables
    decimal = plain.replace(",", ".") if _DECIMAL_COMMA.match(plain) else ""
    thousands = _THOUSANDS.match(plain)
    answer = of_formula(plain, *others, *([decimal] if decimal and not thousands else []))
    answer.decimal = decimal if thousands else ""
    return answer


def _without_bullet(text: str) -> str:
    return text.strip().removeprefix(BULLET).strip()


def bare(text: str) -> str:
    """Remove dollar signs, LaTeX delimiters and punctuation around a text."""
    text = _CURRENCY.sub(lambda m: _SIGNS[m[1]], text.strip(' \t\n"'))
    for _ in range(3):
        while text and text[-1] in ".,;: \n-\u2013\u2014" and text[-2:-1] != "\\":
            text = text[:-1]
        for begin, end in _DELIMITERS:
            inner = text[len(begin) : -len(end)]
            if len(text) > len(begin) + len(end) and text.startswith(begin) and text.endswith(end):
                text = inner.strip() if begin not in inner and end not in inner else text
    style = _STYLE.match(text)
    if style and closing_braces(text).get(style.end()) == len(text) - 1:
        inner = text[style.end() + 1 : -1]
        return bare(inner) if "{" in inner else text
    return text[1:-1] if re.fullmatch(r"\{[A-Za-z\d]{2,60}\}", text) else text


def is_formula(text: str) -> bool:
    """Return whether a text is only a formula, optionally with a unit."""
    text = _without_bullet(text)
    if "\n" in text.strip() or text.count("$") > 2:
        return False
    if re.fullmatch(r"\d{1,9} to \d{1,9}", text):
        return True
    if re.search(r"\d \d", text) and not _SPACED.fullmatch(text):
        return False
    plain = COMMAND.sub(" ", quantities.without_wrappers(_ENVIRONMENT.sub(" ", bare(text))))
    number = quantities.quantity(bare(text)) or quantities.clock(text)
    words = _WORD.findall(plain)
    if not words and not re.search(r"\d|\\", text):
        return False
    if number and re.match(r"^[-+\u20ac\u00a3$\\]{0,3}[\d.(]", bare(text)) and len(words) <= 4:
        return True
    return all(
        word.lower() in _OF_FORMULAS
        or (len(word) <= 2 and word.lower() not in _OF_TEXTS and ord(word[0]) < 0x400)
        or (len(words) == 1 and word.isupper() and len(word) <= 4)
        for word in words
    ) and bool(words or re.search(r"\d|\\", text))
