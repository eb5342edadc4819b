"""Answers that are mathematics: math-verify reads and compares them, less where it errs.

A response's answer is the content of its last box, else what follows "The answer is" and its kin,
else its last formula or number. The library compares values; what it does not look at (units, times
of day, bases, the order of letters, repeats in a list, how small a number is) `equality` compares.
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

LONGEST = 20_000  # characters at the end of a response in which its answer is looked for
MOST_WORDS = 40  # of a right answer
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
_LINKED = re.compile(r"(?i)\s(?:and|or)\s*$")  # what a cut leaves of "12 and not 13"
_NUMBER_AND_WORDS = re.compile(
    r"^(?:about\s|exactly\s|approximately\s)?([-+]?[\d.,/]{1,60}%?)"
    r"\s(?!(?:plus|minus|divided|raised|choose|factorial|squared|cubed)\b)"
    r"[A-Za-z][A-Za-z' -]{0,99}[.!]?$"
)
_FIRST_LINE = re.compile(
    r"^\s{0,20}\*\*([^*\n]{1,60})\*\*[.!]?[ \t]{0,9}\n\s{0,20}(?=[A-Z])[^*]{1,2000}$"
)
_REMARKED = re.compile(r"^\s{0,20}\*\*([^*\n]{1,60})\*\*[ \t]\([^()\n]{1,99}\)[.!]?\s{0,20}$")
_SUM_BEHIND = re.compile(  # "45 (42 + 3)."
    r"(?<=[\d%}$])[ \t]"
    r"\((?=[^()\n]{0,60}\d\s?(?:[-+*/=]|\bx\b|\\times|\\cdot|plus|minus|times)\s{0,2}\d)"
    r"[^()\n]{1,99}\)[.!]?\s{0,20}$"
)
_DOLLARS = re.compile(r"\\\$\s?(?=\d)")  # an amount, which opens no formula
_AFTER_BULLET = re.compile(rf"(?:^|\n)\s{{0,9}}[-{BULLET}]\s{{1,9}}\$?$")
_NOT_BUT = re.compile(r"(?i)^not\s[^.!?\n]{1,60}?\bbut\s(?:rather\s)?")
_WHICH_IS = re.compile(r"(?i)\b(?:which|that)\s(?:is|equals|gives|makes)\s(?=[-$\d\\])")
_FORMULA = re.compile(  # between its delimiters; a dollar sign before a space closes none
    r"(?<!\\)\$\$([^$]{1,300})\$\$|(?<![\\$])\$(?=[^\s$])([^$\n]{1,200})(?<=[^\s\\])\$(?![\d$])"
    r"|\\\(([^$\n]{1,200}?)\\\)|\\\[([^$]{1,300}?)\\\]"
)
_BARE = re.compile(  # roots and powers of ten that were written in prose without LaTeX
    r"(?<![\w.\\{^])((?:-?\d{1,20}\s?[-+]\s?)?-?(?:\d{0,20}\s?\\sqrt\{[\w.]{1,30}\}"
    r"|\d{1,20}(?:\.\d{1,20})?\s?\\times\s{0,2}10\s?\^\s?(?:\{-?\d{1,4}\}|-?\d{1,4}))(?:/\d{1,9})?)"
    r"(?=(?!\s?[-+*/^=\\])[^\d]{0,200}(?:\^\{?[23]\}?[^\d]{0,200})?$)"
)
_UNIT = re.compile(
    r"\s?(?!in\s[A-Za-z])(?:\\%|%|\\?\$|(?:square\s|cubic\s)?[A-Za-z\u00b0\u00b5/^{}23]{1,30}(?:\s(?:squared|cubed)\b)?"
    r"(?:\s?(?:per\s|/\s?)[A-Za-z^{}23]{1,30}(?:\s(?:squared|cubed)\b)?)?)"
)
_WORDS = re.compile(  # that answer a problem without a number
    r"(?i)^(?:there\s(?:is|are)\s)?(?:no\s(?:real\s|such\s)?(?:solutions?|roots?|values?|numbers?)"
    r"|does\snot\sexist|undefined|impossible|not\spossible|infinitely\smany(?:\ssolutions)?"
    r"|all\sreal\snumbers|cannot\sbe\sdetermined|not\senough\sinformation)$"
)
_ONE_WORD = re.compile(r"^[A-Za-z]{2,30}(?:-[A-Za-z]{2,30}){0,2}[.!]?$")


def math_answer(response: str) -> MathAnswer | None:
    """The content of the last box, else what is announced as the answer, else the last formula or
    number."""
    text = tidy(response[-LONGEST:])
    if found := meant_boxes(text):
        return _boxed(text, found)
    told = [rest for rest in announced(text) if not BOX.search(rest)]
    phrases = [answer.within(bare(rest)) for rest in told if (answer := _phrase(rest))]
    formulas = [answer for answer in phrases if not _ONE_WORD.match(answer)]
    if phrases:
        return (formulas or phrases)[-1]
    stripped = text.strip()
    if BOX.search(stripped):
        return None  # a box that was begun, or holds nothing
    raw = response[-LONGEST:]
    if (first := _FIRST_LINE.match(raw) or _REMARKED.match(raw)) and is_formula(first[1]):
        return unboxed(tidy(first[1]))  # the answer, and then its reasons
    if len(stripped) <= SHORT and (is_formula(stripped) or _is_word(bare(stripped))):
        return unboxed(stripped)
    answer = _last(text)
    return answer and answer.within(bare(told[-1] if told else stripped))


def math_equal(found: str, answer: str) -> bool:
    """Whether two expressions are the same one, or close numbers."""
    right = answer if isinstance(answer, MathAnswer) else _gold(answer)
    said = found if isinstance(found, MathAnswer) else _gold(found)
    if said.decimal and said.decimal == answer and not isinstance(answer, MathAnswer):
        return True  # the right answer of the file has three decimals, too
    return same(right, said)


def right_expression(answer: object, options: Sequence[str] | None) -> str:
    """A right answer as it stands in a file: a number, a formula or a few words; of a solution with
    boxes, what stands in the last one.

    Raises:
      UserError: it is a whole solution; the message is what follows "its answer".
    """
    text = str(answer).strip()
    if found := boxes(text):
        return found[-1][2]
    if "####" in text:
        raise UserError("holds '####'; set data.problems.answer_marker='####'")
    words = len(re.findall(r"[^\W\d_]{2,}", COMMAND.sub(" ", text)))
    if words > MOST_WORDS:
        raise UserError(
            f"is a text of {words} words, which no response would repeat; "
            "data.problems.answer_column names the column of the answer alone, "
            "data.problems.answer_marker the text before it"
        )
    return text


@functools.lru_cache(maxsize=256)  # the responses of a group have the same one
def _gold(text: str) -> MathAnswer:
    """A right answer as it stands in a file."""
    text = tidy(text).strip()
    found = boxes(text)
    return of_formula(found[-1][2] if found else text)


def _boxed(text: str, found: list[tuple[int, int, str]]) -> MathAnswer:
    """The content of the last box; boxes that are joined by "and" or commas are a list, too."""
    joined = [found[-1]]
    for one in reversed(found[:-1]):
        between = text[one[1] : joined[0][0]]
        if (
            len(between) > 20
            or quantities.without_wrappers(between).strip(" $,;\n") not in ("", "and", "or")
            or not between.strip(" $\n")
        ):
            break
        joined.insert(0, one)
    others = [", ".join(content for _, _, content in joined)] if len(joined) > 1 else []
    content = spoken(found[-1][2])
    if (said := announced(quantities.without_wrappers(content))) and (answer := _phrase(said[-1])):
        return answer
    return of_formula(content, *others)


def _phrase(rest: str) -> MathAnswer | None:
    """The answer that begins what follows "The answer is"; None for words."""
    if time := _leading_time(rest):
        return MathAnswer.of(time)
    noted = _SUM_BEHIND.sub("", rest)  # without a note in parentheses, which is no factor
    if noted != rest and (answer := _phrase(noted)):
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
    """Whether a text is a word, or one of few phrases, that answers something."""
    if _WORDS.match(text.rstrip(".!")):
        return True
    return bool(_ONE_WORD.match(text)) and text.lower().strip(".!") not in _NO_ANSWERS


def _leading_time(text: str) -> str | None:
    found = re.match(r"(?i)\d{1,2}(?::\d{2})?\s{0,3}[ap]\.?\s?m\b\.?", text)
    return found[0].rstrip(".") if found else None


def _last(text: str) -> MathAnswer | None:
    """The last formula or number of a text, with the unit behind it."""
    text = _DOLLARS.sub("USD ", _SUM_BEHIND.sub("", text))
    if not re.search(r"\$|\\[(\[]|\\begin", text):
        text = _BARE.sub(r"$\1$", text)
    found = read(text, both=True)
    if not found:
        return of_formula(text.strip()) if "\\" in text and len(text) <= SHORT else None
    values, said = [x for x in found if not isinstance(x, str)], str(found[-1]).strip()
    said = said.rstrip(".*_ \n-") or said
    place = text.rfind(said)
    rest = text[place + len(said) : place + len(said) + 60] if place >= 0 else ""
    if time := re.search(
        r"(?i)(\d{1,2}:)?\d{1,2}\s{0,3}[ap]\.?\s?m\b", text[max(place - 6, 0) :][:80]
    ):
        return MathAnswer.of(time[0])
    if place >= 0 and (answer := _in_formula(text, place, place + len(said), values)):
        return answer
    before = text[max(place - 4, 0) : place].replace("USD ", "$").lstrip()
    unit = _UNIT.match(rest)
    for whole in (
        said + unit[0] if unit else "",
        before[-1:] + said if before[-1:] in "$\u20ac\u00a3" else "",
    ):
        if whole and quantities.quantity(whole):
            return MathAnswer.of(whole, values=values or read(whole))
    answer = MathAnswer.of(said, values=values or [said])
    if _AFTER_BULLET.search(text[:place][-20:]):
        answer = answer.or_else(MathAnswer.of(f"-{said}"))  # its dash may have been a minus
    return with_dozens(answer, said + rest)


def _in_formula(text: str, start: int, end: int, values: list[Any]) -> MathAnswer | None:
    """The answer of a formula between delimiters, with the unit in it or behind it; None where none
    holds all that math-verify has read."""
    for found in _FORMULA.finditer(text):
        if found.start() <= start and end <= found.end():
            content = next(filter(None, found.groups())).strip()
            unit = _UNIT.match(text, found.end())
            value = content.rpartition("=")[2].strip()
            for whole in (value + " " + unit[0].strip() if unit else "", value):
                if whole and quantities.quantity(whole):
                    answer = of_formula(whole)
                    break
            else:
                answer = of_formula(content)
            answer.values += [x for x in values if x not in answer.values]
            return answer
    return None
