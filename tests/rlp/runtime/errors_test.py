"""A UserError carries the field and the value at fault."""

import copy
import pickle

import pytest

from rlp.runtime.errors import UserCodeError, UserError


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("is unknown; use one of a, b", "rlp.ratio='x' is unknown; use one of a, b"),
        ("; it must be at least 1", "rlp.ratio='x'; it must be at least 1"),
        (", which is infinite", "rlp.ratio='x', which is infinite"),
        (": there is no such file", "rlp.ratio='x': there is no such file"),
    ],
)
def test_the_sentence_begins_with_the_field_and_its_value(problem, message):
    error = UserError.of("rlp.ratio", "x", problem)
    assert (str(error), error.field, error.value) == (message, "rlp.ratio", "x")


def test_an_error_of_no_field_says_so():
    error = UserError("no such run")
    assert (error.field, error.value) == ("", None)


@pytest.mark.parametrize(
    "error",
    [
        UserError.of("steps", 0, "; set it to 1"),
        UserCodeError("raised", "line 3", field="objective", value="mine:OBJECTIVE"),
    ],
)
def test_an_error_keeps_what_it_carries(error):
    """In another process, and with the name of one of several configs added."""
    attributes = lambda e: (type(e), e.field, e.value, vars(e).get("frames"))
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert attributes(again) == attributes(error)
        assert str(again) == str(error)
    within = error.within("arm rlp")
    assert attributes(within) == attributes(error)
    assert str(within) == f"arm rlp: {error}"
