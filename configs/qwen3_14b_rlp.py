"""The recipe of the paper for Qwen3-14B-Base: that of the 1.7B model with a larger network.

    python -m launch.train --config=configs/qwen3_14b_rlp.py --workdir=<folder> \
        --config.data.train=<documents> --config.init_from=Qwen/Qwen3-14B-Base

14,768,307,200 parameters. This project has not run it; docs/capacity.md has the memory and time of a step.
"""

from ml_collections import ConfigDict

from configs import qwen3_1p7b_rlp


def get_config() -> ConfigDict:
    """Return the recipe."""
    config = qwen3_1p7b_rlp.get_config()
    config.model.hidden_size = 5120
    config.model.num_layers = 40
    config.model.num_heads = 40
    config.model.num_kv_heads = 8
    config.model.head_dim = 128
    config.model.ffn_size = 17408
    config.model.tie_embeddings = False
    config.mesh.tensor = 4
    return config
