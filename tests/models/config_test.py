"""Invalid fields of a network config are errors that name the field."""

import pytest

from models.config import ModelConfig
from models.rope import Rope
from tests.support import tiny


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("num_layers", -1),
        ("num_kv_heads", 3),
        ("head_dim", 7),
        ("compute_dtype", "float16"),
        ("remat", "all"),
        ("norm", "within"),
        ("qk_norm", "yes"),
        ("activation", "relu"),
        ("layer_pattern", "GX"),
        ("layer_pattern", ""),
        ("sliding_window", 4),  # without a local layer
    ],
)
def test_an_invalid_field_is_named(field, value):
    with pytest.raises(
        ValueError, match=f"model.{field}={value}|model.{field}='{value}'|{field} is"
    ):
        tiny.model_config(**{field: value})


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("scaling", {"scaling": "dynamic"}),
        ("factor", {"scaling": "linear", "factor": 0.5}),
        ("original_length", {"scaling": "llama3", "factor": 8.0}),
        ("high_frequency_factor", {"high_frequency_factor": 1.0}),
        ("beta_fast", {"beta_fast": 1.0}),
    ],
)
def test_an_invalid_field_of_rope_is_named(field, values):
    with pytest.raises(ValueError, match=f"model.rope.{field}="):
        Rope(**values)


def test_layers_are_local_by_the_pattern():
    config = tiny.model_config(num_layers=7, layer_pattern="LLG", sliding_window=4)
    assert config.letters == tuple("LLGLLGL")


def test_equal_configs_are_one_key():
    # Compiled functions and graphs are cached by config.
    assert tiny.model_config() == tiny.model_config()
    assert hash(tiny.model_config()) == hash(tiny.model_config())
    assert isinstance(tiny.model_config(), ModelConfig)
