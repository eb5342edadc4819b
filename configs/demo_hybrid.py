"""The demo with a hybrid network: attention and feed-forward, then Mamba-2, then a feed-forward without a gate.

    python -m launch.train --config=configs/demo_hybrid.py --workdir=runs/demo_hybrid

It has about as many parameters as the network of the demo; all else is the same (docs/demo.md).
"""

from ml_collections import ConfigDict

from configs import demo


def get_config() -> ConfigDict:
    """Return the experiment."""
    config = demo.get_config()
    config.model.layer_pattern = "GM-"
    config.model.num_layers = 3
    config.model.ffn_size = 320
    config.model.mamba_heads = 4
    config.model.mamba_head_dim = 32
    config.model.mamba_groups = 1
    config.model.mamba_state = 16
    return config
