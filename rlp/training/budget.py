"""The end of a run: after a number of steps, or at the budget of the run that `match` names."""

import dataclasses
from pathlib import Path

from rlp.runtime import hosts, run_folder, run_reference
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import read_object
from rlp.training.cost import Totals

UNITS = {  # unit of `match` -> metric of evaluation.json
    "flops": "flops",
    "tokens": "tokens_documents",
    "seconds": "seconds_device",
}


@dataclasses.dataclass(frozen=True)
class Steps:
    """Ends a run after a given step."""

    last: int

    def reached(self, step: int, totals: Totals) -> bool:
        """Return whether a run ends after `step` steps."""
        return step >= self.last

    def expected(self, step: int, totals: Totals) -> int:
        """Return the expected last step, after `step` steps."""
        return self.last


@dataclasses.dataclass(frozen=True)
class Budget:
    """Ends a run after the step that brings a metric of `Totals.metrics` closest to an amount."""

    metric: str
    amount: float
    last: None = None  # unknown in advance

    def reached(self, step: int, totals: Totals) -> bool:
        """Return whether one more step like the last one would not end closer to the amount.

        So a run misses the amount by less than its last step. The decision depends only on values
        that a checkpoint contains, so a resumed run ends at the same step. All processes must call
        this; process 0 decides, since seconds differ between processes.
        """
        half = totals.last_step.get(self.metric, 0) / 2
        enough = totals.metrics()[self.metric] + half >= self.amount
        return hosts.any_of(hosts.is_first() and enough)

    def expected(self, step: int, totals: Totals) -> int:
        """Return the expected last step, after `step` > 0 steps, if future ones cost the same."""
        return max(step, round(step * self.amount / totals.metrics()[self.metric]))


End = Steps | Budget


def split(match: str) -> tuple[str, str]:
    """Return the workdir and the unit of `match`.

    Raises:
      UserError: If it is not of the form "<workdir>:<unit>", or the unit is unknown.
    """
    named = run_reference.usage(match)
    if not named.run or named.detail not in UNITS:
        forms = [f"'<workdir>:{name}'" for name in UNITS]
        raise UserError.of("match", match, f"is not {', '.join(forms[:-1])} or {forms[-1]}")
    return named.run, named.detail


def used_by(match: str) -> float:
    """Return the total of the run that `match` names, in its unit.

    Raises:
      UserError: If the run is not finished, its evaluation.json does not contain the metric, or it
        took no step.
    """
    folder, unit = split(match)
    path = Path(folder, run_folder.EVALUATION)
    if not path.exists():
        raise UserError.of("match", match, f": {folder} is not a finished run; finish it first")
    used = read_object(path).get(UNITS[unit])
    if not isinstance(used, int | float):
        raise UserError.of(
            "match", match, f": {path} does not contain {UNITS[unit]}; run {folder} again"
        )
    if not used:
        raise UserError.of("match", match, f": {folder} took no step; name another run")
    return used
