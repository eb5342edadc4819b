"""The state of training: fresh, from another run's parameters, or from a checkpoint, and into one.

What a checkpoint holds besides arrays says where in the data the run is, which data those are, and
what it has used.
"""

import dataclasses
import logging
from typing import Any

import jax

from configs.default import Config
from models.transformer import Params, init
from rlp.engine.optimizer import Optimizer
from rlp.engine.placement import abstract_params, placed, state_shardings
from rlp.engine.step import TrainState, copies_kept, new_state
from rlp.interop import init_from as starting
from rlp.run.assembly import Run
from rlp.runtime import consistency, hosts
from rlp.runtime.fingerprints import Fingerprint
from rlp.training.checkpoint import Checkpoints
from rlp.training.cost import Totals

LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass
class Progress:
    """How far a run has come, besides its arrays.

    Attributes:
      totals: what it has used.
      data: fingerprints of its data, by fields of the config.
    """

    totals: Totals
    data: dict[str, Fingerprint]


class StateMaker:
    """Makes the state of a run.

    Attributes:
      shardings: of the state.
    """

    def __init__(self, config: Config, run: Run, optimizer: Optimizer) -> None:
        """A maker of the states of a run, which trains with this optimizer."""
        self._config, self._run, self._optimizer = config, run, optimizer
        self._baseline, self._reference = copies_kept(run.sampling)
        memory = config.rlp.baseline_memory
        place = (run.mesh, run.method.model, optimizer)
        self.shardings = state_shardings(*place, self._baseline, memory, self._reference)

    def given_params(self) -> Params | None:
        """The parameters to start from, before any long work; None for fresh ones.

        Raises:
          UserError: `init_from` names nothing that can be loaded.
        """
        if not self._config.init_from:
            return None
        start = starting.find(self._config.init_from)
        if start.config is None and start.files is not None:
            hosts.check_same(consistency.file_facts(start.files))
        params, _, described = start.load(abstract_params(self._run.method.model, self._run.mesh))
        LOGGER.info("starting from %s", described)
        return params

    def first(self, params: Params | None, key: jax.Array) -> TrainState:
        """The state before the first step, from given parameters or from those that `key` draws."""
        if params is None:
            if self._run.sampled is not None:
                LOGGER.warning("init_from is empty: thoughts start from random parameters")
            make = jax.jit(init, static_argnums=0, out_shardings=self.shardings.params)
            params = make(self._run.method.model, key)
        return jax.jit(self._begun, out_shardings=self.shardings)(params)

    def restore(
        self, checkpoints: Checkpoints, key: jax.Array
    ) -> tuple[TrainState, Progress] | None:
        """The state of the newest whole checkpoint, and how far the run had come; None without one.

        Args:
          checkpoints: of the run.
          key: PRNG key of fresh parameters, for their shapes.

        Raises:
          UserError: a checkpoint does not fit the config.
        """
        blank = jax.eval_shape(lambda: self._begun(init(self._run.method.model, key)))
        found = checkpoints.restore(arrays(placed(blank, self.shardings)))
        if found is None:
            return None
        _, items = found
        totals = Totals(**items["meta"]["totals"], position=items["data"]["position"])
        state = TrainState(
            baseline=items.get("baseline"),
            reference=items.get("reference"),
            **items["counters"],
            **{name: items[name] for name in ("params", "optimizer")},
        )
        return state, Progress(totals, items["data"].get("fingerprint", {}))

    def _begun(self, params: Params) -> TrainState:
        return new_state(params, self._optimizer, self._baseline, self._reference)


def save(
    checkpoints: Checkpoints,
    state: TrainState,
    progress: Progress,
    figures: dict[str, float] | None = None,
) -> None:
    """Begins to write a checkpoint, with the held-out metrics of the state where there are some."""
    totals = dataclasses.asdict(progress.totals)
    data = {"position": totals.pop("position"), "fingerprint": progress.data}
    items = arrays(state) | {"data": data, "meta": {"totals": totals}}
    checkpoints.save(int(state.step), items, figures)


def arrays(state: TrainState) -> dict[str, Any]:
    """The array items of a checkpoint."""
    items = {
        "params": state.params,
        "optimizer": state.optimizer,
        "counters": {
            "step": state.step,
            "skipped": state.skipped,
            "skipped_in_row": state.skipped_in_row,
        },
    }
    beside = {"baseline": state.baseline, "reference": state.reference}
    return items | {name: params for name, params in beside.items() if params is not None}
