"""Table 3 of the paper: RLP and RPT, whose reward is 1 if the next token is predicted correctly, else 0.

    python -m launch.pipeline --config=configs/paper/table3.py:<folder> --workdir=<workdir>

(base.py in this folder lists the files of <folder>; the documents are mathematical texts, OmniMath in the paper.
`--config.init_from=…` selects another model.)

`rlp` and `rpt` run for 200 steps on the same documents with one target each, at the same positions: they match
in tokens and in targets, and differ only in the reward and in the standardized advantages of RPT.
`rpt_entropy` forks at the positions where the model is least certain, as RPT does.

The paper publishes averages over the tasks: RPT 41.69 and RLP 43.35 matched by tokens, 35.68 and 42.86 matched
by targets. The table of the pipeline shows none of them, because we do not know their denominator. Nor do we
know what else the two ways of matching fix, or whether 3 is the number of the table in the paper.
"""

from ml_collections import ConfigDict

from configs.paper import base

TOKENS = 170e6


def get_config(data: str = "data") -> ConfigDict:
    """Return the runs on the files of a folder."""
    rpt = base.rlp(TOKENS) | {"objective": "rpt"}
    starts = {
        "none": base.none(),
        "rlp": base.rlp(TOKENS),
        "rpt": rpt,
        "rpt_entropy": rpt | {"rlp.positions": "entropy"},
    }
    return base.chain(data, starts, {})
