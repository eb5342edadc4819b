"""Create, restore and save the training state.

The state is newly initialized, initialized from other parameters, or restored from a checkpoint. In
addition to arrays, a checkpoint contains the position in the data, a fingerprint of the data, and
the totals that the run has used.
"""

import dataclasses
import logging
import math
from typing import Any

import jax

from configs.default import Config
from models.transformer import Params, init
from rlp.engine.optimizer import Optimizer
from rlp.engine.placement import abstract_params, placed, state_shardings
from rlp.engine.step import TrainState, copies_kept, new_state
from rlp.interop import init_from as starting
from rlp.run.assembly import RunParts
from rlp.runtime import consistency, hosts
from rlp.runtime.fingerprints import Fingerprint
from rlp.runtime.strict_json import finite
from rlp.training.checkpoint import Checkpoints
from rlp.training.cost import Totals

LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass
class Progress:
    """The progress of a run, in addition to the arrays of its state.

    Attributes:
      totals: The tokens, FLOPs and seconds used so far, and the position in the data.
      data: Fingerprints of the data, by config field.
      unwritten: The metrics of the last step if a signal stopped its evaluation, so that its line
        of metrics is still to be written; else empty.
    """

    totals: Totals
    data: dict[str, Fingerprint]
    unwritten: dict[str, float] = dataclasses.field(default_factory=dict)


class StateMaker:
    """Creates the training state of a run.

    Attributes:
      shardings: The shardings of the state.
    """

    def __init__(self, config: Config, run: RunParts, optimizer: Optimizer) -> None:
        """Prepare for the states of a run that trains with this optimizer."""
        self._config, self._run, self._optimizer = config, run, optimizer
        self._baseline, self._reference = copies_kept(run.sampling_settings)
        memory = config.rlp.baseline_memory
        self.shardings = state_shardings(
            run.mesh, run.method.model, optimizer, self._baseline, memory, self._reference
        )

    def load_initial_params(self) -> Params | None:
        """Load the parameters that `init_from` names; return None if it is empty.

        Raises:
          UserError: If the model that `init_from` names cannot be loaded.
        """
        if not self._config.init_from:
            return None
        start = starting.find(self._config.init_from)
        if start.config is None and start.files is not None:
            hosts.check_same(consistency.file_facts(start.files))
        params, _, described = start.load(abstract_params(self._run.method.model, self._run.mesh))
        LOGGER.info("initializing parameters from %s", described)
        return params

    def initial(self, params: Params | None, key: jax.Array) -> TrainState:
        """Return the state before the first step; `key` initializes the parameters if None."""
        if params is None:
            if self._run.sampling_method is not None:
                LOGGER.warning(
                    "init_from is empty: RL starts from random parameters; set init_from to a "
                    "pretrained model"
                )
            initialize = jax.jit(init, static_argnums=0, out_shardings=self.shardings.params)
            params = initialize(self._run.method.model, key)
        return jax.jit(self._new_state, out_shardings=self.shardings)(params)

    def restore(
        self, checkpoints: Checkpoints, key: jax.Array
    ) -> tuple[TrainState, Progress] | None:
        """Restore the state and progress of the newest intact checkpoint; None if there is none.

        Args:
          checkpoints: The checkpoints of the run.
          key: A PRNG key for parameters, of which only the shapes are computed.

        Raises:
          UserError: If a checkpoint does not match the config.
        """
        abstract = jax.eval_shape(lambda: self._new_state(init(self._run.method.model, key)))
        restored = checkpoints.restore(arrays(placed(abstract, self.shardings)))
        if restored is None:
            return None
        _, items = restored
        totals = Totals(**items["meta"]["totals"], position=items["data"]["position"])
        state = TrainState(
            baseline=items.get("baseline"),
            reference=items.get("reference"),
            **items["counters"],
            **{name: items[name] for name in ("params", "optimizer")},
        )
        unwritten = items["meta"].get("unwritten", {})
        numbers = {name: math.nan if x is None else x for name, x in unwritten.items()}
        return state, Progress(totals, items["data"].get("fingerprint", {}), numbers)

    def _new_state(self, params: Params) -> TrainState:
        return new_state(params, self._optimizer, self._baseline, self._reference)


def save(
    checkpoints: Checkpoints,
    state: TrainState,
    progress: Progress,
    metrics: dict[str, float] | None = None,
) -> None:
    """Start writing a checkpoint, with the held-out metrics of the state if it was evaluated."""
    totals = dataclasses.asdict(progress.totals)
    data = {"position": totals.pop("position"), "fingerprint": progress.data}
    meta = {"totals": totals}
    if progress.unwritten:
        meta["unwritten"] = finite(progress.unwritten)
    items = arrays(state) | {"data": data, "meta": meta}
    checkpoints.save(int(state.step), items, metrics)


def arrays(state: TrainState) -> dict[str, Any]:
    """Return the array items of a checkpoint."""
    items = {
        "params": state.params,
        "optimizer": state.optimizer,
        "counters": {
            "step": state.step,
            "skipped": state.skipped,
            "skipped_in_row": state.skipped_in_row,
        },
    }
    copies = {"baseline": state.baseline, "reference": state.reference}
    return items | {name: params for name, params in copies.items() if params is not None}
