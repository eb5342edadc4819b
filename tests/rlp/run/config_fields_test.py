"""Suggestions for misspelled config fields."""

from hypothesis import assume, given
from hypothesis import strategies as st

from configs import default
from rlp.run import config_fields
from rlp.runtime.config_json import fields

KNOWN = dict(fields(default.get_config()))


@given(st.sampled_from(sorted(KNOWN)), st.data())
def test_one_slip_of_the_finger_never_hides_the_field_that_was_meant(field, data):
    group, dot, name = field.rpartition(".")
    at = data.draw(st.integers(0, len(name) - 1))
    before, letter, after = name[:at], name[at], name[at + 1 :]
    slips = [
        f"{before}{after}",  # omission
        f"{before}{letter}q{after}",  # insertion
        f"{before}q{after}",  # substitution
        f"{before}{after[:1]}{letter}{after[1:]}",  # transposition
    ]
    path = group + dot + data.draw(st.sampled_from(slips))
    assume(path not in KNOWN)
    assert field in config_fields.nearest_fields(path, KNOWN)


@given(st.sampled_from(sorted(KNOWN)), st.sampled_from(["", "model.", "rlp.", "no_such_group."]))
def test_a_right_name_under_a_wrong_group_is_found(field, group):
    name = field.rpartition(".")[2]
    path = group + name
    if path not in KNOWN:
        nearest = config_fields.nearest_fields(path, KNOWN)
        assert nearest
        assert {other.rpartition(".")[2] for other in nearest} == {name}


def test_a_name_like_no_other_gets_the_list_of_its_group():
    error = config_fields.unknown_field("mesh.xyzzy", KNOWN)
    assert error.field == "mesh.xyzzy"
    assert str(error) == "the config has no field 'mesh.xyzzy'; mesh has data, fsdp, tensor"
