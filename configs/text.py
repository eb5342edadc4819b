"""Train from scratch on any text, small enough for a CPU, on bytes or with a tokenizer folder.

    python -m launch.train --config=configs/text.py --workdir=runs/text --config.data.train=<path>
    python -m launch.train --config=configs/text.py:rlp --workdir=runs/text_rlp \
        --config.data.train=<path> --config.init_from=runs/text

The first command pretrains (3.2M parameters, 300 steps of 4,096 bytes); the second runs RLP from its
checkpoint. A short run of a model this small, on text without thoughts, does not find thoughts that
help: use this config to try the programs, or as a start for your own text and model.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(objective: str = "next_token") -> ConfigDict:
    """Return the config of an objective: "next_token" (default) or "rlp"."""
    config = default.get_config()
    config.objective = objective
    config.data.sequence_length = 256  # T
    config.data.holdout_every = 20

    config.model.hidden_size = 256
    config.model.num_layers = 4
    config.model.num_heads = 4
    config.model.num_kv_heads = 2
    config.model.head_dim = 64
    config.model.ffn_size = 768

    config.steps = 300
    config.batch_size = 16
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.1

    config.rlp.prompt = "none"  # a model trained from scratch cannot follow instructions
    config.rlp.group_size = 8  # G
    config.rlp.forks_per_document = 4  # K
    config.rlp.thought_length = 16  # L
    config.rlp.horizon = 8  # H
    config.rlp.min_prefix = 32
    config.rlp.temperature = 1.0
    config.rlp.unclosed = "append"  # a model without training on thoughts does not close them

    config.evaluation.documents = 64
    config.evaluation.forks_per_document = 4
    config.evaluation.browse_positions = 16
    config.checkpoint.every = 100

    if objective == "rlp":
        config.steps = 50
        config.batch_size = 8
        config.optimizer.learning_rate = 1e-5  # at 1e-4 the no-think loss doubles
        config.optimizer.schedule = "constant"
        config.optimizer.warmup_steps = 5
        config.optimizer.weight_decay = 0.0
    return config
