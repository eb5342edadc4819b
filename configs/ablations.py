"""The ablations of the paper as sweeps, and the same ablations at the scale of the demo.

    python -m launch.sweep --config=configs/ablations.py:rollouts --workdir=<folder> --launcher=slurm \
        --config.init_from=Qwen/Qwen3-1.7B-Base --config.data.train=<documents>
    python -m launch.sweep --config=configs/ablations.py:demo_rollouts --workdir=runs/rollouts

`rollouts`, `thought_length`, `kl` and `tau` vary one number of `configs/qwen3_1p7b_rlp.py` (arXiv
2510.01265, section 4: overall accuracy 41.38, 41.95, 42.17, 41.75 for G; 11.50, 9.96, 14.08, 24.65,
38.89, 42.17, 42.21 for the thought's length; 42.17, 41.35, 41.44 for the weight of the KL term; between
38.82 and 39.54 for tau). This project has not run them, for lack of such a machine. The same names
with the prefix `demo_` run in minutes on two CPU cores: for every seed, the base of `configs/demo.py`
and RLP from it. `docs/ablations.md` has the results.

The values of tau in the paper are between 0.99 and 1; 0.995 is our choice.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import demo, qwen3_1p7b_rlp
from configs.sweeps import Point, chain, product

PAPER: dict[str, dict[str, list[Any]]] = {
    "rollouts": {"rlp.group_size": [4, 8, 16, 32]},
    "thought_length": {"rlp.thought_length": [64, 128, 256, 512, 1024, 2048, 4096]},
    "kl": {"rlp.kl_weight": [0.0, 1e-4, 1e-3]},
    "tau": {"rlp.ema_decay": [0.99, 0.995, 0.999, 1.0]},
}
DEMO: dict[str, dict[str, list[Any]]] = {
    "demo_rollouts": {"rlp.group_size": [2, 4, 8, 16]},
    "demo_thought_length": {"rlp.thought_length": [3, 5, 7, 9, 12]},  # 9: eight words and the tag
    "demo_kl": {"rlp.kl_weight": [0.0, 0.001, 0.01, 0.1]},
    "demo_tau": {"rlp.ema_decay": [0.99, 0.999, 1.0]},
}
SEEDS = [51, 52, 53]  # for the sweeps of the demo


def get_config(which: str = "rollouts") -> ConfigDict:
    """Return the config that all points of a sweep share."""
    _check(which)
    return _demo_arm("rlp") if which in DEMO else qwen3_1p7b_rlp.get_config()


def sweep(which: str = "rollouts") -> list[Point]:
    """Return the points of a sweep."""
    _check(which)
    if which in PAPER:
        return product(PAPER[which])
    rlp, base = _flat(_demo_arm("rlp")), _flat(_demo_arm("base"))
    changes = {field: value for field, value in base.items() if value != rlp[field]}
    points = chain({"name": "base"} | changes, product({"init_from": "base"}, DEMO[which]))
    return product({"seed": SEEDS}, points)


def _check(which: str) -> None:
    if which not in PAPER | DEMO:
        raise ValueError(f"unknown ablation {which!r}; use one of {', '.join(PAPER | DEMO)}")


def _demo_arm(name: str) -> ConfigDict:
    """Return an arm of the demo as a separate run, without `init_from`."""
    config = demo.get_config()
    arms = config.arms
    del config.arms
    config.update(arms[name])
    config.init_from = ""
    return config


def _flat(config: ConfigDict, group: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{group}{name}.") if isinstance(value, ConfigDict) else {group + name: value}
    return flat
