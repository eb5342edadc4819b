"""RLP, reinforcement as a pretraining objective (arXiv 2510.01265): the Python API.

Example::

    import rlp

    model = rlp.load("runs/demo/rlp")
    model.think("Mia faces north .", n=4, target=" south")
    config = rlp.config("configs/text.py:rlp", steps=20)
    run = rlp.train(config, data="my_texts/", workdir="runs/mine")
    run.metrics, run.evaluation

`import rlp` is fast: JAX and other dependencies are imported when a name is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlp.run.from_python import config, train
    from rlp.run.model import Model, load
    from rlp.run.results import Experiment, Run
    from rlp.run.sampled_thoughts import Thoughts
    from rlp.runtime.errors import UserError

__all__ = ["Experiment", "Model", "Run", "Thoughts", "UserError", "config", "load", "train"]

_MODULES = {
    "rlp.run.from_python": ("config", "train"),
    "rlp.run.model": ("Model", "load"),
    "rlp.run.results": ("Experiment", "Run"),
    "rlp.run.sampled_thoughts": ("Thoughts",),
    "rlp.runtime.errors": ("UserError",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
