"""References to runs are split at the right sign, and the run in them can be replaced."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlp.runtime import run_reference
from rlp.runtime.run_reference import RunReference


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("", RunReference("")),
        ("runs/a", RunReference("runs/a")),
        ("runs/a@3", RunReference("runs/a", "@", "3")),
        ("runs/a@b@best", RunReference("runs/a@b", "@", "best")),
        ("runs/a@", RunReference("runs/a", "@", "")),
        ("@best", RunReference("@best")),
    ],
)
def test_a_checkpoint_is_split_at_its_last_at(text, reference):
    assert run_reference.checkpoint(text) == reference


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("", RunReference("", "", "")),
        ("a:flops", RunReference("a", ":", "flops")),
        ("C:/a:seconds", RunReference("C:/a", ":", "seconds")),
        ("flops", RunReference("", "", "flops")),
    ],
)
def test_usage_is_split_at_its_last_colon(text, reference):
    assert run_reference.usage(text) == reference


def test_a_folder_whose_name_has_an_at_is_the_run(tmp_path):
    folder = tmp_path / "a@3"
    assert run_reference.checkpoint_on_disk(str(folder)).run == str(tmp_path / "a")
    folder.mkdir()
    assert run_reference.checkpoint_on_disk(str(folder)) == RunReference(str(folder))
    assert run_reference.checkpoint_on_disk(f"{folder}@7").detail == "7"


@given(st.text("ab@:/", max_size=9), st.sampled_from([*run_reference.FIELDS.values()]))
def test_splitting_loses_nothing(text, split):
    reference = split(text)
    assert reference.of(reference.run) == text
