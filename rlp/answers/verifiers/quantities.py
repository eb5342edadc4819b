"""Parse what a computer algebra system ignores: units, times of day, bases and words."""

import dataclasses
import re
from fractions import Fraction

_Unit = tuple[str, Fraction]  # the dimension, and the size in its base unit
_PREFIXES = (  # short, long, factor
    ("", "", Fraction(1)), ("k", "kilo", Fraction(1000)), ("d", "deci", Fraction(1, 10)),
    ("c", "centi", Fraction(1, 100)), ("m", "milli", Fraction(1, 1000)),
    ("\u00b5", "micro", Fraction(1, 10**6)), ("u", "micro", Fraction(1, 10**6)),
    ("n", "nano", Fraction(1, 10**9)),
)  # fmt: skip
_METRIC = (  # symbols, names, dimension, size
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
# "5 degrees" may be a temperature, and "5 pounds" money.
_MAY_BE = {
    frozenset({"degrees", "degrees Celsius"}), frozenset({"degrees", "degrees Fahrenheit"}),
    frozenset({"mass", "pounds sterling"}),
}  # fmt: skip


def _units() -> dict[str, _Unit]:
    units = {name: (measured, size) for names, measured, size in _OTHERS for name in names.split()}
    for symbols, names, measured, size in _METRIC:
        for short, long, factor in _PREFIXES:
            spellings = [short + symbol for symbol in symbols.split()]
            spellings += [long + name for name in names.split()]
            units |= dict.fromkeys(spellings, (measured, size * factor))
    return units


UNITS = _units()
MAX_LENGTH = 200  # maximum characters of a text that is parsed as a quantity, time or word
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
      measured: dimension of the unit, with its exponent; different dimensions are never equal.
      size: size of the unit in the base unit of its dimension.
    """

    number: str
    measured: str
    size: Fraction


def without_wrappers(text: str) -> str:
    r"""Remove \text{…} and similar commands around words."""
    for _ in range(3):
        text = _WRAPPED.sub(r" \1 ", text)
    return " ".join(text.replace("~", " ").split())


def quantity(text: str) -> Quantity | None:
    """Parse a number with a known unit; None for any other text."""
    if len(text) > MAX_LENGTH:
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
    match = _NAME.search(text)
    number = text[: match.start()].strip() if match else ""
    if match is None or not number or not re.search(r"(?:[\d)}\]]|\\pi)$", number):
        return None
    unit = _unit(match[1], match[2])
    if match[3] and unit:
        divisor = _unit(match[3], match[4])
        unit = divisor and (f"{unit[0]} / {divisor[0]}", unit[1] / divisor[1])
    return Quantity(number, *unit) if unit else None


def differ(one: Quantity, other: Quantity) -> bool:
    """Return whether two units have different dimensions, so that no values make them equal."""
    return one.measured != other.measured and {one.measured, other.measured} not in _MAY_BE


def _unit(name: str, power: str | None) -> _Unit | None:
    unit = UNITS.get(name) or UNITS.get(name.lower() if len(name) > 2 else name)
    if unit is None:
        return None
    measured, size = unit
    if not power:
        return measured, size
    if (measured, power) == ("length", "3"):
        return "volume", size**3
    return f"{measured} ^ {power}", size ** int(power)


def clock(text: str) -> tuple[int, int, bool] | None:
    """Parse a time of day: hour, minute, and whether it has a.m. or p.m.; None for other texts."""
    text = without_wrappers(text) if len(text) <= MAX_LENGTH else ""
    match = _CLOCK.search(text)
    if not match or re.search(r"\d", text[: match.start()] + text[match.end() :]):
        return None
    hour, minute, half = match[1] or match[4], match[2] or match[5] or "0", match[3]
    if int(hour) > 24 or int(minute) > 59:
        return None
    shift = 12 if half and half.lower() == "p" else 0
    return (int(hour) % 12 + shift if half else int(hour)), int(minute), half is not None


def same_time(one: tuple[int, int, bool], other: tuple[int, int, bool]) -> bool:
    """Return whether two times are equal. A time without a.m. and p.m. may be either."""
    if one[1] != other[1]:
        return False
    open_times = [time for time in (one, other) if not time[2]]
    return one[0] == other[0] or (
        len(open_times) == 1 and open_times[0][0] <= 12 and (one[0] - other[0]) % 12 == 0
    )


def in_base(text: str) -> tuple[str, int] | None:
    """Parse the digits and base of a number such as 1024_5; None for other texts."""
    match = _BASE.match(without_wrappers(text)) if len(text) <= MAX_LENGTH else None
    if not match:
        return None
    return match[1].lstrip("0").upper() or "0", int(match[2] or match[3])


def letters(text: str) -> tuple[str, str] | None:
    """Parse a text of letters only: the shape before them ("angle", or "") and the letters; None
    for other texts."""
    if len(text) > MAX_LENGTH:
        return None
    match = _LETTERS.match(without_wrappers(text).rstrip("."))
    if not match or re.search(r"\\", match[2]):
        return None
    return (match[1] or "").strip("\\"), match[2]


def same_letters(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Return whether two texts of letters are equal. The letters of an angle or a segment may be
    reversed, those of a triangle may be in any order."""
    plain = [re.sub(r"[\s'-]", "", text) for _, text in (one, other)]
    if plain[0] == plain[1] or (min(map(len, plain)) > 1 and plain[0].lower() == plain[1].lower()):
        return True
    shapes = {shape for shape, _ in (one, other)} - {""}
    if shapes & {"angle", "measuredangle", "overline", "overleftrightarrow"}:
        return plain[0] == plain[1][::-1]
    return shapes == {"triangle"} and sorted(plain[0]) == sorted(plain[1])


def number_in_words(text: str) -> int | None:
    """Parse a number below a thousand in English words ("forty-two"); None for other texts."""
    words = re.findall(r"[a-z]+", without_wrappers(text).lower()) if len(text) <= MAX_LENGTH else []
    total = 0
    for index, word in enumerate(words):
        value = _NUMBERS.get(word)
        follows = not total % 100 or (total % 100 in range(20, 100, 10) and (value or 99) < 10)
        if word == "hundred" and index == 1 and 0 < total < 10:
            total *= 100
        elif word == "and" and index == 2 and words[1] == "hundred":
            continue
        elif value is None or not follows or (index and not value):
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
    """Return whether letters may be a product of variables, such as xy, and not a word or shape."""
    return text.islower() and len(text) <= 3 and not set(text) & set("eiou") and text not in _SMALL


_SMALL = {
    "an", "as", "at", "am", "ma", "na", "sa", "ta", "by", "my", "day", "may", "way", "rat", "tar",
    "art", "man", "tan", "cat", "act", "saw", "was", "map", "cab",
}  # fmt: skip
