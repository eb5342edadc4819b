"""Table 4 of the paper: RLP beside CPT with as many tokens, and with as many FLOPs.

    python -m launch.pipeline --config=configs/paper/table4.py:<folder> --workdir=<workdir>

(base.py beside this file says what lies in the folder.) Another model by one field: `--config.init_from=…`.

`rlp` reads 170M tokens of documents in 200 steps and `cpt` as many in 27. The paper matches FLOPs by tokens,
G · length · batch · steps + those read, and gives CPT 6B: that is `cpt_6b`. `cpt_flops` ends where it has used
the FLOPs that were counted of `rlp`: rollout, scoring and baseline included, from the shapes that ran.

Published are averages: 38.04 for CPT matched by FLOPs; and, from the ablations on this model with these 170M
tokens, 34.03 for the base and 42.17 for RLP. (The 35.60 that the paper's text calls matched by FLOPs is
another row.) Since "overall" counts science twice, none stands in the table; scores of single tasks in this
table are not known to us.
"""

from ml_collections import ConfigDict

from configs.paper import base

TOKENS, MATCHED_TOKENS = 170e6, 6e9


def get_config(data: str = "data") -> ConfigDict:
    """The runs on the files of a folder."""
    starts = {
        "none": base.none(),
        "rlp": base.rlp(TOKENS),
        "cpt": base.cpt(TOKENS),
        "cpt_6b": base.cpt(MATCHED_TOKENS),
        "cpt_flops": base.cpt(MATCHED_TOKENS) | {"match": "rlp:flops"},
    }
    return base.chain(data, starts, {})
