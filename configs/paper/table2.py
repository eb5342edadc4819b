"""Table 2 of the paper: RLP on a larger model, and what is left of it after SFT and RLVR.

    python -m launch.pipeline --config=configs/paper/table2.py:<folder> --workdir=<workdir>

(base.py beside this file says what lies in the folder.) Another model by one field: `--config.init_from=…`.

The paper's larger model is Nemotron-Nano-12B-v2, a hybrid of Mamba-2 and attention. **That is not a family this
project has**: `init_from` refuses it by name. Here the same chain starts from Qwen3-14B-Base, the paper's
other larger model, on the 250M tokens of the 12B's run. The paper compares a base of 20T tokens with RLP from
a checkpoint of 19.8T; with one model for both starts, `none` and `rlp` differ by the 250M tokens alone.

Published are averages, whose "overall" counts science twice, so no number stands in the table:
Nemotron-Nano-12B-v2 42.81 -> 61.32 with RLP, after SFT and RLVR 65.31 and 68.09; from its checkpoint of 4T
tokens 12.05 -> 24.08; Qwen3-14B 60.66 -> 65.00. Which table the last two stand in, whether this is the number of the
first one's, and the 14B's budget we do not know; nor are the scores of single tasks known to us.
"""

from ml_collections import ConfigDict

from configs.paper import base

TOKENS = 250e6


def get_config(data: str = "data") -> ConfigDict:
    """The chain on the files of a folder."""
    starts = {"none": base.none(), "rlp": base.rlp(TOKENS)}
    config = base.chain(data, starts, base.stages(data), "Qwen/Qwen3-14B-Base")
    config.mesh.tensor = 4
    return config
