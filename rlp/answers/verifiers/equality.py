"""Whether two answers are the same mathematics: math-verify's verdict, less where it errs."""

import re
from typing import Any

from rlp.answers.verifiers import quantities
from rlp.answers.verifiers.formulas import MathAnswer, read
from rlp.answers.verifiers.markup import formula

LARGE = 10**9  # numbers above it may be rounded to as many digits
CLOSE = 1e-3  # most that small numbers may differ, as a share of the right one
_SPLIT = re.compile(r",\s?(?:and|or)\s|\s(?:and|or)\s|[,;]")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")


def same(right: MathAnswer, said: MathAnswer) -> bool:
    """Whether two answers are the same."""
    for known in (_as_text(right, said), _as_quantities(right, said)):
        if known is not None:
            return known
    return not _repeats_differ(right, said) and any(
        _same_values(one, other) for one in right.values for other in said.values
    )


def _as_text(right: MathAnswer, said: MathAnswer) -> bool | None:
    """What the texts alone tell of whether they are the same; None where values have to."""
    plain = _plain(right)
    if plain in (_plain(said), _plain(said.whole)):
        return True
    times = quantities.clock(right), quantities.clock(said)
    if times[0] and times[1] and (times[0][2] or times[1][2]):
        return quantities.same_time(times[0], times[1])
    if times[0] and times[0][2]:
        return False
    bases = quantities.in_base(right), quantities.in_base(said)
    if bases[0] and bases[1]:
        return bases[0] == bases[1]
    words = quantities.letters(right), quantities.letters(said)
    if words[0] and words[1] and max(len(words[0][1]), len(words[1][1])) > 1:
        if quantities.same_letters(words[0], words[1]):
            return True
        shaped = words[0][0] or words[1][0]
        return None if not shaped and quantities.may_commute(words[0][1]) else False
    return None


def _as_quantities(right: MathAnswer, said: MathAnswer) -> bool | None:
    """Whether numbers with units are the same; None unless both have units that are known."""
    one, other = quantities.quantity(right), quantities.quantity(said)
    if one is None or other is None:
        return None
    if quantities.differ(one, other):
        return False
    if one.measured != other.measured or one.size == other.size:
        return None
    values = [
        next(map(_number, read(f"\\boxed{{{formula(x.number)}}}")), None) for x in (one, other)
    ]
    if None in values:
        return False
    from sympy import Rational

    ratio = other.size / one.size
    return _same_values(values[0], values[1] * Rational(ratio.numerator, ratio.denominator))


def _plain(text: str) -> str:
    """A text for comparison by its signs."""
    text = re.sub(r"\\(?:left|right|displaystyle|[,;:! ])", "", quantities.without_wrappers(text))
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\s", "", text).rstrip(".")
    return text.lower() if re.search(r"(?<![\\A-Za-z])[A-Za-z]{3}", text) else text


def _repeats_differ(right: MathAnswer, said: MathAnswer) -> bool:
    """Whether one of two lists repeats what the other says once; in braces, that is the same."""
    counts = []
    for text in (right, said):
        if re.search(r"\\[{}]|\\pm|\\cup|\\begin|[()\[\]]", text) or not re.search(
            r"[,;]| and | or ", text
        ):
            return False
        items = [
            _plain(item)
            for item in _SPLIT.split(_THOUSANDS.sub(lambda m: m[0].replace(",", ""), text))
        ]
        counts.append((len(items), len(set(items))))
    return any(all_ != different for all_, different in counts) and counts[0][0] != counts[1][0]


def _same_values(right: Any, said: Any) -> bool:
    """math-verify's verdict; but small numbers are compared by their ratio."""
    from math_verify import verify

    same = verify([right], [said], timeout_seconds=None, allow_set_relation_comp=True)
    numbers = [_number(right), _number(said)]
    if not same:
        return None not in numbers and _nearly(*numbers)
    if None in numbers or max(map(abs, numbers)) >= CLOSE:
        return True
    return abs(numbers[0] - numbers[1]) <= CLOSE * abs(numbers[0])


def _nearly(right: Any, said: Any) -> bool:
    """Whether a large number and a float are the same but for rounding."""
    from sympy import Float

    large = abs(right) > LARGE and (isinstance(right, Float) or isinstance(said, Float))
    return bool(large and abs(right - said) <= abs(right) / LARGE)


def _number(value: Any) -> Any:
    """A value as a number of sympy's; None for others, and for what is not plainly one."""
    from sympy import Basic, Float, Rational

    try:
        if not isinstance(value, Basic) or value.free_symbols or value.count_ops() > 20:
            return None
        value = value.doit()
    except Exception:  # noqa: BLE001  sympy raises what it likes, for a product of sets, say
        return None
    return value if isinstance(value, Rational | Float) else None
