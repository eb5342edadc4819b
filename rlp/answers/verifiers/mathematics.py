"""Mathematical answers, parsed and compared by math-verify, with corrections.

The answer of a response is the content of its last box; without a box, the text after "The answer
is" or a similar phrase; otherwise the last formula or number. math-verify compares values;
`equality` compares what it ignores: units, times of day, bases, the order of letters, repetitions
in a list, and the ratio of small numbers.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any

from rlp.answers.verifiers import quantities
from rlp.answers.verifiers.equality import same
from rlp.answers.verifiers.formulas import (
    COMMAND,
    SHORT,
    MathAnswer,
    bare,
    is_formula,
    of_formula,
    read,
    unboxed,
    with_dozens,
)
from rlp.answers.verifiers.markup import BOX, BULLET, announced, boxes, meant_boxes, spoken, tidy
from rlp.runtime.errors import UserError

MAX_LENGTH = 20_000  # characters at the end of a response that are searched for the answer
MAX_WORDS = 40  # maximum words of a gold answer
_NO_ANSWERS = {
    "correct", "wrong", "right", "not", "incorrect", "yours", "unknown", "unclear", "therefore",
    "given", "simply", "the", "then", "this", "that", "obvious", "clear", "here", "below", "above",
    "a", "an", "it", "in", "as", "of", "to", "now", "thus", "so", "i", "we", "what", "just",
    "nothing", "none", "sorry", "answer", "solution", "result",
}  # fmt: skip
_REST = re.compile(
    r"(?i)(?:[,;:]?\s(?:because|since|as|which|where|when|not|for|so|after|if|but|thus|hence|given|that"
    r"|in total|per|while|by|out of)\b|[,;]\s(?:and\s(?:not|so)\b|or\snot\b|I\b)|\s[\u2013\u2014(]"
    r"|[.!?;](?:\s|$)|\s-\s(?=[A-Za-z])|(?<=[\d)}%$])\s?[\u3040-\u9fff\uac00-\ud7af])"
)
_LINKED = re.compile(r"(?i)\s(?:and|or)\s*$")  # the end of "12 and" in "12 and not 13"
_NUMBER_AND_WORDS = re.compile(
    r"^(?:about\s|exactly\s|approximately\s)?([-+]?[\d.,/]{1,60}%?)"
    r"\s(?!(?:plus|minus|divided|raised|choose|factorial|squared|cubed)\b)"
    r"[A-Za-z][A-Za-z' -]{0,99}[.!]?$"
)
_FIRST_LINE = re.compile(
    r"^\s{0,20}\*\*([^*\n]{1,60})\*\*[.!]?[ \t]{0,9}\n\s{0,20}(?=[A-Z])[^*]{1,2000}$"
)
_REMARKED = re.compile(r"^\s{0,20}\*\*([^*\n]{1,60})\*\*[ \t]\([^()\n]{1,99}\)[.!]?\s{0,20}$")
_SUM_AFTER = re.compile(  # "45 (42 + 3)."
    r"(?<=[\d%}$])[ \t]"
    r"\((?=[^()\n]{0,60}\d\s?(?:[-+*/=]|\bx\b|\\times|\\cdot|plus|minus|times)\s{0,2}\d)"
    r"[^()\n]{1,99}\)[.!]?\s{0,20}$"
)
_DOLLARS = re.compile(r"\\\$\s?(?=\d)")  # an amount of money, which does not open a formula
_AFTER_BULLET = re.compile(rf"(?:^|\n)\s{{0,9}}[-{BULLET}]\s{{1,9}}\$?$")
_NOT_BUT = re.compile(r"(?i)^not\s[^.!?\n]{1,60}?\bbut\s(?:rather\s)?")
_WHICH_IS = re.compile(r"(?i)\b(?:which|that)\s(?:is|equals|gives|makes)\s(?=[-$\d\\])")
_FORMULA = re.compile(  # between its delimiters; "$" before a space is not a closing delimiter
    r"(?<!\\)\$\$([^$]{1,300})\$\$|(?<![\\$])\$(?=[^\s$])([^$\n]{1,200})(?<=[^\s\\])\$(?![\d$])"
    r"|\\\(([^$\n]{1,200}?)\\\)|\\\[([^$]{1,300}?)\\\]"
)
_BARE = re.compile(  # roots and powers of ten in prose, without LaTeX delimiters
    r"(?<![\w.\\{^])((?:-?\d{1,20}\s?[-+]\s?)?-?(?:\d{0,20}\s?\\sqrt\{[\w.]{1,30}\}"
    r"|\d{1,20}(?:\.\d{1,20})?\s?\\times\s{0,2}10\s?\^\s?(?:\{-?\d{1,4}\}|-?\d{1,4}))(?:/\d{1,9})?)"
    r"(?=(?!\s?[-+*/^=\\])[^\d]{0,200}(?:\^\{?[23]\}?[^\d]{0,200})?$)"
)
_UNIT = re.compile(
    r"\s?(?!in\s[A-Za-z])(?:\\%|%|\\?\$|(?:square\s|cubic\s)?[A-Za-z\u00b0\u00b5/^{}23]{1,30}(?:\s(?:squared|cubed)\b)?"
    r"(?:\s?(?:per\s|/\s?)[A-Za-z^{}23]{1,30}(?:\s(?:squared|cubed)\b)?)?)"
)
_WORDS = re.compile(  # phrases that answer a problem without a number
    r"(?i)^(?:there\s(?:is|are)\s)?(?:no\s(?:real\s|such\s)?(?:solutions?|roots?|values?|numbers?)"
    r"|does\snot\sexist|undefined|impossible|not\spossible|infinitely\smany(?:\ssolutions)?"
    r"|all\sreal\snumbers|cannot\sbe\sdetermined|not\senough\sinformation)$"
)
_ONE_WORD = re.compile(r"^[A-Za-z]{2,30}(?:-[A-Za-z]{2,30}){0,2}[.!]?$")


def math_answer(response: str) -> MathAnswer | None:
    """Return the content of the last box, else the announced answer, else the last formula or
    number."""
    text = tidy(response[-MAX_LENGTH:])
    if found_boxes := meant_boxes(text):
        return _boxed(text, found_boxes)
    statements = [rest for rest in announced(text) if not BOX.search(rest)]
    phrases = [answer.within(bare(rest)) for rest in statements if (answer := _phrase(rest))]
    formulas = [answer for answer in phrases if not _ONE_WORD.match(answer)]
    if phrases:
        return (formulas or phrases)[-1]
    stripped = text.strip()
    if BOX.search(stripped):
        return None  # a box that is not closed, or empty
    raw = response[-MAX_LENGTH:]
    if (first := _FIRST_LINE.match(raw) or _REMARKED.match(raw)) and is_formula(first[1]):
        return unboxed(tidy(first[1]))  # the answer, followed by its reasons
    if len(stripped) <= SHORT and (is_formula(stripped) or _is_word(bare(stripped))):
        return unboxed(stripped)
    answer = _last(text)
    return answer and answer.within(bare(statements[-1] if statements else stripped))


def math_equal(extracted: str, gold: str) -> bool:
    """Return whether two expressions are equal, or close numbers."""
    gold_answer = gold if isinstance(gold, MathAnswer) else _parse(gold)
    answer = extracted if isinstance(extracted, MathAnswer) else _parse(extracted)
    if answer.decimal and answer.decimal == gold and not isinstance(gold, MathAnswer):
        return True  # the gold answer of the file has three decimals, too
    return same(gold_answer, answer)


def gold_expression(answer: object, options: Sequence[str] | None) -> str:
    """Return the gold answer from the value of a file: a number, a formula or a few words, or the
    content of the last box of a solution.

    Raises:
      UserError: If it is a whole solution; the message continues "the gold answer".
    """
    text = str(answer).strip()
    if found_boxes := boxes(text):
        return found_boxes[-1][2]
    if "####" in text:
        raise UserError("contains '####'; set data.problems.answer_marker='####'")
    words = len(re.findall(r"[^\W\d_]{2,}", COMMAND.sub(" ", text)))
    if words > MAX_WORDS:
        raise UserError(
            f"is a text of {words} words, which no response would repeat; set "
            "data.problems.answer_column to a column with only the answer, or "
            "data.problems.answer_marker to the text before it"
        )
    return text


@functools.lru_cache(maxsize=256)  # the responses of a group share their gold answer
def _parse(text: str) -> MathAnswer:
    """Parse a gold answer from a file."""
    text = tidy(text).strip()
    found_boxes = boxes(text)
    return of_formula(found_boxes[-1][2] if found_boxes else text)


def _boxed(text: str, found_boxes: list[tuple[int, int, str]]) -> MathAnswer:
    """Parse the content of the last box; boxes joined by "and" or commas may also be a list."""
    joined = [found_boxes[-1]]
    for box in reversed(found_boxes[:-1]):
        between = text[box[1] : joined[0][0]]
        if (
            len(between) > 20
            or quantities.without_wrappers(between).strip(" $,;\n") not in ("", "and", "or")
            or not between.strip(" $\n")
        ):
            break
        joined.insert(0, box)
    others = [", ".join(content for _, _, content in joined)] if len(joined) > 1 else []
    content = spoken(found_boxes[-1][2])
    statements = announced(quantities.without_wrappers(content))
    if statements and (answer := _phrase(statements[-1])):
        return answer
    return of_formula(content, *others)


def _phrase(rest: str) -> MathAnswer | None:
    """Parse the answer at the beginning of the text after "The answer is"; None for prose."""
    if time := _leading_time(rest):
        return MathAnswer.of(time)
    without_note = _SUM_AFTER.sub("", rest)  # a calculation in parentheses is not a factor
    if without_note != rest and (answer := _phrase(without_note)):
        return answer.or_else(of_formula(rest))
    rest = spoken(_NOT_BUT.sub("", rest))
    cut = _REST.search(rest)
    for text in (rest, _LINKED.sub("", rest[: cut.start()]) if cut else rest):
        text, end = text.strip().rstrip(".!;,:").strip(), text.strip()
        if text and len(text) <= SHORT and is_formula(text):
            factorial = re.fullmatch(r"\d{1,3}!", end)
            return unboxed(end if factorial else text)
        if _is_word(bare(quantities.without_wrappers(text))) or quantities.number_in_words(text):
            return of_formula(text)
        if number := _NUMBER_AND_WORDS.match(text):
            return with_dozens(MathAnswer.of(text, values=read(number[1])))
    later = _WHICH_IS.search(rest)
    return _phrase(rest[later.end() :]) if later else None


def _is_word(text: str) -> bool:
    """Return whether a text is a word, or one of a few phrases, that can be an answer."""
    if _WORDS.match(text.rstrip(".!")):
        return True
    return bool(_ONE_WORD.match(text)) and text.lower().strip(".!") not in _NO_ANSWERS


def _leading_time(text: str) -> str | None:
    match = re.match(r"(?i)\d{1,2}(?::\d{2})?\s{0,3}[ap]\.?\s?m\b\.?", text)
    return match[0].rstrip(".") if match else None


def _last(text: str) -> MathAnswer | None:
    """Parse the last formula or number of a text, with the unit after it."""
    text = _DOLLARS.sub("USD ", _SUM_AFTER.sub("", text))
    if not re.search(r"\$|\\[(\[]|\\begin", text):
        text = _BARE.sub(r"$\1$", text)
    parsed = read(text, both=True)
    if not parsed:
        return of_formula(text.strip()) if "\\" in text and len(text) <= SHORT else None
    values, last = [x for x in parsed if not isinstance(x, str)], str(parsed[-1]).strip()
    last = last.rstrip(".*_ \n-") or last
    start = text.rfind(last)
    rest = text[start + len(last) : start + len(last) + 60] if start >= 0 else ""
    if time := re.search(
        r"(?i)(\d{1,2}:)?\d{1,2}\s{0,3}[ap]\.?\s?m\b", text[max(start - 6, 0) :][:80]
    ):
        return MathAnswer.of(time[0])
    if start >= 0 and (answer := _in_formula(text, start, start + len(last), values)):
        return answer
    before = text[max(start - 4, 0) : start].replace("USD ", "$").lstrip()
    unit = _UNIT.match(rest)
    for with_unit in (
        last + unit[0] if unit else "",
        before[-1:] + last if before[-1:] in "$\u20ac\u00a3" else "",
    ):
        if with_unit and quantities.quantity(with_unit):
            return MathAnswer.of(with_unit, values=values or read(with_unit))
    answer = MathAnswer.of(last, values=values or [last])
    if _AFTER_BULLET.search(text[:start][-20:]):
        answer = answer.or_else(MathAnswer.of(f"-{last}"))  # the bullet may have been a minus
    return with_dozens(answer, last + rest)


def _in_formula(text: str, start: int, end: int, values: list[Any]) -> MathAnswer | None:
    """Parse the formula between delimiters that contains text[start:end], which math-verify has
    parsed, with the unit in or after it; None if no formula contains it."""
    for match in _FORMULA.finditer(text):
        if match.start() <= start and end <= match.end():
            content = next(filter(None, match.groups())).strip()
            unit = _UNIT.match(text, match.end())
            value = content.rpartition("=")[2].strip()
            for with_unit in (value + " " + unit[0].strip() if unit else "", value):
                if with_unit and quantities.quantity(with_unit):
                    answer = of_formula(with_unit)
                    break
            else:
                answer = of_formula(content)
            answer.values += [x for x in values if x not in answer.values]
            return answer
    return None
