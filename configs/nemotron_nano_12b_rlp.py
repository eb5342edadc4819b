"""The recipe of the paper for Nemotron-Nano-12B-v2-Base: that of the 1.7B model with a hybrid network.

    python -m launch.train --config=configs/nemotron_nano_12b_rlp.py --workdir=<folder> \
        --config.data.train=<documents> --config.init_from=nvidia/NVIDIA-Nemotron-Nano-12B-v2-Base

12,310,001,152 parameters in 28 layers of Mamba-2, 6 of attention and 28 feed-forwards. The paper starts from a
checkpoint at 19.8T tokens, which is not public; this base is the one after 20T. This project has not run it. The
states of a thought take 140 MiB (float32), as much as 6,000 tokens of its keys and values.
"""

from ml_collections import ConfigDict

from configs import qwen3_1p7b_rlp


def get_config() -> ConfigDict:
    """Return the recipe."""
    config = qwen3_1p7b_rlp.get_config()
    config.model.vocab_size = 131072
    config.model.hidden_size = 5120
    config.model.num_layers = 62
    config.model.layer_pattern = "M-M-M-M*-" * 6 + "M-" * 4
    config.model.num_heads = 40
    config.model.num_kv_heads = 8
    config.model.head_dim = 128
    config.model.qk_norm = "none"
    config.model.ffn_size = 20480
    config.model.activation = "relu2"
    config.model.mamba_heads = 128
    config.model.mamba_head_dim = 80
    config.model.norm_epsilon = 1e-5
    config.model.tie_embeddings = False
    config.data.eos = ""  # the one of the tokenizer
    config.rlp.update_micro_batch = 256  # a document for each of 16 shards
    config.mesh.tensor = 4
    return config
