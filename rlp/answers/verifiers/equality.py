"""Compare two mathematical answers: the verdict of math-verify, with corrections."""

import re
from typing import Any

from rlp.answers.verifiers import quantities
from rlp.answers.verifiers.formulas import MathAnswer, read
from rlp.answers.verifiers.markup import formula

LARGE = 10**9  # larger numbers may be rounded to nine digits
CLOSE = 1e-3  # maximum difference of small numbers, relative to the gold answer
_SPLIT = re.compile(r",\s?(?:and|or)\s|\s(?:and|or)\s|[,;]")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")


def same(gold: MathAnswer, answer: MathAnswer) -> bool:
    """Return whether an answer equals the gold answer."""
    for verdict in (_as_text(gold, answer), _as_quantities(gold, answer)):
        if verdict is not None:
            return verdict
    return not _repeats_differ(gold, answer) and any(
        _same_values(one, other) for one in gold.values for other in answer.values
    )


def _as_text(gold: MathAnswer, answer: MathAnswer) -> bool | None:
    """Compare two answers by their texts; None if their values must be compared."""
    plain = _plain(gold)
    if plain in (_plain(answer), _plain(answer.whole)):
        return True
    times = quantities.clock(gold), quantities.clock(answer)
    if times[0] and times[1] and (times[0][2] or times[1][2]):
        return quantities.same_time(times[0], times[1])
    if times[0] and times[0][2]:
        return False
    bases = quantities.in_base(gold), quantities.in_base(answer)
    if bases[0] and bases[1]:
        return bases[0] == bases[1]
    words = quantities.letters(gold), quantities.letters(answer)
    if words[0] and words[1] and max(len(words[0][1]), len(words[1][1])) > 1:
        if quantities.same_letters(words[0], words[1]):
            return True
        shaped = words[0][0] or words[1][0]
        return None if not shaped and quantities.may_commute(words[0][1]) else False
    return None


def _as_quantities(gold: MathAnswer, answer: MathAnswer) -> bool | None:
    """Compare numbers with units; None unless both have known units."""
    one, other = quantities.quantity(gold), quantities.quantity(answer)
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
    """Normalize a text for comparison."""
    text = re.sub(r"\\(?:left|right|displaystyle|[,;:! ])", "", quantities.without_wrappers(text))
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\s", "", text).rstrip(".")
    return text.lower() if re.search(r"(?<![\\A-Za-z])[A-Za-z]{3}", text) else text


def _repeats_differ(gold: MathAnswer, answer: MathAnswer) -> bool:
    """Return whether one of two lists repeats an item that the other has once; sets in braces are
    compared without repetitions."""
    counts = []
    for text in (gold, answer):
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


def _same_values(gold: Any, answer: Any) -> bool:
    """Return the verdict of math-verify, but compare small numbers by their ratio."""
    from math_verify import verify

    same = verify([gold], [answer], timeout_seconds=None, allow_set_relation_comp=True)
    numbers = [_number(gold), _number(answer)]
    if not same:
        return None not in numbers and _nearly(*numbers)
    if None in numbers or max(map(abs, numbers)) >= CLOSE:
        return True
    return abs(numbers[0] - numbers[1]) <= CLOSE * abs(numbers[0])


def _nearly(gold: Any, answer: Any) -> bool:
    """Return whether a large number and a float are equal up to rounding."""
    from sympy import Float

    large = abs(gold) > LARGE and (isinstance(gold, Float) or isinstance(answer, Float))
    return bool(large and abs(gold - answer) <= abs(gold) / LARGE)


def _number(value: Any) -> Any:
    """Convert a value to a sympy number; None if it is not one, or too complex to evaluate."""
    from sympy import Basic, Float, Rational

    try:
        if not isinstance(value, Basic) or value.free_symbols or value.count_ops() > 20:
            return None
        value = value.doit()
    except Exception:  # noqa: BLE001  sympy raises any error, such as for products of sets
        return None
    return value if isinstance(value, Rational | Float) else None
