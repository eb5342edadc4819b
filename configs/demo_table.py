"""The experiments of the paper at the scale of the demo: all arms, controls and ablations, three seeds.

    for seed in 41 42 43; do
        python -m launch.pipeline --config=configs/demo_table.py --workdir=runs/table/$seed --config.seed=$seed
    done
    python -m launch.report runs/table/41 runs/table/42 runs/table/43

The arms of configs/demo_objectives.py and configs/demo_chain.py (three starts, each followed by SFT and RLVR,
which are also evaluated on problems), and ablations of one field of `rlp` each: group, length, horizon, KL term,
temperature. `anywhere` continues the base with half of the thoughts at random positions of a document. RLP is
trained from it at the answer and at uniform positions, one per document or eight in an eighth of the documents.
"""

from ml_collections import ConfigDict

from configs import chains, demo_chain, demo_objectives

OF_RLP: dict[str, chains.Fields] = {  # the fields in which each arm differs from `rlp`
    "group_2": {"rlp.group_size": 2},
    "group_4": {"rlp.group_size": 4},
    "group_16": {"rlp.group_size": 16},
    "length_5": {"rlp.thought_length": 5},
    "length_16": {"rlp.thought_length": 16},
    "horizon_3": {"rlp.horizon": 3},
    "kl_001": {"rlp.kl_weight": 0.01},
    "kl_01": {"rlp.kl_weight": 0.1},
    "temperature_07": {"rlp.temperature": 0.7},
}
ANYWHERE: dict[str, chains.Fields] = {  # the same, starting from `anywhere`
    "anywhere_given": {},
    "anywhere_uniform": {"rlp.positions": "uniform"},
    "anywhere_uniform_8": {"rlp.positions": "uniform", "rlp.forks_per_document": 8, "batch_size": 4},
}


def get_config() -> ConfigDict:
    """Return the experiment; every arm is evaluated at its end, at the position of the answer."""
    config = demo_chain.get_config()
    chain = config.arms
    arms = demo_objectives.get_config().arms
    rlp = arms.rlp
    half = {"init_from": "base", "data.compass.anywhere_share": 0.5}
    arms.anywhere = chains.changed(arms.base, half)
    for name, fields in OF_RLP.items():
        arms[name] = chains.changed(rlp, fields)
    for name, fields in ANYWHERE.items():
        arms[name] = chains.changed(rlp, {"init_from": "anywhere", **fields})
    for name in set(arms) - set(chain):
        arms[name] = chains.changed(arms[name], {"data.problems.evaluation": ""})
    arms.update(chain)

    config.arms = arms
    config.evaluation.positions = "given"
    return config
