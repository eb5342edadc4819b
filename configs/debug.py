"""A whole RLP run in about ten seconds on a CPU, to try an install or a change.

    python -m launch.train --config=configs/debug.py --workdir=runs/debug

Four steps of a one-layer network on generated documents, with two evaluations, checkpoints and a
report. Nothing is learned in four steps. The first run also compiles, which takes about half a minute
of CPU time; set JAX_COMPILATION_CACHE_DIR to a folder to keep the programs. docs/debugging.md shows
what the command prints.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(objective: str = "rlp") -> ConfigDict:
    """The run for an objective: "rlp" (default), "next_token", or another one that scores text."""
    config = default.get_config()
    config.objective = objective
    config.steps = 4
    config.batch_size = 4

    config.model.hidden_size = 32
    config.model.num_layers = 1
    config.model.num_heads = 2
    config.model.num_kv_heads = 2
    config.model.head_dim = 16
    config.model.ffn_size = 64

    config.data.kind = "compass"
    config.data.sequence_length = 22
    config.data.pack = False
    config.optimizer.learning_rate = 1e-3

    config.rlp.prompt = "none"
    config.rlp.positions = "given"
    config.rlp.group_size = 4  # G
    config.rlp.thought_length = 6  # L
    config.rlp.unclosed = "append"

    config.evaluation.every = 2
    config.evaluation.documents = 8
    config.evaluation.thoughts = 2
    config.evaluation.browse_documents = 1
    config.evaluation.browse_positions = 4
    config.checkpoint.every = 2
    return config
