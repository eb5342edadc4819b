"""Handle the markup around an answer: typography, Markdown, LaTeX boxes, announcing phrases.

A model can write any text of any length, so every pattern here takes linear time: repetitions are
bounded, or end at a character that they cannot contain.
"""

import math
import re
import unicodedata

BULLET = "\u2022"
LINE = 200  # characters of a line that are searched for a formula
BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s{0,3}")
_WORD = re.compile(r"[^\s$\\{}]{1,99}")  # after a box without braces

_DIGITS = {
    ord(char): str(unicodedata.decimal(char))
    for char in map(chr, range(0x80, 0x20000))
    if unicodedata.decimal(char, None) is not None
}
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full-width forms of ASCII
_SIGNS = {
    "\u2212": "-", "\ufe63": "-", "\u2010": "-", "\u2011": "-", "\u066b": ".", "\u066c": ",",
    "\u066a": "%", "\u3002": ". ", "\uff61": ". ", "\u3001": ", ", "\u00d7": r"\times ",
    "\u22c5": r"\cdot ", "\u00b7": r"\cdot ", "\u00f7": "/", "\u2044": "/", "\u221e": r"\infty ",
    "\u03c0": r"\pi ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ",
    "\u222a": r"\cup ",
    "\u2205": r"\emptyset ", "\u00b1": r"\pm ", "\u00ba": "\u00b0", "\u2018": "'", "\u2019": "'",
    "\u201c": '"', "\u201d": '"',
    "\u25b3": r"\triangle ", "\u2220": r"\angle ", "\ufeff": "",
    "\u200b": "", "\u200c": "", "\u200d": "", "\u200e": "", "\u200f": "", "\u2060": "",
}  # fmt: skip
_STYLED = {  # bold letters, circled letters and so on
    code: unicodedata.normalize("NFKC", chr(code))
    for code in [*range(0x1D400, 0x1D7CA), *range(0x24B6, 0x24EA)]
}
_CHARACTERS = _WIDE | _STYLED | _DIGITS | {ord(sign): text for sign, text in _SIGNS.items()}
_POWERS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_FRACTIONS = {
    char: unicodedata.normalize("NFKC", char).replace("\u2044", "/")
    for char in map(chr, [0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F)])
}
_FRACTION = re.compile(rf"(\d?)([{''.join(_FRACTIONS)}])")
_POWER = re.compile(rf"([\w)\]}}])([{_POWERS}]{{1,9}})")
_ROOT = re.compile(r"\u221a\s?(?:\(([^()]{1,99})\)|(\w{1,30}(?:\.\d{1,30})?))")
_DASH = re.compile(r"(?<![\w\u2013])\u2013(?=[\d.$])")  # an en dash in place of a minus

_SPACE = r"(?:\\[,;:! ]|[\u00a0\u2009\u202f\u2007~])"
_GROUPED = re.compile(rf"(?<![\d.,])(\d{{1,3}})((?:{_SPACE}\d{{3}})+)(?!\d)")
_GROUPED_BY_BRACES = re.compile(r"(?<=\d)\{([,.])\}(?=\d)")
_GROUPED_BY_POINTS = re.compile(
    r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+|\d{1,3}(?: \d{3})+),(\d{1,9})(?![\d,])"
)
_GROUPED_OTHERWISE = re.compile(
    r"(?<![\w.,])\d{1,3}(?:(?:\.\d{3}){2,}(?![\d,]|\.\d)|(?:_\d{3})+(?!\w))"
)
_GROUPED_BY_QUOTES = re.compile(r"(?<![\d.,'])(\d{1,3}(?:'\d{3})+)(?![\d'])")
_MIXED = re.compile(r"(?<![\d/.,^_}])(\d{1,6}) (\d{1,4})/(\d{1,4})(?!\.?\d|[/^])")
_LARGE = re.compile(
    r"(?<![\w.,])(\d{1,3}(?:,\d{3}){0,9}|\d{1,20})(?:\.(\d{1,9}))?\s?(hundred|thousand|million|billion|trillion)\b"
)
_ZEROS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_LARGE_AFTER_FORMULA = re.compile(  # "$3$ million"
    r"(?:(?<!\\)\$|\\\()\s?(\d{1,20}(?:\.\d{1,9})?)\s?(?:\$|\\\))(?=\s(?:hundred|thousand|million|billion|trillion)\b)"
)
_IDEOGRAPHS = "[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
_TOUCHING = re.compile(rf"(?<={_IDEOGRAPHS})(?=[-\d$\\(])|(?<=[\d$)}}%])(?={_IDEOGRAPHS})")
_PICTURES = re.compile("[\u2500-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff]")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d{1,30}(?:\.\d{1,30})?)[eE]([+-]?\d{1,3})(?![\w.])")

_NEGATIVE = re.compile(
    r"(?i)(^\s{0,9}|[:=(,]\s?|\b(?:is|are|be|equals|get|gives)\s)(?:minus|negative)\s(?=[\d.])"
)
_TIMES_TEN = re.compile(r"(?<=\d)\s?[xX]\s?(?=10\s?\^)")
_HALF_OF_DAY = re.compile(
    r"(?i)(?<=\d)(?:\so'clock)?\s(?:in\sthe\s(morning|afternoon|evening)|at\snight)\b"
)

_ORDINAL = re.compile(
    r"(?<=\d)\s?(?:\^\s?\{?\s?(?:\\(?:text|mathrm|rm)\s?\{?)?(?:st|nd|rd|th)\}{0,2}|(?:st|nd|rd|th)\b)"
)
_RATIO = re.compile(r"(?<=\d)\s?(?:\\text\s?\{\s?to\s?\}|\bto\b)\s?(?=\d)")
_REPEATING = re.compile(r"(\d{1,20})?\.(\d{0,20})\\(?:overline|bar|dot)\s?\{?(\d{1,20})\}?")
_FUNCTION = re.compile(r"(?<![\\A-Za-z])(sin|cos|tan|cot|sec|csc|ln|log|exp)(?![A-Za-z])")
_DOUBLE_FACTORIAL = re.compile(r"(?<![\d.])(\d{1,3})!!(?!!)")  # math-verify parses it as (n!)!
_TWO_DIGITS = re.compile(r"\\([dt]?binom)\s?(\d)\s?(\d)")
_OUTWARD = re.compile(r"^([\[\]])([^\[\]()]{1,60}[,;][^\[\]()]{1,60})([\[\]])$")

_EMPHASIS = [
    re.compile(
        rf"(?<![\dA-Za-z)\]}}*\\]){mark}(?=[^\s*])([^*\n]{{1,400}}?)(?<=[^\s*]){mark}(?![\dA-Za-z(*])"
    )
    for mark in (r"\*\*\*", r"\*\*", r"\*")
] + [
    re.compile(rf"(?<![\w)\]}}\\]){mark}(?=[^\s_{{])([^_\n]{{1,400}}?)(?<=[^\s_]){mark}(?![\w({{])")
    for mark in ("___", "__", "_")
]
_CODE = re.compile(r"`{1,3}(?:[a-z]{1,12}\n)?([^`]{1,2000})`{1,3}")
_HEADING = re.compile(r"(?m)^[ \t]{0,3}#{1,6}[ \t]+")
_BULLET = re.compile(r"(?m)^[ \t]{0,8}[-*+][ \t]{1,4}(?=\*\*|__|`|\$|[A-Za-z]{2})")
_NUMBER_AS_ITEM = re.compile(r"^[ \t]{0,8}([-*+])[ \t]{1,4}(?=[-+]?[\d.\\]|\([-\d]|[A-Za-z]\s?=)")
_ITEM = re.compile(r"^[ \t]{0,8}(?:[-*+\u2022]|\d{1,3}[.)])[ \t]")
_TAG = re.compile(r"</?(?:b|i|em|strong|u|code|center|p|br|span|sub|sup|mark)\s?/?>")
_STRUCK = re.compile(r"~~[^~\n]{1,400}~~")
_QUOTE = re.compile(r"(?m)^[ \t]{0,3}>[ \t]?(?=\S)")
_RULE = re.compile(r"(?m)^[ \t]{0,3}(?:-{3,200}|\*{3,200}|_{3,200}|={3,200})[ \t]{0,9}$")
_LEFT_OPEN = re.compile(r"(?<![\w)\]}*])\*\*(?=[\d$\\(-])|(?<=[\d.!?:)}])\*\*(?![\w(])")

_OPERAND = r"(?=[-\d(\\$]|[b-z](?![A-Za-z]))"
_SPOKEN = [  # arithmetic in words, and the equivalent formula
    (re.compile(rf"(?<=[\w)}}$])\s{words}", re.IGNORECASE), sign)
    for words, sign in (
        (rf"plus\s{_OPERAND}", " + "), (rf"minus\s{_OPERAND}", " - "),
        (rf"(?:times|multiplied\sby)\s{_OPERAND}", r" \\times "),
        (rf"(?:divided\sby|over)\s{_OPERAND}", "/"),
        (
            r"(?:raised\s)?to\sthe\s(?:power\s(?:of\s)?)?(-?\d{1,4})(?:st|nd|rd|th)?(?:\spower)?\b",
            r"^{\1}",
        ),
        (r"raised\sto\s(-?\d{1,4})\b", r"^{\1}"),
    )
] + [
    (re.compile(r"(?<=\d)\ssquared\b", re.IGNORECASE), "^{2}"),
    (re.compile(r"(?<=\d)\scubed\b", re.IGNORECASE), "^{3}"),
    (re.compile(r"(?<![\d.])(\d{1,3})\sfactorial\b", re.IGNORECASE), r"(\1!)"),
    (re.compile(r"\b(?:the\s)?factorial\sof\s(\d{1,3})\b", re.IGNORECASE), r"(\1!)"),
    (re.compile(r"\bhalf\sof\s(\d{1,20}(?:\.\d{1,9})?)(?![\d.]\d)", re.IGNORECASE), r"\1/2"),
    (re.compile(r"\b(?:twice|double)\s(?=\d)", re.IGNORECASE), r"2 \\times "),
    (re.compile(r"(?<!\w)(\d{1,4})\schoose\s(\d{1,4})\b", re.IGNORECASE), r"\\binom{\1}{\2}"),
]  # fmt: skip
_DENIED = re.compile(r"(?i)\b(?:not|never|isn't|rather\sthan|instead\sof)\s[\s$(:*\\\[]{0,6}$")
_WRITTEN_OUT_IN_TEXT = re.compile(
    r"(?<=\d)\s?\\(?:text|mathrm|mbox)\s?\{\s{0,3}(hundred|thousand|million|billion|trillion)\s{0,3}\}"
)
_DISPLAY = {"$$": "$$", r"\[": r"\]"}
_IS = r"(?:\s{0,3}[:\uff1a=]|\s(?:is|are|was|equals|would be|must be|should be)\b)"
_ANCHOR = re.compile(
    rf"(?i:\banswers?\b[^\n.:=\uff1a]{{0,60}}?{_IS}"
    r"|\b(?:antwort|ergebnis|l\u00f6sung)(?:\s(?:ist|lautet)\b|\s?[:=])"
    r"|\b(?:r\u00e9ponse|r\u00e9sultat)(?:\s(?:finale|correcte))?(?:\sest\b|\s?[:=])"
    r"|\brespuesta(?:\s(?:final|correcta))?(?:\ses\b|\s?[:=])"
    r"|\bresposta(?:\s(?:final|correta))?(?:\s(?:\u00e9|es)\b|\s?[:=])"
    r"|\brisposta(?:\s(?:finale|corretta))?(?:\s\u00e8|\s?[:=])"
    r"|\b(?:antwoord|svar|cevap|odpowied\u017a|vastaus|r\u0103spuns|\u0111\u00e1p \u00e1n)"
    r"(?:\s(?:is|\u00e4r|er|to|l\u00e0)\b|\s?[:=])"
    r"|\b\u043e\u0442\u0432\u0435\u0442(?:\s?[:=\u2014-]))"
    r"|\u7b54\u6848(?:\u662f|\u4e3a|\u70ba|\u5e94\u4e3a|\s?[:=])"
    r"|\u7b54\s?:|\u7b54\u3048(?:\u306f|\s?:)|(?:\uc815\ub2f5|\ub2f5)(?:\uc740|\s?:)"
    r"|(?:\u0627\u0644\u062c\u0648\u0627\u0628|\u0627\u0644\u0625\u062c\u0627\u0628\u0629)"
    r"(?:\s(?:\u0647\u0648|\u0647\u064a)|\s?:)"
    r"|\u0909\u0924\u094d\u0924\u0930(?:\s\u0939\u0948|\s?:)"
    r"|(?i:\b(?:wait|no|actually|sorry|hmm|oops|correction)\b[^\n.:=?\d]{0,30}?\b(?:it|this|that)"
    r"(?:\s(?:is|was|equals|should be|must be)\b|'s\b)(?:\sactually\b)?)"
    r"|(?m:^\s{0,3}(?:####|A\s?:|(?:Ans|ANS|ans)\.?\s?[:=]|Ans\.\s))"
)


def tidy(text: str) -> str:
    """Normalize the characters of a text and remove Markdown; formulas keep their meaning."""
    text = _without_markdown(unicodedata.normalize("NFC", text))
    text = _FRACTION.sub(lambda m: f"{m[1]} {_FRACTIONS[m[2]]}" if m[1] else _FRACTIONS[m[2]], text)
    text = _POWER.sub(
        lambda m: f"{m[1]}^{{{''.join(str(_POWERS.index(char)) for char in m[2])}}}", text
    )
    text = _DASH.sub("-", _ROOT.sub(lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text))
    text = _PICTURES.sub(" ", text.translate(_CHARACTERS))
    text = _TOUCHING.sub(" ", text)
    text = _GROUPED.sub(lambda m: m[1] + re.sub(r"\D", "", m[2]), text)
    text = _GROUPED_BY_BRACES.sub(r"\1", text)
    text = _GROUPED_BY_POINTS.sub(lambda m: f"{re.sub(r'[. ]', '', m[1])}.{m[2]}", text)
    text = _GROUPED_BY_QUOTES.sub(lambda m: m[1].replace("'", ""), text)
    text = _GROUPED_OTHERWISE.sub(lambda m: re.sub(r"\D", "", m[0]), text)
    text = _WRITTEN_OUT_IN_TEXT.sub(r" \1", text)
    text = _LARGE_AFTER_FORMULA.sub(r"\1", text)
    text = _LARGE.sub(_written_out, _MIXED.sub(_improper, text))
    text = re.sub(r"[\u00a0\u2009\u202f\u2007]", " ", text)
    text = _TIMES_TEN.sub(r"\\times ", _NEGATIVE.sub(r"\1-", text))
    return _HALF_OF_DAY.sub(lambda m: " AM" if m[1].lower() == "morning" else " PM", text)


def spoken(text: str) -> str:
    """Convert arithmetic in words ("3 squared", "6 times 7") to symbols."""
    for pattern, sign in _SPOKEN:
        text = pattern.sub(sign, text)
    return text


def formula(text: str) -> str:
    """Convert a formula to LaTeX: powers, products, exponents, functions and relations."""
    text = _SCIENTIFIC.sub(lambda m: rf"{m[1]}\times10^{{{int(m[2])}}}", text)
    text = re.sub(r"\*\*\s?(-?\w{1,30})", r"^{\1}", text).replace("**", "^")
    text = re.sub(r"\^\s?\((-?[\w/]{1,30})\)", r"^{\1}", text)
    text = _REPEATING.sub(_as_fraction, _RATIO.sub(":", _ORDINAL.sub("", text)))
    text = _DOUBLE_FACTORIAL.sub(lambda m: str(math.prod(range(int(m[1]), 0, -2))), text)
    text = _TWO_DIGITS.sub(r"\\\1{\2}{\3}", text.replace(r"\varnothing", r"\emptyset"))
    if outward := _OUTWARD.match(text):
        first, last = ("[", "(")[outward[1] == "]"], ("]", ")")[outward[3] == "["]
        text = first + outward[2].replace(";", ",") + last
    text = re.sub(r"(?<![\\A-Za-z])sqrt\s?\(([^()]{1,99})\)", r"\\sqrt{\1}", text)
    text = _FUNCTION.sub(r"\\\1 ", re.sub(r"(?<![\\A-Za-z])sqrt(\d{1,20})", r"\\sqrt{\1}", text))
    text = re.sub(r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi ", text)
    text = re.sub(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty ", text)
    text = re.sub(r"\\[dt]?frac\s([A-Za-z\d])\s?([A-Za-z\d])", r"\\frac{\1}{\2}", text)
    return text.replace("<=", r"\le ").replace(">=", r"\ge ").replace("!=", r"\ne ")


def boxes(text: str) -> list[tuple[int, int, str]]:
    r"""Return start, end and content of each box of a text that is closed and not empty.

    Nested boxes count once, with the innermost content; `\boxed 5` contains the text up to a space.
    """
    found: list[tuple[int, int, str]] = []
    last, closing = 0, closing_braces(text)
    for match in BOX.finditer(text):
        if match.start() < last:
            continue  # inside another box
        start, end = match.end(), closing.get(match.end())
        if end is None:
            word = _WORD.match(text, start)
            if word:
                found.append((match.start(), word.end(), word[0]))
            continue
        last, start = end + 1, start + 1
        while (inner := BOX.match(text, start)) and closing.get(inner.end()) == end - 1:
            start, end = inner.end() + 1, end - 1
        content = text[start:end].strip()
        if content.strip("$.~ "):
            found.append((match.start(), last, content))
    return found


def meant_boxes(text: str) -> list[tuple[int, int, str]]:
    r"""Return the boxes of a text without negated ones ("\boxed{42}, not \boxed{41}"), or all boxes
    if each is negated."""
    all_boxes = boxes(text)
    meant = [box for box in all_boxes if not _DENIED.search(text[max(box[0] - 30, 0) : box[0]])]
    return meant or all_boxes


def announced(text: str) -> list[str]:
    """Return the text after each phrase that announces an answer ("The answer is", "Antwort:"), in
    order: the rest of the line, or the next line if it is empty."""
    statements = []
    for match in _ANCHOR.finditer(text):
        rest = text[match.end() : match.end() + 600].lstrip(" \t:=*_\n\r")
        line = rest.partition("\n")[0].strip()
        end = _DISPLAY.get(line)
        if end and end in rest[len(line) :]:  # a displayed formula on separate lines
            line += " ".join(rest[len(line) :].partition(end)[0].split()) + end
        statements.append(line)
    return [statement for statement in statements if statement]


def _without_markdown(text: str) -> str:
    text = _with_round_bullets(_RULE.sub("", text))
    text = _BULLET.sub("", _TAG.sub("", _STRUCK.sub(" ", text)))
    text = _CODE.sub(r" \1 ", text)
    for _ in range(2):  # twice, for bold within italics
        for pattern in _EMPHASIS:
            text = pattern.sub(r"\1", text)
    text = _LEFT_OPEN.sub("", text)
    return _QUOTE.sub("", _HEADING.sub(lambda m: m[0] if m[0].strip() == "####" else "", text))


def _with_round_bullets(text: str) -> str:
    """Replace dashes before numbers by round bullets if they may be bullets of a list, and remove
    other bullets.

    A line of a formula may begin with a minus, so the line before must be missing, empty, a line of
    words or another list item.
    """
    lines = text.split("\n")
    may_be_item = True
    for index, line in enumerate(lines):
        if may_be_item:
            lines[index] = _NUMBER_AS_ITEM.sub(lambda m: f"{BULLET} " if m[1] == "-" else "", line)
        words = re.search(r"[A-Za-z]{3}", line[:LINE]) and not re.search(r"[\\$=]", line[:LINE])
        may_be_item = bool(not line.strip() or _ITEM.match(line) or words)
    return "\n".join(lines)


def _improper(match: re.Match[str]) -> str:
    """Convert a mixed number to a fraction; anything else is unchanged."""
    whole, numerator, denominator = map(int, match.groups())
    if numerator >= denominator:
        return match[0]
    return f"{whole * denominator + numerator}/{denominator}"


def _as_fraction(match: re.Match[str]) -> str:
    """Convert a repeating decimal to a fraction."""
    whole, fixed, repeating = match[1] or "0", match[2], match[3]
    denominator = (10 ** len(repeating) - 1) * 10 ** len(fixed)
    numerator = int(whole + fixed + repeating) - int(whole + fixed)
    return rf"\frac{{{numerator}}}{{{denominator}}}"


def _written_out(match: re.Match[str]) -> str:
    """Convert a number such as "1.5 million" to digits."""
    zeros, decimals = _ZEROS[match[3]], match[2] or ""
    if len(decimals) > zeros:
        return match[0]
    return match[1].replace(",", "") + decimals.ljust(zeros, "0")


def closing_braces(text: str) -> dict[int, int]:
    """Return a map from the index of each opening brace to the index of its closing brace."""
    opened: list[int] = []
    closing: dict[int, int] = {}
    escaped = False
    for index, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == "{":
            opened.append(index)
        elif char == "}" and opened:
            closing[opened.pop()] = index
    return closing
