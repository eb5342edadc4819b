"""A network's shape is refused, with its field's name, when it has no meaning."""

import pytest

from models.config import ModelConfig
from tests import tiny


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("num_layers", -1),
        ("num_kv_heads", 3),
        ("head_dim", 7),
        ("compute_dtype", "float16"),
        ("remat", "all"),
    ],
)
def test_a_meaningless_field_is_named(field, value):
    with pytest.raises(
        ValueError, match=f"model.{field}={value}|model.{field}='{value}'|{field} is"
    ):
        tiny.model_config(**{field: value})


def test_equal_shapes_are_one_key():
    # Compiled functions and graphs are cached by configuration.
    assert tiny.model_config() == tiny.model_config()
    assert hash(tiny.model_config()) == hash(tiny.model_config())
    assert isinstance(tiny.model_config(), ModelConfig)
