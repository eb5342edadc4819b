"""RLP, related objectives and controls on the documents of the demo.

    python -m launch.train --config=configs/demo_objectives.py --workdir=runs/objectives/41 --config.seed=41

The arms of configs/demo.py, and one for every other objective over thoughts. These start from `base`,
run for as many steps on the same documents as `rlp`, and differ from it in the objective only. `cpt`
uses the FLOPs of `rlp`, and `cpt_tokens` its document tokens. docs/objectives.md has the results.
"""

from ml_collections import ConfigDict

from configs import demo

OBJECTIVES = (
    "rpt", "latro", "jepo", "verifree", "rlpr", "nover",
    "random_reward", "permuted_reward", "shuffled_target", "other_document",
    "length_reward", "format_reward",
)  # fmt: skip


def get_config() -> ConfigDict:
    """Return the experiment, in which every arm is evaluated at its end only."""
    config = demo.get_config()
    config.evaluation.every = 0
    config.arms.base.evaluation.every = 0
    config.arms.cpt_tokens = ConfigDict()
    config.arms.cpt_tokens.init_from = "base"
    config.arms.cpt_tokens.match = "rlp:tokens"
    config.arms.cpt_tokens.optimizer = ConfigDict()
    config.arms.cpt_tokens.optimizer.weight_decay = 0.1
    for name in OBJECTIVES:
        config.arms[name] = ConfigDict(config.arms.rlp.to_dict())
        config.arms[name].objective = name
    return config
