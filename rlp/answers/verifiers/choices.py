"""Multiple-choice answers: the letter of the option that a response chooses."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from rlp.answers.verifiers.markup import boxes, meant_boxes, tidy
from rlp.answers.verifiers.quantities import without_wrappers
from rlp.runtime.errors import UserError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DEFAULT_OPTIONS = 10  # number of options of a problem whose row does not list them: A to J
MAX_LENGTH = 20_000  # characters at the end of a response that are searched for the answer
SHORT = 100  # maximum characters of a text in which a single letter is an answer
_BOXED = re.compile(
    r"(?i)^(?:\\(?:text|textbf|mathrm|mathbf|rm|bf)|option|choice|answer|[\s({\[$:*])*([A-Z])(?![A-Za-z])"
)
_IN_BOX = re.compile(  # a letter, optionally with the text of its option; not a word or formula
    r"(?i)^[^A-Za-z]{0,9}(?:\\[a-z]{2,6}\s?\{[^A-Za-z]{0,4})?(?:option\s?|choice\s?|answer\s?:?\s?)?"
    r"[^A-Za-z]{0,4}[A-Z](?:[\W_]*$|[).:,}\]])"
)
_IS = r"(?:\s?[:=]\s?|\s(?:is|was|would\sbe|must\sbe|should\sbe|has\sto\sbe|seems\sto\sbe)\b\s?:?)"
_ADVERB = (
    r"(?:\s?(?:definitely|clearly|therefore|thus|indeed|obviously|probably|most\slikely|likely|simply"
    r"|actually|still|then|really|just|certainly|surely|hence|option|choice|letter|answer|number|the)"
    r"\b:?){0,4}"
)
_OPEN = r"[\s(\[{\"'$:\\]{0,8}(?:\\?(?:text|textbf|mathrm|mathbf)\{\s?\(?)?"
_CLOSED = r"(?!\w|'\w)"
_NAMED = re.compile(
    rf"(?i:\b(?:answers?|choices?|options?|letter|ans|pick|guess|selection)\b[^\n.:=?!]{{0,60}}?{_IS}{_ADVERB}){_OPEN}([A-Za-z]){_CLOSED}"
    rf"|(?i:\b(?:answer|antwort|r\u00e9ponse|respuesta|resposta|risposta|antwoord|svar|odpowied\u017a|jawaban|cevap|vastaus|r\u0103spuns"
    rf"|\u0111\u00e1p\s\u00e1n|\u043e\u0442\u0432\u0435\u0442|\u0432\u0430\u0440\u0438\u0430\u043d\u0442)\s?[:=\u2014-]?"
    rf"(?:\s(?:ist|est|es|\u00e9|\u00e8|is|to|adalah|\u00e4r|er|l\u00e0))?){_OPEN}([A-Za-z]){_CLOSED}"
    rf"|(?:\u7b54\u6848|\u7b54\u3048|[\u9009\u9078][\u9879\u9805]|\u9078\u629e\u80a2|\u9009\u62e9|\u9078\u64c7|\u6b63\u89e3|\uc815\ub2f5|\ub2f5|[\u9009\u9078\u7b54])"
    rf"\s?(?:[\u5e94\u61c9](?:[\u8be5\u8a72])?)?[\u662f\u4e3a\u70ba\u306f\uc740:=]{{0,2}}{_OPEN}([A-Za-z])(?![A-Za-z0-9'])"
    rf"|(?<![A-Za-z0-9'])([A-Za-z])\)?\s?(?:[\u9009\u9078][\u9879\u9805])?[\u662f\u70ba\u4e3a\u304c\u306f]?"
    rf"(?:\u6b63\u786e|\u6b63\u78ba|\u6b63\u89e3|\u6b63\u3057\u3044|\u6b63\u7b54|\u5bf9\u7684|\u5c0d\u7684|\u7b54\u6848|\u7b54\u3048)"
    rf"|(?i:\b(?:wait|no|actually|sorry|hmm|oops|correction)\b[^\n.:?]{{0,30}}?\b(?:it|this|that)(?:'s|{_IS}){_ADVERB}){_OPEN}([A-Za-z]){_CLOSED}"
)
_CHOSEN = re.compile(
    rf"(?i:\b(?:i|we)(?:'ll|'d|'m|\s(?:would|will|must|should|can|am))?\s(?:choose|pick|select|chose|go(?:ing)?\s(?:with|for)|opt\sfor|vote\sfor|answer|conclude)"
    rf"(?:\s(?:that|it\sis|option|choice|answer|letter|the))*){_OPEN}([A-Za-z]){_CLOSED}"
    rf"|(?i:\b(?:so|thus|therefore|hence)\b,?\s(?:it\sis|it's|it\smust\sbe)\s(?:option\s|choice\s)?){_OPEN}([A-Za-z]){_CLOSED}"
    rf"|{_OPEN}(?<![\w'])\(?([A-Za-z])\)?(?i:\sis\s(?:the\s)?(?:correct|right|best|answer|true)\b)"
)
_FIRST = re.compile(  # the answer, followed by its reasons
    r"^[\s*_#>(\[]{0,8}([A-Za-z])[)\]*_]{0,4}"
    r"\.\s{1,9}(?=(?:Options?|Choices?|Answers?|The|This|It|Because|Since|All|None|Only|Both|[A-Z])\b)"
)
_CONCLUDED = re.compile(  # a lower-case letter at the end of a sentence
    rf"(?i:\b(?:(?:it|this|that)(?:'s|{_IS})|so|thus|therefore|hence),?{_ADVERB}){_OPEN}([a-z])"
    r"(?=[)\]}\"'*$]{0,4}[.!]?[ \t]{0,9}(?:\n|$))"
)
_OPTION = re.compile(rf"(?i:\b(?:option|choice|answer)\b)\s{{0,2}}{_OPEN}([A-Za-z]){_CLOSED}")
_MARKED = re.compile(
    r"(?:\*\*|__|`)\s?\(?([A-Za-z])\s?(?:[).:][^*_`\n]{0,200})?\.?\s?(?:\*\*|__|`)"
)
_ROUND = re.compile(r"(?<![\w)])\(([A-Za-z])\)(?!\w)")
_LEADING = re.compile(r"^[\s*_#>(\[\"']{0,8}([A-Za-z])[)\].:,](?:\s|$)")
_LABEL = re.compile(
    r"^[\s*_#>(\[-]{0,12}(?:[Oo]ption\s|[Cc]hoice\s)?\(?([A-Za-z])[)\].:*]{1,4}(?:\s|$)"
)
_LABELLED = re.compile(r"^\(?([A-Za-z])[).:]{1,2}\s{1,9}(\S.*)$", re.DOTALL)
_WHOLE = re.compile(r"^[\W_]*([A-Za-z])[\W_]*$")
_ALONE = re.compile(r"(?<![\w'])([A-Z])(?![\w'])")
_DENIED = re.compile(
    r"(?i)\b(?:not|isn't|wasn't|cannot|can't|never|neither|nor|than|over|unlike|instead\sof|rule\sout|eliminate)\s?(?:be\s)?(?:option\s|choice\s)?[\W_]{0,4}$"
    r"|\u4e0d[\u9009\u9078\u662f]?\s?$"
)
_DENIED_AFTER = re.compile(
    r"(?i)^(?:[)\].*_]{0,4}\s(?:is|was|are|cannot|can't|isn't)\s?(?:be\s)?(?:not|wrong|incorrect|false|n't|out|too)\b"
    r"|\)?\s?[\u662f\u306f\u304c]?(?:\u9519|\u932f|\u4e0d|\u8aa4|\u9593\u9055))"
)
_AFTER_OPTION = (  # words that often follow a letter, and hardly ever an article
    r"is|was|because|since|and|or|as|but|not|for|if|which|with|in|on|would|has|does|so|rather|only"
    r"|by|due|when|where|then|instead|unlike|even\sthough"
)
_AFTER_LETTER = (
    rf"{_AFTER_OPTION}|over|though|although|here|after\sall|according|from|given\s(?:the|that|these|this)"
    r"|while\s(?!ago|back|later)|among|based|despite|whereas|must|should|can|cannot|fits"
)
_AFTER_ARTICLE = re.compile(rf"[ \t]{{1,9}}(?!(?:{_AFTER_OPTION})\b)[a-z]")
_AFTER_CAPITAL_ARTICLE = re.compile(rf"[ \t]{{1,9}}(?!(?:{_AFTER_LETTER})\b)[a-z]")
_AFTER_TITLED_ARTICLE = re.compile(rf"[ \t]{{1,9}}(?!(?i:{_AFTER_LETTER})\b)[A-Z]")
_BEGINS = re.compile(r"(?:^|[\n.:!?])[\s\"'*_(>#-]{0,9}$")  # the text before a sentence
_TITLED = re.compile(r"\b(?:Is|Are|Was|IS|ARE|WAS)[ \t]$")
_AFTER_PRONOUN = re.compile(
    r"(?:'|[ \t]{1,9}(?!(?:is|because|since|and|or|as|but|not|for|if|which|rather|only|by|due)\b)"
    r"[a-z])"
)
_CHOOSES = re.compile(  # words before the letter of an option, but not before a pronoun
    r"(?i)\b(?:is|are|be|choose|pick|select|option|choice|answer:?)[ \t]$"
)
_OF_PRONOUN = re.compile(
    r"(?:'|[ \t](?:think|believe|guess|suppose|say|said|mean|am|was|have|had|do|did|would|will|can"
    r"|could|know|who|found|find|get|got|computed|chose|choose|pick|see|saw|feel)\b)"
)
_LOOKALIKE = re.compile(  # a Greek or Cyrillic capital that looks Latin; not within a word
    r"(?<![\w'])[\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u0391\u0392\u0395\u0397\u0399]"
    r"(?=[)\].,:;!*_\"'$}]|[ \t]{0,9}(?:\n|$))"
)
_LATIN = str.maketrans(
    "\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u0391\u0392\u0395\u0397\u0399", "ABCEHIJABEHI"
)


def choice(response: str, options: int = 0) -> str | None:
    """Return the letter that a response chooses, as a capital; None if it chooses none.

    A letter in a box comes first, then a letter that is called the answer, one that is emphasized
    or in parentheses, and single letters if the whole text is short.

    Args:
      response: a text.
      options: number of options of the problem, at most 26; 0 if it is not known.
    """
    raw = _LOOKALIKE.sub(lambda m: m[0].translate(_LATIN), response[-MAX_LENGTH:])
    text = tidy(raw)
    valid = LETTERS[: options or DEFAULT_OPTIONS]
    for candidates in _candidates(raw, text):
        letters = [letter for letter in candidates if letter in valid]
        if letters:
            return letters[-1]
    return None


def gold_letter(answer: object, options: Sequence[str] | None) -> str:
    """Return the letter of a gold answer from a file.

    Args:
      answer: a letter ("B", "b", "(B)", "B."), optionally with the text of its option ("B. Paris"),
        the number of an option (from 0), or the text of an option.
      options: the texts of the options; None if the row does not list them.

    Raises:
      UserError: If it is none of these, or ambiguous; the message continues "the gold answer".
    """
    texts = [text.strip() for text in options or ()]
    value, number = str(answer).strip(), _index(answer)
    last = LETTERS[(len(texts) or DEFAULT_OPTIONS) - 1]
    letter = _named_letter(value, texts) if number is None else None
    if letter and letter <= last:
        if value in texts and value != texts[LETTERS.index(letter)]:
            raise UserError(f"{value!r} may be the letter of an option or the text of another one")
        return letter
    if letter and value not in texts:
        raise UserError(f"{value!r} is not one of the options A to {last}")
    equal = [index for index, text in enumerate(texts) if text == value] or [
        index for index, text in enumerate(texts) if text.lower() == value.lower()
    ]
    if number is not None and not isinstance(answer, str):
        equal = []  # a number that is not a text is always the index of an option
    if number is not None and 0 <= number < len(texts):
        if equal and number not in equal:
            raise UserError(
                f"{value!r} may be the number of an option (from 0) or the text of another one"
            )
        return LETTERS[number]
    if len(equal) == 1:
        return LETTERS[equal[0]]
    if equal and number is None:
        letters = " and ".join(LETTERS[index] for index in equal)
        raise UserError(f"{value[:40]!r} is ambiguous: it is the text of the options {letters}")
    if number is not None and not texts:
        raise UserError(
            f"{value!r} is not a letter; to use the number of an option (from 0), set "
            "data.problems.options_column to the column of the options"
        )
    if number is not None:
        raise UserError(f"{value} is not the number of an option from 0 to {len(texts) - 1}")
    others = ", the number of an option (from 0) or the text of an option" if texts else ""
    raise UserError(f"{value[:40]!r} is not a letter from A to {last}{others}")


def _named_letter(value: str, texts: Sequence[str]) -> str | None:
    r"""Return the letter in "B", "(b)", \text{B}, or "B. Paris" if option B is Paris."""
    box = boxes(value)
    plain = without_wrappers(unicodedata.normalize("NFKC", box[-1][2] if box else value))
    if letter := _WHOLE.match(plain) or _BOXED.fullmatch(plain):
        return letter[1].upper()
    labelled = _LABELLED.match(plain)
    index = LETTERS.index(labelled[1].upper()) if labelled else len(texts)
    if labelled and index < len(texts) and texts[index].lower() == labelled[2].lower():
        return LETTERS[index]
    return None


def _index(answer: object) -> int | None:
    """Return the whole number that an answer is, or None."""
    if isinstance(answer, float):
        return int(answer) if answer.is_integer() else None
    if isinstance(answer, int):
        return answer
    text = str(answer).strip()
    return int(text) if re.fullmatch(r"[+-]?\d{1,9}(?:\.0)?", text) and "." not in text else None


def _candidates(raw: str, text: str) -> Iterator[list[str]]:
    """Yield the letters that each way of stating a choice yields, the most reliable way first."""
    yield [
        m[1].upper()
        for _, _, content in meant_boxes(text)
        if (m := _BOXED.match(content)) and _IN_BOX.match(content)
    ]
    if whole := _WHOLE.match(text):
        yield [whole[1].upper()]
    yield _letters(_NAMED, text)
    yield _letters(_CHOSEN, text)
    lines = text.strip().split("\n")
    single = [letter[1].upper() for line in lines if (letter := _WHOLE.match(line))]
    raw, text = _without_list(raw), _without_list(text)
    last = text.strip().rpartition("\n")[2]
    if whole := _WHOLE.match(last):
        yield [whole[1].upper()]
    if len(single) == 1 and _WHOLE.match(lines[0]):
        yield single
    yield _letters(_FIRST, text)
    yield _letters(_OPTION, text)
    yield _letters(_ALONE, last) if len(last) <= SHORT // 2 and len(text) > SHORT else []
    yield _letters(_MARKED, raw)
    if leading := _LEADING.match(text):
        yield [leading[1].upper()]
    yield _letters(_ROUND, text)
    yield _letters(_CONCLUDED, text)
    if len(text.strip()) <= SHORT:
        yield _letters(_ALONE, text)


def _without_list(text: str) -> str:
    """Remove the lines of a text that list the options one by one."""
    lines = text.split("\n")
    labels = [_LABEL.match(line) for line in lines]
    if len({label[1].upper() for label in labels if label}) < 2:
        return text
    return "\n".join(line for line, label in zip(lines, labels, strict=True) if not label)


def _letters(pattern: re.Pattern[str], text: str) -> list[str]:
    """Return the letters that a pattern matches, as capitals, without words and negated letters."""
    letters = []
    for match in pattern.finditer(text):
        group = next(number for number, value in enumerate(match.groups(), 1) if value)
        letter, start, end = match[group], match.start(group), match.end(group)
        closed = text[end : end + 1] in (")", "]", "}", ".", ":") or text[start - 1 : start] in (
            "(",
            "[",
            "{",
        )
        if not closed and _is_word(letter, text[max(start - 20, 0) : start], text[end : end + 40]):
            continue
        if _DENIED.search(text[max(start - 40, 0) : start]) or _DENIED_AFTER.match(
            text[end : end + 30]
        ):
            continue
        letters.append(letter.upper())
    return letters


def _is_word(letter: str, before: str, rest: str) -> bool:
    """Return whether a letter is the pronoun I, the article a or a variable in its context."""
    if letter == "A":
        if _BEGINS.search(before):
            return bool(_AFTER_CAPITAL_ARTICLE.match(rest))
        return bool(_TITLED.search(before) and _AFTER_TITLED_ARTICLE.match(rest))
    if letter == "a":
        return bool(_AFTER_ARTICLE.match(rest))
    if letter in "iI":
        direct = letter == "I" and _CHOOSES.search(before)
        return bool((_OF_PRONOUN if direct else _AFTER_PRONOUN).match(rest))
    return letter.islower() and bool(re.match(r"[ \t]{0,9}[=+*/^<>-]", rest))
