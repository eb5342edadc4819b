"""Parse references from one run to another.

    <run>            its newest checkpoint
    <run>@<step>     the checkpoint of that step
    <run>@best       the checkpoint that `evaluation.best_metric` selects
    <run>:<unit>     its usage in "flops", "tokens" or "seconds"

<run> is a folder, an arm of the same experiment, or a point of the same sweep. `init_from` and the
flags that name a checkpoint accept the first three forms, `match` accepts the last.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

BEST = "best"


@dataclasses.dataclass(frozen=True)
class RunReference:
    """A parsed reference.

    Attributes:
      run: Name or folder of the run.
      sign: "@" before a step, ":" before a unit; "" if the reference has neither.
      detail: The step or unit as given, which is not validated.
    """

    run: str
    sign: str = ""
    detail: str = ""

    def of(self, run: str | Path) -> str:
        """Return the reference with `run` in place of its run."""
        return f"{run}{self.sign}{self.detail}"


def checkpoint(text: str) -> RunReference:
    """Split "<run>", "<run>@<step>" or "<run>@best" at the last @."""
    run, sign, detail = text.rpartition("@")
    return RunReference(run, sign, detail) if run else RunReference(text)


def checkpoint_on_disk(text: str) -> RunReference:
    """Like `checkpoint`, but if `text` is an existing folder, it is the run, even with an @."""
    return RunReference(text) if Path(text).is_dir() else checkpoint(text)


def usage(text: str) -> RunReference:
    """Split "<run>:<unit>" at the last colon; the run is "" if there is no colon."""
    return RunReference(*text.rpartition(":"))


# The config fields that name a run, and how each is parsed.
FIELDS: dict[str, Callable[[str], RunReference]] = {"init_from": checkpoint, "match": usage}
