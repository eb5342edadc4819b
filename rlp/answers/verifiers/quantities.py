"""What a computer algebra system leaves out of an answer: units, times of day, bases, words."""

import dataclasses
import re
from fractions import Fraction

_Unit = tuple[str, Fraction]  # what is measured, and how much of its first unit
_PREFIXES = (  # short, long, factor
    ("", "", Fraction(1)), ("k", "kilo", Fraction(1000)), ("d", "deci", Fraction(1, 10)),
    ("c", "centi", Fraction(1, 100)), ("m", "milli", Fraction(1, 1000)),
    ("\u00b5", "micro", Fraction(1, 10**6)), ("u", "micro", Fraction(1, 10**6)),
    ("n", "nano", Fraction(1, 10**9)),
)  # fmt: skip
_METRIC = (  # symbols, names, what is measured, size
    ("m", "meter meters metre metres", "length", Fraction(1)),
    ("g", "gram grams", "mass", Fraction(1)),
    ("L l", "liter liters litre litres", "volume", Fraction(1, 1000)),
    ("s", "second seconds sec secs", "time", Fraction(1)),
    ("W", "watt watts", "power", Fraction(1)),
    ("J", "joule joules", "energy", Fraction(1)),
    ("N", "newton newtons", "force", Fraction(1)),
    ("V", "volt volts", "voltage", Fraction(1)),
    ("A", "ampere amperes amp amps", "current", Fraction(1)),
    ("Hz", "hertz", "frequency", Fraction(1)),
    ("Pa", "pascal pascals", "pressure", Fraction(1)),
    ("mol", "mole moles", "amount", Fraction(1)),
)
_OTHERS = (
    ("inch inches in", "length", Fraction(254, 10000)),
    ("foot feet ft", "length", Fraction(3048, 10000)),
    ("yard yards yd", "length", Fraction(9144, 10000)),
    ("mile miles mi", "length", Fraction(1609344, 1000)),
    ("pound pounds lb lbs", "mass", Fraction(45359237, 100000)),
    ("ounce ounces oz", "mass", Fraction(45359237, 1600000)),
    ("ton tons tonne tonnes t", "mass", Fraction(10**6)),
    ("minute minutes min mins", "time", Fraction(60)),
    ("hour hours hr hrs h", "time", Fraction(3600)),
    ("day days", "time", Fraction(86400)),
    ("week weeks", "time", Fraction(7 * 86400)),
    ("month months", "time by the calendar", Fraction(1)),
    ("year years yr yrs", "time by the calendar", Fraction(12)),
    ("degree degrees deg \u00b0", "degrees", Fraction(1)),
    ("radian radians rad", "radians", Fraction(1)),
    ("\u00b0C", "degrees Celsius", Fraction(1)),
    ("\u00b0F", "degrees Fahrenheit", Fraction(1)),
    ("$ dollar dollars USD usd", "dollars", Fraction(1)),
    ("cent cents \u00a2", "dollars", Fraction(1, 100)),
    ("\u20ac euro euros EUR", "euros", Fraction(1)),
    ("\u00a3 GBP", "pounds sterling", Fraction(1)),
    ("\u00a5 yen JPY", "yen", Fraction(1)),
    ("\u20b9 rupee rupees INR Rs", "rupees", Fraction(1)),
)
# "5 degrees" may be of a temperature, and "5 pounds" money.
_MAY_BE = {
    frozenset({"degrees", "degrees Celsius"}), frozenset({"degrees", "degrees Fahrenheit"}),
    frozenset({"mass", "pounds sterling"}),
}  # fmt: skip


def _units() -> dict[str, _Unit]:
    units = {name: (what, size) for names, what, size in _OTHERS for name in names.split()}
    for symbols, names, what, size in _METRIC:
        for short, long, factor in _PREFIXES:
            each = [short + symbol for symbol in symbols.split()]
            each += [long + name for name in names.split()]
            units |= dict.fromkeys(each, (what, size * factor))
    return units


UNITS = _units()
LONGEST = 200  # characters of a text that is looked at for units, times and words
_SIGNS = "$\u20ac\u00a3\u00a5\u20b9"
_NAME = re.compile(
    r"(?<![A-Za-z\\])([A-Za-z\u00b5\u00b0\u00a2\u20ac\u00a3\u00a5\u20b9]{1,14})(?:\s?\^\{?([23])\}?)?"
    r"(?:\s?(?:/|per)\s?([A-Za-z]{1,14})(?:\s?\^\{?([23])\}?)?)?\s?[.,;:!]?$"
)
_SQUARED = re.compile(r"\b(square|sq|cubic|cu)\.?\s([a-z]{1,14})\b", re.IGNORECASE)
_POWERED = re.compile(r"(?i)(?<=[a-z])\s(squared|cubed)\b")
_WRAPPED = re.compile(
    r"\\(?:text|mathrm|textbf|mathbf|textit|mbox|rm|operatorname)\s?\{([^{}]{0,200})\}"
)
_CLOCK = re.compile(
    r"(?i)(?<![\d:.])(\d{1,2})(?::(\d{2}))?\s{0,3}([ap])\.?\s?m\b\.?|(?<![\d:.])(\d{1,2}):(\d{2})(?![\d:])"
)
_BASE = re.compile(r"(?i)^([0-9A-F]{1,60})(?:_\{?\(?(\d{1,2})\)?\}?|\s\(?base[\s-]?(\d{1,2})\)?)$")
_SHAPES = (
    r"\\(?:angle|measuredangle|triangle|overline|overrightarrow|overleftrightarrow|vec|widehat|hat"
    r"|mathbf|bf)"
)
_LETTERS = re.compile(
    rf"^(?:({_SHAPES})\s?)?\{{?\s?([A-Za-z](?:[A-Za-z' -]{{0,60}}[A-Za-z'])?)\s?\}}?$"
)


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A number with its unit.

    Attributes:
      number: the text of the number.
      measured: what the unit measures, with its exponent; two texts that differ are never equal.
      size: of the unit, in the first unit of what is measured.
    """

    number: str
    measured: str
    size: Fraction


def without_wrappers(text: str) -> str:
    r"""A text without \text{…} and its kin around words."""
    for _ in range(3):
        text = _WRAPPED.sub(r" \1 ", text)
    return " ".join(text.replace("~", " ").split())


def quantity(text: str) -> Quantity | None:
    """A number with a unit that is known; None for any other text."""
    if len(text) > LONGEST:
        return None
    text = re.sub(r"^\$([^$]+)\$(?=\s|$)", r"\1", text)  # a formula, not dollars
    text = without_wrappers(re.sub(r"\\[,;:! ]", " ", text))
    text = re.sub(r"\^?\{?\\?(?:circ(?![a-z])|degree(?![a-z]))\}?", "\u00b0", text)
    text = re.sub(r"\u00b0\s?([CF])\b", "\u00b0\\1", text).replace("\\$", "$").strip()
    sign = "-" if text.startswith("-") else ""
    if text[len(sign) : len(sign) + 1] in _SIGNS and len(text) > len(sign) + 1:
        name, rest = text[len(sign)], text[len(sign) + 1 :].lstrip()
        if rest.partition(" ")[2].strip().lower() in ("", "usd", "dollars"):
            rest = sign + rest.partition(" ")[0]
        return Quantity(rest, *UNITS[name]) if rest[-1:].isdigit() else None
    text = _SQUARED.sub(lambda m: f"{m[2]}^{2 if m[1].lower()[0] == 's' else 3}", text)
    text = _POWERED.sub(lambda m: "^2" if m[1].lower() == "squared" else "^3", text)
    found = _NAME.search(text)
    number = text[: found.start()].strip() if found else ""
    if found is None or not number or not re.search(r"(?:[\d)}\]]|\\pi)$", number):
        return None
    unit = _unit(found[1], found[2])
    if found[3] and unit:
        below = _unit(found[3], found[4])
        unit = below and (f"{unit[0]} / {below[0]}", unit[1] / below[1])
    return Quantity(number, *unit) if unit else None


def differ(one: Quantity, other: Quantity) -> bool:
    """Whether the units measure different things, so that no values can make them equal."""
    return one.measured != other.measured and {one.measured, other.measured} not in _MAY_BE


def _unit(name: str, power: str | None) -> _Unit | None:
    known = UNITS.get(name) or UNITS.get(name.lower() if len(name) > 2 else name)
    if known is None:
        return None
    measured, size = known
    if not power:
        return measured, size
    if (measured, power) == ("length", "3"):
        return "volume", size**3
    return f"{measured} ^ {power}", size ** int(power)


def clock(text: str) -> tuple[int, int, bool] | None:
    """Hour and minute of a time of day, and whether a.m. or p.m. is said; None for other texts."""
    text = without_wrappers(text) if len(text) <= LONGEST else ""
    found = _CLOCK.search(text)
    if not found or re.search(r"\d", text[: found.start()] + text[found.end() :]):
        return None
    hour, minute, half = found[1] or found[4], found[2] or found[5] or "0", found[3]
    if int(hour) > 24 or int(minute) > 59:
        return None
    shift = 12 if half and half.lower() == "p" else 0
    return (int(hour) % 12 + shift if half else int(hour)), int(minute), half is not None


def same_time(one: tuple[int, int, bool], other: tuple[int, int, bool]) -> bool:
    """Whether two times are the same; where one says neither a.m. nor p.m. and could be either,
    it is."""
    if one[1] != other[1]:
        return False
    unsaid = [time for time in (one, other) if not time[2]]
    return one[0] == other[0] or (
        len(unsaid) == 1 and unsaid[0][0] <= 12 and (one[0] - other[0]) % 12 == 0
    )


def in_base(text: str) -> tuple[str, int] | None:
    """Digits and base of a number such as 1024_5; None for other texts."""
    found = _BASE.match(without_wrappers(text)) if len(text) <= LONGEST else None
    if not found:
        return None
    return found[1].lstrip("0").upper() or "0", int(found[2] or found[3])


def letters(text: str) -> tuple[str, str] | None:
    """What stands before the letters of a text that has nothing else ("angle", or ""), and they."""
    if len(text) > LONGEST:
        return None
    found = _LETTERS.match(without_wrappers(text).rstrip("."))
    if not found or re.search(r"\\", found[2]):
        return None
    return (found[1] or "").strip("\\"), found[2]


def same_letters(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two texts of letters alone say the same: an angle has two directions, and so has a
    segment; a triangle has no first corner."""
    plain = [re.sub(r"[\s'-]", "", text) for _, text in (one, other)]
    if plain[0] == plain[1] or (min(map(len, plain)) > 1 and plain[0].lower() == plain[1].lower()):
        return True
    shapes = {shape for shape, _ in (one, other)} - {""}
    if shapes & {"angle", "measuredangle", "overline", "overleftrightarrow"}:
        return plain[0] == plain[1][::-1]
    return shapes == {"triangle"} and sorted(plain[0]) == sorted(plain[1])


def number_in_words(text: str) -> int | None:
    """The number below a thousand that English words say ("forty-two"); None for other texts."""
    words = re.findall(r"[a-z]+", without_wrappers(text).lower()) if len(text) <= LONGEST else []
    total = 0
    for place, word in enumerate(words):
        value = _NUMBERS.get(word)
        follows = not total % 100 or (total % 100 in range(20, 100, 10) and (value or 99) < 10)
        if word == "hundred" and place == 1 and 0 < total < 10:
            total *= 100
        elif word == "and" and place == 2 and words[1] == "hundred":
            continue
        elif value is None or not follows or (place and not value):
            return None
        else:
            total += value
    return total if words and words[-1] != "and" else None


_UP_TO_NINETEEN = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBERS = {word: value for value, word in enumerate(_UP_TO_NINETEEN)} | {
    word: 10 * value for value, word in enumerate(_TENS, 2)
}


def may_commute(text: str) -> bool:
    """Whether letters are a product of variables, as xy is, and not a word or a figure."""
    return text.islower() and len(text) <= 3 and not set(text) & set("eiou") and text not in _SMALL


_SMALL = {
    "an", "as", "at", "am", "ma", "na", "sa", "ta", "by", "my", "day", "may", "way", "rat", "tar",
    "art", "man", "tan", "cat", "act", "saw", "was", "map", "cab",
}  # fmt: skip
