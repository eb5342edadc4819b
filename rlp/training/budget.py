"""Where a run ends: after some steps, or when it has used as much as the run that `match` names."""

import dataclasses
from pathlib import Path

from rlp.runtime import hosts, run_folder, run_reference
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import read_object
from rlp.training.cost import Totals

UNITS = {  # of `match`: the figure of evaluation.json that counts it
    "flops": "flops",
    "tokens": "tokens_documents",
    "seconds": "seconds_device",
}


@dataclasses.dataclass(frozen=True)
class Steps:
    """After a step."""

    last: int

    def reached(self, step: int, totals: Totals) -> bool:
        """Whether a run that has taken `step` steps has ended."""
        return step >= self.last

    def expected(self, step: int, totals: Totals) -> int:
        """The last step, as far as one can tell after `step` of them."""
        return self.last


@dataclasses.dataclass(frozen=True)
class Budget:
    """After the step that brings a figure of `Totals.metrics` nearest to an amount."""

    figure: str
    amount: float
    last: None = None  # nobody knows before

    def reached(self, step: int, totals: Totals) -> bool:
        """Whether another step like the last would end no nearer to the amount.

        So a run ends off by less than its last step. Nothing is read but what a checkpoint holds: a
        resumed run ends where it would have. All hosts ask together; of seconds the first decides.
        """
        half = totals.last_step.get(self.figure, 0) / 2
        enough = totals.metrics()[self.figure] + half >= self.amount
        return hosts.any_of(hosts.is_first() and enough)

    def expected(self, step: int, totals: Totals) -> int:
        """The last step, if those to come are like those so far; asked after the first."""
        return max(step, round(step * self.amount / totals.metrics()[self.figure]))


End = Steps | Budget


def split(match: str) -> tuple[str, str]:
    """Folder and unit of `match`.

    Raises:
      UserError: it is not "<workdir>:<unit>", or there is no such unit.
    """
    named = run_reference.usage(match)
    if not named.run or named.detail not in UNITS:
        forms = [f"'<workdir>:{name}'" for name in UNITS]
        raise UserError.of("match", match, f"is not {', '.join(forms[:-1])} or {forms[-1]}")
    return named.run, named.detail


def used_by(match: str) -> float:
    """What the run that `match` names has used, in the unit that it names.

    Raises:
      UserError: the run is not finished, its evaluation.json does not say, or it took no step.
    """
    folder, unit = split(match)
    path = Path(folder, run_folder.EVALUATION)
    if not path.exists():
        raise UserError.of("match", match, f": {folder} is not a finished run")
    used = read_object(path).get(UNITS[unit])
    if not isinstance(used, int | float):
        raise UserError.of("match", match, f": {path} has no {UNITS[unit]}; run {folder} again")
    if not used:
        raise UserError.of("match", match, f": {folder} took no step and has used nothing")
    return used
