"""Table 2 of the paper: RLP on a larger model, also after SFT and RLVR.

    python -m launch.pipeline --config=configs/paper/table2.py:<folder> --workdir=<workdir>

(base.py in this folder lists the files of <folder>; `--config.init_from=…` selects another model.)

The larger model of the paper is Nemotron-Nano-12B-v2, a hybrid of Mamba-2 and attention, from a checkpoint at
19.8T tokens that is not public; the paper compares it with the base trained on 20T. Here the same chain starts from
Qwen3-14B-Base, the other larger model of the paper, with the 250M tokens of the 12B run. Both starts are the same
model, so `none` and `rlp` differ by the 250M tokens only. With
--config.init_from=nvidia/NVIDIA-Nemotron-Nano-12B-v2-Base both start from the base trained on 20T tokens.

The paper publishes averages, whose "overall" counts science twice, so the table of the pipeline shows none of
them: Nemotron-Nano-12B-v2 42.81 -> 61.32 with RLP, after SFT and RLVR 65.31 and 68.09; from its checkpoint at 4T
tokens 12.05 -> 24.08; Qwen3-14B 60.66 -> 65.00. We do not know which table has the last two, whether 2 is the
number of the table of the first, the budget of the 14B run, or the scores of single tasks.
"""

from ml_collections import ConfigDict

from configs.paper import base

TOKENS = 250e6


def get_config(data: str = "data") -> ConfigDict:
    """Return the chain on the files of a folder."""
    starts = {"none": base.none(), "rlp": base.rlp(TOKENS)}
    config = base.chain(data, starts, base.stages(data), "Qwen/Qwen3-14B-Base")
    config.mesh.tensor = 4
    return config
