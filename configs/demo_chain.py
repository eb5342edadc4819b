"""The pipeline of the paper on the walks of the demo, in minutes on two CPU cores.

    python -m launch.pipeline --config=configs/demo_chain.py --workdir=runs/chain

Three starts from the base of configs/demo.py: `none` (the base itself), `cpt` (with the FLOPs of `rlp`) and
`rlp`. Each is fine-tuned on a few walks with thought and answer (`sft`) and then rewarded for right answers
only (`rlvr`). Every run is evaluated on the same held-out walks.
"""

from ml_collections import ConfigDict

from configs import chains, demo

SFT = {
    "steps": 10,
    "data.sequence_length": 32,  # a walk with a thought
    "data.sft.share": 1.0,
    "data.compass.thought_share": 1.0,
    "data.compass.musing_share": 0.5,
}
RLVR = {"objective": "rlvr", "steps": 20, "batch_size": 32}


def get_config() -> ConfigDict:
    """Return the experiment, in which every arm is evaluated at its end only."""
    config = demo.get_config()
    config.evaluation.every = 0
    config.evaluation.problems = 256
    config.data.problems.evaluation = "compass"
    config.data.problems.response_length = 12  # L: eight headings, the closing tag, "north . <eos>"
    config.data.problems.verifier = "exact"

    base, cpt, rlp = (config.arms[name] for name in ("base", "cpt", "rlp"))
    base.evaluation.every = 0
    starts = {"none": {"init_from": "base", "steps": 0}}
    config.arms = chains.arms(starts | {"cpt": {}, "rlp": {}}, {"sft": SFT, "rlvr": RLVR})
    config.arms.update({"base": base, "cpt": cpt, "rlp": rlp})
    return config
