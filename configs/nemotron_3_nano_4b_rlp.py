"""A recipe for one H200: RLP for Nemotron-3-Nano-4B, a hybrid of Mamba-2 and attention.

    export XLA_PYTHON_CLIENT_MEM_FRACTION=0.9
    python -m launch.train --config=configs/nemotron_3_nano_4b_rlp.py --workdir=<folder> \
        --config.data.train=<documents> --config.init_from=nvidia/NVIDIA-Nemotron-3-Nano-4B-BF16

3,973,556,832 parameters in 21 layers of Mamba-2, 4 of attention and 17 feed-forwards. Parameters, moments,
baseline and gradients take 75 GiB, so the batch and the thoughts are smaller than those of the paper:
32 documents of 1024 tokens with 16 thoughts of up to 512. The states of a thought take 79 MiB (float32). This
project has not run the recipe; docs/capacity.md has the memory of a step as `python -m launch.compile` predicts it.
"""

from ml_collections import ConfigDict

from configs import nemotron_nano_12b_rlp


def get_config() -> ConfigDict:
    """Return the recipe."""
    config = nemotron_nano_12b_rlp.get_config()
    config.batch_size = 32  # documents per step
    config.model.hidden_size = 3136
    config.model.num_layers = 42
    config.model.layer_pattern = "M-M-M-MM-M-M*-M-M*-M-M-M*-M-M-MM*-MMM-M-M-"
    config.model.ffn_size = 12544
    config.model.mamba_heads = 96
    config.data.sequence_length = 1024  # T: context
    config.rlp.thought_length = 512  # L
    config.rlp.max_branches_in_flight = 128  # of the 512 thoughts of a step
    config.rlp.update_micro_batch = 16
    config.mesh.tensor = 1
    return config
