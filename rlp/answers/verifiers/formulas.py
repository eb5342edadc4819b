"""Formulas as texts and as what math-verify reads in them."""

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
SHORT = 200  # characters of a text that may be an answer as a whole
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
_FACTORIAL = re.compile(r"(?<!\d)\d{1,3}!$")  # of a larger number, it would take too long
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
    """The text of an answer, for showing, with what is compared.

    Attributes:
      values: what math-verify reads in it; the first is meant, others are other ways to read it.
      whole: the text that it was read in, where that is short: "March 5".
      decimal: of "3,142", which is a number of thousands, how a comma as a decimal point reads.
    """

    values: list[Any]
    whole: str = ""
    decimal: str = ""

    def within(self, text: str) -> Self:
        """The same answer, read in `text`."""
        self.whole = text if len(text) <= SHORT else ""
        return self

    def or_else(self, other: Self) -> Self:
        """The same answer, which may also be read as another one."""
        self.values = self.values + [x for x in other.values if x not in self.values]
        return self

    @classmethod
    def of(cls, text: str, *others: str, values: list[Any] | None = None) -> Self:
        """The answer that a text says, which may also be read as `others`."""
        made = cls(text)
        made.values = values or [x for each in (text, *others) for x in read(f"\\boxed{{{each}}}")]
        return made


def be_quiet() -> None:
    """The library warns that its own time limit is off; whole processes have one here."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)


def read(text: str, both: bool = False) -> list[Any]:
    """What math-verify reads: the expression, or its text where it has none; with `both`, the text
    behind the expression."""
    from math_verify import parse  # here: it takes a second, and few programs need it

    be_quiet()
    found = parse(text, parsing_timeout=None)
    return found if both else found[:1]


def of_formula(text: str, *others: str) -> MathAnswer:
    """A formula without what surrounds it."""
    text = bare(text)
    if spaced := _SPACED.match(text):
        text = spaced[1] + spaced[2].replace(" ", "") + text[spaced.end() :]
    answer = MathAnswer.of(formula(text), *map(formula, others))
    if (said := quantities.number_in_words(text)) is not None:
        answer.values += read(f"\\boxed{{{said}}}")
    if (number := quantities.quantity(text)) and number.measured:
        answer.values += [
            x for x in read(f"\\boxed{{{formula(number.number)}}}") if x not in answer.values
        ]
    if counted := _NUMBER_IN_TEXT.match(quantities.without_wrappers(text)):
        answer.values += read(f"\\boxed{{{formula(counted[1])}}}")
    return with_dozens(answer, quantities.without_wrappers(text))


def with_dozens(answer: MathAnswer, text: str = "") -> MathAnswer:
    """An answer that counts dozens, in `text` if given, with the number that they are."""
    if dozens := _DOZENS.match(text or answer):
        answer.values += read(f"\\boxed{{12 \\times {dozens[1]}}}")
    return answer


def unboxed(text: str) -> MathAnswer:
    """A formula that stands alone in prose, with what else its signs may mean: of 0,5 the comma may
    be a decimal point, of 42! the sign an exclamation, of a dash before a number a minus."""
    plain, others = _without_bullet(text), []
    if plain != text and re.match(r"[\d.\\]", plain):
        others.append(f"-{plain}")
    if exclaimed := _EXCLAIMED.match(plain):
        others.append(exclaimed[1])
        plain = plain if _FACTORIAL.search(plain) else exclaimed[1]
    assigned = [_ASSIGNED.fullmatch(part) for part in _NEXT.split(re.sub(r"\s?=\s?", "=", plain))]
    if len({each and each[1] for each in assigned} - {None}) == len(assigned) > 1:
        others.append(assigned[-1][2])  # type: ignore[index]  # the last of several variables
    decimal = plain.replace(",", ".") if _DECIMAL_COMMA.match(plain) else ""
    thousands = _THOUSANDS.match(plain)
    answer = of_formula(plain, *others, *([decimal] if decimal and not thousands else []))
    answer.decimal = decimal if thousands else ""
    return answer


def _without_bullet(text: str) -> str:
    return text.strip().removeprefix(BULLET).strip()


def bare(text: str) -> str:
    """A text without dollar signs, brackets of LaTeX or a full stop around it."""
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
    """Whether a text has nothing but a formula, with its unit at most."""
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
