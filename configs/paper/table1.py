"""Table 1 of the paper: Qwen3-1.7B-Base, unchanged, after CPT and after RLP, each also after SFT and RLVR.

    python -m launch.pipeline --config=configs/paper/table1.py:<folder> --workdir=<workdir> --plan
    python -m launch.pipeline --config=configs/paper/table1.py:<folder> --workdir=<workdir>

(base.py in this folder lists the files of <folder>.) For another model, set one field:

    … --config.init_from=Qwen/Qwen3-14B-Base

and, depending on its size, others such as `--config.mesh.tensor=4`. RLP and CPT (159 steps) each read 1B tokens
of documents, the budget of this table. Accuracy in percent, as published:

               base    CPT     RLP   | the same after SFT + RLVR
    AIME25      2.25    3.96    5.02 |  5.32    5.89    7.05
    MATH-500   48.45   57.52   58.48 | 61.92   62.70   64.30
    GSM8K      54.16   72.85   74.48 | 78.22   78.70   80.50
    AMC23      25.94   31.25   31.25 | 35.00   34.38   36.50
    Minerva    15.30   19.03   21.19 | 25.30   26.10   27.80
    MMLU       50.08   41.95   56.14 | 58.36   59.00   61.50
    MMLU-Pro   28.17   27.81   34.62 | 37.85   39.92   42.40
    GPQA       25.25   26.26   28.28 | 30.93   29.27   33.33

The averages of the table are omitted: its "Math Avg" divides the sum of five by six, and its "Overall" counts
science twice. Results after SFT only are not published.
"""

from ml_collections import ConfigDict

from configs.paper import base

TOKENS = 1e9
PERCENT = {
    "none": (2.25, 48.45, 54.16, 25.94, 15.30, 50.08, 28.17, 25.25),
    "cpt": (3.96, 57.52, 72.85, 31.25, 19.03, 41.95, 27.81, 26.26),
    "rlp": (5.02, 58.48, 74.48, 31.25, 21.19, 56.14, 34.62, 28.28),
    "none_rlvr": (5.32, 61.92, 78.22, 35.00, 25.30, 58.36, 37.85, 30.93),
    "cpt_rlvr": (5.89, 62.70, 78.70, 34.38, 26.10, 59.00, 39.92, 29.27),
    "rlp_rlvr": (7.05, 64.30, 80.50, 36.50, 27.80, 61.50, 42.40, 33.33),
}


def get_config(data: str = "data") -> ConfigDict:
    """Return the chain on the files of a folder."""
    starts = {"none": base.none(), "cpt": base.cpt(TOKENS), "rlp": base.rlp(TOKENS)}
    return base.chain(data, starts, base.stages(data))


def published() -> dict[str, dict[str, float]]:
    """Return the accuracies of the paper, as shares."""
    return {
        arm: {
            f"accuracy/{name}": value / 100
            for name, value in zip(base.BENCHMARKS, values, strict=True)
        }
        for arm, values in PERCENT.items()
    }
