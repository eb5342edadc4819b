"""Table 4 of the paper: RLP and CPT, matched by tokens and by FLOPs.

    python -m launch.pipeline --config=configs/paper/table4.py:<folder> --workdir=<workdir>

(base.py in this folder lists the files of <folder>; `--config.init_from=…` selects another model.)

`rlp` reads 170M tokens of documents in 200 steps, and `cpt` the same number in 27. The paper matches FLOPs by
tokens, G · length · batch · steps + document tokens, and gives CPT 6B tokens: that is `cpt_6b`. `cpt_flops` stops
when it has used the FLOPs of `rlp` as counted here, from shapes, including rollout, scoring and baseline.

The paper publishes averages: 38.04 for CPT matched by FLOPs and, in the ablations with this model and these 170M
tokens, 34.03 for the base and 42.17 for RLP. (The 35.60 that the text of the paper calls matched by FLOPs is
another row.) The table of the pipeline shows none of them, because "overall" counts science twice. We do not know
the scores of single tasks in this table.
"""

from ml_collections import ConfigDict

from configs.paper import base

TOKENS, MATCHED_TOKENS = 170e6, 6e9


def get_config(data: str = "data") -> ConfigDict:
    """Return the runs on the files of a folder."""
    starts = {
        "none": base.none(),
        "rlp": base.rlp(TOKENS),
        "cpt": base.cpt(TOKENS),
        "cpt_6b": base.cpt(MATCHED_TOKENS),
        "cpt_flops": base.cpt(MATCHED_TOKENS) | {"match": "rlp:flops"},
    }
    return base.chain(data, starts, {})
