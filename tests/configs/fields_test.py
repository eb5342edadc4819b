"""How fields are declared, and what derives from that: checks, descriptions, typed settings."""

import dataclasses
import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import fields
from configs.fields import count, field, fraction


@dataclasses.dataclass(frozen=True)
class Inner(fields.Group):
    """A group in a group."""

    share: float = fraction(0.5, "share of it")


@dataclasses.dataclass(frozen=True)
class Outer(fields.Group):
    """A group."""

    steps: int = count(3, "how long", symbol="S", unit="steps", at_least=0, special={0: "nothing"})
    mode: str = field("fast", "how", choices={"fast": "", "slow": "but sure"}, special={"": "fast"})
    inner: Inner = Inner()
    on: bool = field(True, "whether")
    free: Mapping[str, int] = fields.options()


FREE = {"free": {}}


def test_a_config_dict_and_settings_have_the_declared_fields():
    config = fields.config_dict(Outer)
    assert (
        config.to_dict() == {"steps": 3, "mode": "fast", "inner": {"share": 0.5}, "on": True} | FREE
    )
    config.inner.share = 0.25
    config.others = "are left out"
    config.free.a = 1
    settings = fields.read(Outer, config)
    assert settings == Outer(inner=Inner(share=0.25), free={"a": 1})
    assert fields.read(Outer, settings) == settings
    del config.inner.share  # as in the config of a run that is older than the field
    assert fields.read(Outer, config) == Outer(free={"a": 1})


def test_a_group_gives_its_fields_as_a_config_dict_does():
    config = fields.config_dict(Outer)
    assert dict(**Outer()) == {"steps": 3, "mode": "fast", "inner": Inner(), "on": True} | FREE
    assert dict(**Inner()) == dict(**config.inner)
    for either in (Outer(), config):
        assert fields.value_of(either, "inner.share") == either.inner["share"] == 0.5
        assert fields.nested(fields.flat(either, Outer)) | FREE == config.to_dict()


def test_fields_are_walked_with_their_paths_in_the_order_of_the_declaration():
    found = [(each.path, each.kind, each.default) for each in fields.walk(Outer)]
    assert found == [
        ("steps", int, 3),
        ("mode", str, "fast"),
        ("inner.share", float, 0.5),
        ("on", bool, True),
    ]


def test_a_description_has_everything_that_is_declared():
    described = {each.path: each.described() for each in fields.walk(Outer)}
    assert described["steps"] == "S: how long [steps]; at least 0; 0 = nothing"
    assert described["mode"] == 'how; "fast" | "slow" but sure; "" = fast'
    assert described["inner.share"] == "share of it; in [0, 1]"


def bounded(**limits):
    return fields.Field(default=1.0, help="", kind=float, **limits)


NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))


@given(NUMBERS, NUMBERS, NUMBERS, st.booleans(), st.booleans())
def test_a_number_is_refused_exactly_outside_of_its_bounds(value, low, high, low_in, high_in):
    limits = {"at_least" if low_in else "above": low, "at_most" if high_in else "below": high}
    inside = (low <= value if low_in else low < value) and (
        value <= high if high_in else value < high
    )
    assert (bounded(**limits).problem(value) == "") == inside


@given(NUMBERS)
def test_a_special_value_is_accepted_wherever_the_bounds_are(value):
    assert bounded(below=value, special={value: "special"}).problem(value) == ""


@pytest.mark.parametrize(
    ("limits", "value", "problem"),
    [
        ({"at_least": 1}, 0, "; it must be at least 1"),
        ({"at_least": 0}, -1, "; it must not be negative"),
        ({"above": 0}, 0.0, "; it must be above 0"),
        ({"at_least": 0, "below": 1, "why": "so"}, 1.0, "; it must be in [0, 1): so"),
        ({"above": 1, "special": {0: "off"}}, 0.5, "; it must be above 1, or 0 (off)"),
        ({"at_least": 1, "held_as": "int32"}, 2**31, "; it must be at most 2147483647"),
        ({"at_least": 0, "held_as": "int32"}, 10**400, "; it must be at most 2147483647"),
    ],
)
def test_a_problem_says_what_the_value_can_be(limits, value, problem):
    assert bounded(**limits).problem(value) == problem


@pytest.mark.parametrize(
    ("limits", "value", "problem"),
    [
        ({"above": 0}, 1e-46, ", which is 0 in float32; it must be above 0"),
        ({"above": 0}, 1e-39, ", which is 0 in float32; it must be above 0"),  # flushed
        ({"above": 0}, 1.2e-38, ""),
        ({"below": 1}, 1 - 1e-9, ", which is 1 in float32; it must be below 1"),
        ({"below": 1}, 1 - 1e-7, ""),
        ({}, 1e39, ", which is infinite in float32; lower it"),
        ({"special": {0: "off"}}, 1e39, ", which is infinite in float32; lower it, or set it to 0"),
        ({}, 3e38, ""),
    ],
)
def test_a_number_that_devices_hold_in_float32_is_in_range_there_too(limits, value, problem):
    found = bounded(held_as="float32", **limits).problem(value)
    assert found.startswith(problem) if problem else found == ""
    assert math.isfinite(value)  # what is not is refused before


def test_a_text_is_one_of_its_choices():
    mode = {each.path: each for each in fields.walk(Outer)}["mode"]
    assert [mode.problem(value) for value in ("fast", "slow", "")] == ["", "", ""]
    assert mode.problem("quick") == "is unknown; use one of '', fast, slow"
