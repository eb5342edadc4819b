"""RLP, reinforcement as a pretraining objective (arXiv 2510.01265), from Python.

    import rlp
    model = rlp.load("runs/demo/rlp")
    model.think("Mia faces north .", n=4, target=" south")
    config = rlp.config("configs/text.py:rlp", steps=20)
    run = rlp.train(config, data="my_texts/", workdir="runs/mine")
    run.metrics, run.evaluation

Importing this package imports nothing else: each of these names brings what it needs when it is
used for the first time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlp.run.from_python import config, train
    from rlp.run.model import Model, Thoughts, load
    from rlp.run.results import Experiment, Run
    from rlp.runtime.errors import UserError

__all__ = ["Experiment", "Model", "Run", "Thoughts", "UserError", "config", "load", "train"]

_MODULES = {
    "rlp.run.from_python": ("config", "train"),
    "rlp.run.model": ("Model", "Thoughts", "load"),
    "rlp.run.results": ("Experiment", "Run"),
    "rlp.runtime.errors": ("UserError",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
