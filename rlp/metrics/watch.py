"""Watches a run through its metrics, and asks the rules of warnings at every step.

    a line of metrics.jsonl -> Watch.add -> the rules whose steps are full -> a warning, once each

A rule looks at the last steps, most of them against the first ones of the same run, since a metric
means little across models and data. It compares medians, so a few odd steps change nothing, and
believes a change only where it stands out from the scatter of the steps. No rule stops a run.
"""

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rlp.runtime.config_json import Value

Settings = Mapping[str, Value]  # dotted path of every field of a config to its value

# How many steps a rule needs: first ones, which say how the run began, before learning has moved
# it, and last ones, half of which have to be beyond a limit.
FIRST, LAST = STEPS = (5, 10)
STEPS_OF_FORKS = (10, 20)  # for what is one number per fork, and scatters more
# A held-out loss has no such noise (always the same forks), but two evaluations have to agree.
EVALUATIONS = (1, 2)
ERRORS = 5  # standard errors, that a change is told from chance by: it is asked at every step


@dataclass(frozen=True)
class RunWarning:
    """A warning that a run gives.

    Attributes:
      name: of the rule.
      step: at which it first held.
      message: the values, and the settings that usually cure it, with their values.
    """

    name: str
    step: int
    message: str


@dataclass
class Past:
    """The first and the last steps at which some metrics are all known.

    Attributes:
      first, last: the metrics of these steps.
      lowest: the lowest median that any `last` steps in a row had of the first metric; only for
        rules that ask.
    """

    first: list[dict[str, float]]
    last: deque[dict[str, float]]
    lowest: float = math.inf

    def values(self, metric: str) -> tuple[list[float], list[float]]:
        """A metric in the first and in the last steps."""
        return [row[metric] for row in self.first], [row[metric] for row in self.last]

    def medians(self, metric: str) -> tuple[float, float]:
        """The median of a metric in the first and in the last steps."""
        first, last = self.values(metric)
        return statistics.median(first), statistics.median(last)

    def moved(self, metric: str) -> bool:
        """Whether the means of a metric differ by more than the scatter of its steps explains."""
        both = self.values(metric)
        error = math.sqrt(sum(statistics.variance(x) / len(x) for x in both))
        first, last = map(statistics.fmean, both)
        return abs(last - first) > ERRORS * error


Judge = Callable[[Past, Settings], str | None]


@dataclass(frozen=True)
class Rule:
    """One thing that can go wrong.

    Attributes:
      name: of the warning; of rules that share one, the first whose steps are full is asked.
      metrics: keys of metrics.jsonl; a step counts when it has them all.
      judge: the message, or None while all is well.
      first, last: how many steps it needs; the last ones come after the first ones.
      lowest: whether it reads `Past.lowest`.
    """

    name: str
    metrics: tuple[str, ...]
    judge: Judge
    first: int = FIRST
    last: int = LAST
    lowest: bool = False


def rule(
    *metrics: str, name: str = "", steps: tuple[int, int] = STEPS, lowest: bool = False
) -> Callable[[Judge], Rule]:
    """Makes a `Rule` of the function below it.

    Args:
      metrics, lowest: as of `Rule`.
      name: that of the function, if "".
      steps: how many first and last steps it needs.
    """
    return lambda judge: Rule(name or judge.__name__, metrics, judge, *steps, lowest)


@dataclass
class Watch:
    """Follows a run through its metrics, in time and memory that do not grow with its steps.

    Attributes:
      settings: of the run; "model.vocab_size" is the number of rows of its embedding, or 0.
      rules: in the order in which they are asked.
      given: warnings so far, in the order of their steps.
    """

    settings: Settings
    rules: Sequence[Rule]
    given: list[RunWarning] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rules = [(rule, Past([], deque(maxlen=rule.last))) for rule in self.rules]

    def add(self, row: Mapping[str, float | None]) -> list[RunWarning]:
        """Takes in the metrics of the next step, "step" among them, and gives new warnings.

        A metric that is missing, null or not finite is one that the step does not have.
        """
        asked = {warning.name for warning in self.given}
        new = []
        for rule, past in self._rules:
            known = _known(row, rule.metrics)
            if known is not None:
                steps = past.first if len(past.first) < rule.first else past.last
                steps.append(known)
                if rule.lowest and len(past.last) == rule.last:
                    middle = statistics.median(row[rule.metrics[0]] for row in past.last)
                    past.lowest = min(past.lowest, middle)
            if rule.name in asked or len(past.last) < rule.last:
                continue
            asked.add(rule.name)
            message = rule.judge(past, self.settings) if known is not None else None
            if message is not None:
                new.append(RunWarning(rule.name, int(row["step"] or 0), message))
        self.given += new
        return new


def _known(row: Mapping[str, float | None], metrics: tuple[str, ...]) -> dict[str, float] | None:
    found = {name: value for name in metrics if (value := row.get(name)) is not None}
    whole = len(found) == len(metrics) and all(map(math.isfinite, found.values()))
    return found if whole else None


def cures(settings: Settings, *cures: str) -> str:
    """Fields to change, with their values: "raise a.b (1), lower a.c (2), or set a.d='x' ('y')".

    Args:
      cures: "raise a.b", "lower a.c", "set a.d=x"; one that is the case already is left out.
    """
    found = []
    for cure in cures:
        path, _, wanted = cure.split(" ")[1].partition("=")
        if not wanted:
            found.append(f"{cure} ({settings[path]!r})")
        elif settings[path] != wanted:
            found.append(f"set {path}={wanted!r} ({settings[path]!r})")
    return ", or ".join(filter(None, (", ".join(found[:-1]), found[-1])))
