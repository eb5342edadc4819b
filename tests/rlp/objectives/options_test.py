"""Options of objectives: the values of a config are checked against the declared ones."""

import pytest

from rlp.objectives.options import Options, resolve
from rlp.runtime.errors import UserError

DECLARED = {"price": 0.01, "count": 3, "loud": False, "rule": "mean"}


def test_what_is_not_given_has_its_default():
    given = {"price": 1, "rule": "sum"}
    actual = resolve("mine", DECLARED, given)
    assert actual == DECLARED | {"price": 1.0, "rule": "sum"}
    assert type(actual["price"]) is float  # an int is accepted for a float


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prize": 1.0}, "'mine' does not have this option; did you mean price"),
        ({"other": 1.0}, "its options are price, count, loud, rule"),
        ({"count": 1.5}, "count=1.5 must be a int, like its default 3"),
        ({"price": "x"}, "must be a float"),
        ({"price": float("nan")}, "price=nan must be a float"),
        ({"count": True}, "count=True must be a int"),
    ],
)
def test_what_an_objective_does_not_declare_is_refused(given, said):
    with pytest.raises(UserError) as refused:
        resolve("mine", DECLARED, given)
    assert said in str(refused.value)
    assert f"objective_options.{next(iter(given))}" in str(refused.value)


def test_an_objective_without_options_says_how_to_declare_some():
    with pytest.raises(UserError, match=r"declares none, so add options="):
        resolve("mine", {}, {"price": 1.0})


def test_options_are_read_by_name_and_tell_programs_apart():
    options = Options({"price": 0.5})
    assert (options.price, options["price"], dict(options)) == (0.5, 0.5, {"price": 0.5})
    with pytest.raises(UserError, match="did you mean price"):
        options.prize  # noqa: B018
    assert {options: 1}[Options({"price": 0.5})] == 1
    assert Options({"price": 1}) != Options({"price": 1.0}) != Options({"price": True})
