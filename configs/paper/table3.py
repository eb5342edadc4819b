"""Table 3 of the paper: RLP beside RPT, whose reward is 1 if the next token is predicted and else 0.

    python -m launch.pipeline --config=configs/paper/table3.py:<folder> --workdir=<workdir>

(base.py beside this file says what lies in the folder; the documents are mathematical texts, in the paper
OmniMath.) Another model by one field: `--config.init_from=…`.

`rlp` and `rpt` are 200 steps on the same documents with one target each, at the same positions: they are
matched by tokens and by targets at once, and differ in their reward and RPT's standardised advantages alone.
`rpt_entropy` forks where the model is least certain, which is RPT's own rule.

Published are averages over the tasks: RPT 41.69 and RLP 43.35 matched by tokens, 35.68 and 42.86 matched by
targets. Since they have no denominator that we know, none stands in the table; nor do we know what else the
two ways of matching fix, or whether this is the number of the table in the paper.
"""

from ml_collections import ConfigDict

from configs.paper import base

TOKENS = 170e6


def get_config(data: str = "data") -> ConfigDict:
    """The runs on the files of a folder."""
    rpt = base.rlp(TOKENS) | {"objective": "rpt"}
    starts = {
        "none": base.none(),
        "rlp": base.rlp(TOKENS),
        "rpt": rpt,
        "rpt_entropy": rpt | {"rlp.positions": "entropy"},
    }
    return base.chain(data, starts, {})
