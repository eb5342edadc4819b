"""The paper's recipe on the shape of Qwen3-14B-Base: the 1.7B one with another network.

    python -m launch.train --config=configs/qwen3_14b_rlp.py --workdir=<folder> \
        --config.data.train=<documents> --config.init_from=Qwen/Qwen3-14B-Base

14,768,307,200 parameters. Not run by this project; docs/capacity.md has what a step needs.
"""

from ml_collections import ConfigDict

from configs import qwen3_1p7b_rlp


def get_config() -> ConfigDict:
    """The recipe."""
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
