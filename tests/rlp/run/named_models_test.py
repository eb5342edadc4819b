import pytest

from rlp.run.named_models import named_models
from rlp.runtime.errors import UserError


def test_checkpoints_have_the_names_that_they_are_given():
    expected = {"base": "runs/a@3", "runs/b@best": "runs/b@best", "c": "d=e/f"}
    assert named_models("base=runs/a@3, runs/b@best,c=d=e/f") == expected
    assert named_models("runs/a=b") == {"runs/a=b": "runs/a=b"}


@pytest.mark.parametrize(
    ("checkpoints", "message"),
    [("a,,b", "an entry is empty"), ("a=", "an entry is empty"), ("x=a,x=b", "x occurs twice")],
)
def test_checkpoints_without_a_path_or_with_the_same_name_are_refused(checkpoints, message):
    with pytest.raises(UserError, match=message):
        named_models(checkpoints)
