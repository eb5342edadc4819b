"""RLP in minutes on two CPU cores: the "compass" experiment.

    make demo
    python -m launch.train --config=configs/demo.py --workdir=runs/demo --config.seed=1

Three arms: `base` is trained on next-token prediction, on documents in which most thoughts are
empty musings and some work out the answer. `rlp` and `cpt` (continued next-token training with as
many FLOPs as `rlp`) start from `base` and are trained on documents without thoughts.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Return the experiment: first the fields that all arms share, then those of each arm."""
    config = default.get_config()
    config.batch_size = 64
    config.model.rope.theta = 100.0

    config.data.kind = "compass"
    config.data.sequence_length = 22  # length of a document without a thought
    config.data.pack = False

    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_steps = 5

    config.rlp.prompt = "none"
    config.rlp.positions = "given"  # at the answer
    config.rlp.group_size = 8  # G
    config.rlp.thought_length = 9  # L: eight headings and the closing tag
    config.rlp.temperature = 1.0  # at 0.7 the policy collapses to one deterministic chain
    config.rlp.unclosed = "append"  # with "mask", drifting to unclosed thoughts costs nothing

    config.evaluation.every = 10
    config.evaluation.documents = 256
    config.evaluation.thoughts = 8
    config.evaluation.browse_documents = 4

    config.arms = ConfigDict()
    config.arms.base = ConfigDict()
    config.arms.base.steps = 480
    config.arms.base.evaluation = ConfigDict({"every": 100})
    config.arms.base.data = ConfigDict()
    config.arms.base.data.sequence_length = 32
    config.arms.base.data.compass = ConfigDict()  # first workings, later musings
    config.arms.base.data.compass.thought_share = 0.75
    config.arms.base.data.compass.musing_share = 0.1
    config.arms.base.data.compass.late_musing_share = 0.85
    config.arms.base.data.compass.late_from = 19200  # after 300 steps
    config.arms.base.optimizer = ConfigDict()
    config.arms.base.optimizer.learning_rate = 2e-3  # at 3e-3 some seeds never learn to work out the answer
    config.arms.base.optimizer.schedule = "cosine"
    config.arms.base.optimizer.warmup_steps = 50
    config.arms.base.optimizer.weight_decay = 0.05

    config.arms.rlp = ConfigDict()
    config.arms.rlp.objective = "rlp"
    config.arms.rlp.init_from = "base"
    config.arms.rlp.steps = 40
    config.arms.rlp.batch_size = 32

    config.arms.cpt = ConfigDict()
    config.arms.cpt.init_from = "base"
    config.arms.cpt.match = "rlp:flops"
    config.arms.cpt.optimizer = ConfigDict()  # the paper's: cosine to a tenth, weight decay 0.1
    config.arms.cpt.optimizer.schedule = "cosine"
    config.arms.cpt.optimizer.final_share = 0.1
    config.arms.cpt.optimizer.weight_decay = 0.1
    return config
