"""How one run names another.

    <run>            its newest checkpoint
    <run>@<step>     the checkpoint of that step
    <run>@best       the one that `evaluation.best_metric` picks
    <run>:<unit>     what it has used, in "flops", "tokens" or "seconds"

<run> is a folder, an arm of the same experiment, or a point of the same sweep. `init_from` and the
flags that name a checkpoint take the first three, `match` takes the last.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

BEST = "best"


@dataclasses.dataclass(frozen=True)
class RunReference:
    """A reference, split.

    Attributes:
      run: the run.
      sign: "@" in front of a step, ":" in front of a unit; "" where neither follows.
      detail: the step or unit, as it was given; it may be anything.
    """

    run: str
    sign: str = ""
    detail: str = ""

    def of(self, run: str | Path) -> str:
        """The reference with another run in place of its own."""
        return f"{run}{self.sign}{self.detail}"


def checkpoint(text: str) -> RunReference:
    """Splits "<run>", "<run>@<step>" or "<run>@best", at the last @."""
    run, sign, detail = text.rpartition("@")
    return RunReference(run, sign, detail) if run else RunReference(text)


def checkpoint_on_disk(text: str) -> RunReference:
    """The same, but a folder whose own name has an @ is the run."""
    return RunReference(text) if Path(text).is_dir() else checkpoint(text)


def usage(text: str) -> RunReference:
    """Splits "<run>:<unit>", at the last colon; the run is "" where there is none."""
    return RunReference(*text.rpartition(":"))


# The fields of a config that name a run, and how each is split.
FIELDS: dict[str, Callable[[str], RunReference]] = {"init_from": checkpoint, "match": usage}
