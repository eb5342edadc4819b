"""A saved config is loaded exactly, and two configs are compared field by field."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from rlp.runtime.config_json import check_same, fields, load_config, save_config
from rlp.runtime.errors import UserError

values = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8")),
)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: not hasattr(ConfigDict, name)
)
trees = st.recursive(
    st.dictionaries(names, values, max_size=4),
    lambda inner: st.dictionaries(names, st.one_of(values, inner), max_size=4),
    max_leaves=10,
)


@given(trees)
def test_a_saved_config_comes_back_with_its_types_and_bits(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("config") / "config.json"
    saved = ConfigDict(tree)
    save_config(saved, path)
    loaded = load_config(path)
    assert list(path.parent.iterdir()) == [path]
    assert loaded.to_dict() == saved.to_dict()
    exact = [[(k, type(v), repr(v)) for k, v in fields(config)] for config in (saved, loaded)]
    assert exact[0] == exact[1]
    assert check_same(saved, loaded) == []


def test_what_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path):
    for value in (math.nan, math.inf, (1, 2), None):
        with pytest.raises(UserError, match=r"a\.b"):
            save_config(ConfigDict({"a": {"b": value}}), tmp_path / "config.json")
    assert list(tmp_path.iterdir()) == []


def test_differences_are_named_field_by_field():
    saved = ConfigDict({"steps": 100, "rlp": {"temperature": 0.7, "baseline": "ema"}, "seed": 0})
    new = ConfigDict({"steps": 200, "rlp": {"temperature": 0.5, "prompt": "a"}, "seed": 0})
    assert check_same(saved, new) == [
        'rlp.baseline: "ema" -> missing',
        'rlp.prompt: missing -> "a"',
        "rlp.temperature: 0.7 -> 0.5",
        "steps: 100 -> 200",
    ]


def test_where_and_in_what_pieces_a_run_is_computed_makes_no_difference():
    def config(devices, branches, remat, layers):
        settings = {
            "mesh": {"fsdp": devices},
            "rlp": {"max_branches_in_flight": branches},
            "model": {"remat": remat, "num_layers": layers},
        }
        return ConfigDict(settings | {"arms": {"base": settings}})

    assert check_same(config(1, 0, "none", 2), config(8, 64, "block", 2)) == []
    assert check_same(config(1, 0, "none", 2), config(8, 0, "none", 3)) == [
        "arms.base.model.num_layers: 2 -> 3",
        "model.num_layers: 2 -> 3",
    ]


def test_a_type_alone_is_a_difference():
    assert check_same(ConfigDict({"a": 1}), ConfigDict({"a": 1.0})) == ["a: 1 -> 1.0"]
    assert check_same(ConfigDict({"a": 1}), ConfigDict({"a": True})) == ["a: 1 -> true"]


@pytest.mark.parametrize("content", [None, "", '{"a": ', "[1]", "\x00\x00"])
def test_a_config_that_cannot_be_read_is_refused(tmp_path, content):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=re.escape(str(path))):
        load_config(path)
