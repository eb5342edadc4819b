"""Write a tiny random model in the Hugging Face format, to try the programs.

    python -m launch.tiny_hf --out=runs/tiny --family=gemma3_text

It has the architecture of a family and a byte tokenizer.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from launch import program
from rlp.runtime.errors import UserError

if TYPE_CHECKING:
    from models import hf
    from models.config import ModelConfig

_OUT = program.define_output("out", "folder to create")
_FAMILY = flags.DEFINE_string("family", "qwen3", "model_type, as in config.json")
_SEED = flags.DEFINE_integer("seed", 0, "seed of the parameters", lower_bound=0)


def main(_: Sequence[str]) -> None:
    """Write the model."""
    import jax

    from models import hf
    from models.transformer import init
    from rlp.interop import huggingface
    from rlp.interop.init_from import GENERATION
    from rlp.run.model_files import token_ids
    from rlp.tokenizers.byte_tokenizer import ByteTokenizer

    if _FAMILY.value not in hf.BY_NAME:
        known = ", ".join(hf.BY_NAME)
        raise UserError(f"--family={_FAMILY.value!r} is unknown; use one of {known}")
    family, tokenizer = hf.BY_NAME[_FAMILY.value], ByteTokenizer()
    model, ids = _network(family), token_ids(tokenizer)
    huggingface.write_folder(
        Path(_OUT.value),
        init(model, jax.random.key(_SEED.value)),
        hf.tensors(family, model),
        hf.write_config(family, model) | ids | {"max_position_embeddings": 4096},
        dtype="float32",
        files={**tokenizer.files(), GENERATION: json.dumps(ids, indent=2)},
        record={"seed": _SEED.value},
    )
    print(f"written: {_OUT.value} ({family.architecture})")


def _network(family: "hf.Family") -> "ModelConfig":
    """Return a small network of a family, with local layers if the family has them."""
    from models.config import ModelConfig
    from models.rope import Rope

    pattern = family.layers.example
    activations = {"hidden_activation": "gelu_tanh", "mlp_hidden_act": "relu2"}
    own = dict(family.shared)
    if "M" in pattern:
        own |= {"mamba_heads": 4, "mamba_head_dim": 16, "mamba_groups": 2, "mamba_state": 16}
    if "D" in pattern:
        own |= {"delta_heads": 4, "delta_head_dim": 16, "delta_key_heads": 2, "delta_key_dim": 16}
    rope = Rope(
        family.default_theta,
        local_theta=family.default_local_theta,
        partial_rotary_factor=family.default_partial_rotary or 1.0,
    )
    return ModelConfig(
        vocab_size=320,
        hidden_size=64,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        ffn_size=128,
        activation=activations.get(family.activation_field, "silu"),
        sliding_window=64 if "L" in pattern else 0,
        layer_pattern=pattern,
        rope=rope,
        tie_embeddings=family.defaults["tie_word_embeddings"],
        **own,
    )


if __name__ == "__main__":
    program.run(main)
