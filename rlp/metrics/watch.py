"""Watch the metrics of a run and evaluate the warning rules at every step.

    a row of metrics.jsonl -> Watch.add -> the rules that have enough steps -> a warning, once each

Most rules compare the last steps with the first steps of the same run, because absolute values of
a metric differ between models and data sets. They compare medians, so that a few outliers change
nothing, and require a change that is significant given the variance between steps. No rule stops a
run.
"""

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rlp.runtime.config_json import Value

Settings = Mapping[str, Value]  # dotted path of every config field -> its value

# The number of steps that a rule needs: the first steps, as a reference from before training has
# changed the model, and the last steps, half of which must be beyond the threshold.
FIRST, LAST = STEPS = (5, 10)
STEPS_OF_FORKS = (10, 20)  # for metrics with one value per fork, which are noisier
# A held-out loss lacks this noise (the forks are always the same); two evaluations must agree.
EVALUATIONS = (1, 2)
ERRORS = 5  # standard errors that make a change significant: the test is repeated at every step


@dataclass(frozen=True)
class RunWarning:
    """A warning that a run gives.

    Attributes:
      name: The name of the rule.
      step: The first step at which the rule applied.
      message: The metric values, and the settings that usually cure it, with their values.
    """

    name: str
    step: int
    message: str


@dataclass
class Past:
    """The first and the last steps at which all metrics of a rule are known.

    Attributes:
      first: The metrics of the first steps.
      last: The metrics of the last steps.
      lowest: The lowest median of the rule's first metric over any window of `last` steps; only for
        rules with `Rule.lowest`.
    """

    first: list[dict[str, float]]
    last: deque[dict[str, float]]
    lowest: float = math.inf

    def values(self, metric: str) -> tuple[list[float], list[float]]:
        """Return the values of a metric in the first and in the last steps."""
        return [row[metric] for row in self.first], [row[metric] for row in self.last]

    def medians(self, metric: str) -> tuple[float, float]:
        """Return the median of a metric in the first and in the last steps."""
        first, last = self.values(metric)
        return statistics.median(first), statistics.median(last)

    def moved(self, metric: str) -> bool:
        """Return whether the means of a metric differ by more than `ERRORS` standard errors."""
        both = self.values(metric)
        error = math.sqrt(sum(statistics.variance(x) / len(x) for x in both))
        first, last = map(statistics.fmean, both)
        return abs(last - first) > ERRORS * error


Judge = Callable[[Past, Settings], str | None]


@dataclass(frozen=True)
class Rule:
    """A rule that detects one kind of failure.

    Attributes:
      name: The name of the warning; if rules share a name, the first one with enough steps is used.
      metrics: Keys of metrics.jsonl; a step counts only if it has all of them.
      judge: Returns the message, or None if nothing is wrong.
      first: The number of first steps that it needs.
      last: The number of last steps that it needs, after the first ones.
      lowest: Whether it reads `Past.lowest`.
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
    """Turn the decorated function into a `Rule`.

    Args:
      *metrics: As in `Rule`.
      name: The name of the warning; "" for the name of the function.
      steps: The numbers of first and last steps that it needs.
      lowest: As in `Rule`.
    """
    return lambda judge: Rule(name or judge.__name__, metrics, judge, *steps, lowest)


@dataclass
class Watch:
    """Follow the metrics of a run, with time per step and memory that do not grow with its length.

    Attributes:
      settings: The config of the run; "model.vocab_size" is the number of embedding rows, or 0.
      rules: The rules, in the order in which they are evaluated.
      given: The warnings so far, in the order of their steps.
    """

    settings: Settings
    rules: Sequence[Rule]
    given: list[RunWarning] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rules = [(rule, Past([], deque(maxlen=rule.last))) for rule in self.rules]

    def add(self, row: Mapping[str, float | None]) -> list[RunWarning]:
        """Add the metrics of the next step, including "step", and return the new warnings.

        A metric that is missing, null or not finite counts as absent from the step.
        """
        done = {warning.name for warning in self.given}
        new = []
        for rule, past in self._rules:
            known = _known(row, rule.metrics)
            if known is not None:
                steps = past.first if len(past.first) < rule.first else past.last
                steps.append(known)
                if rule.lowest and len(past.last) == rule.last:
                    middle = statistics.median(row[rule.metrics[0]] for row in past.last)
                    past.lowest = min(past.lowest, middle)
            if rule.name in done or len(past.last) < rule.last:
                continue
            done.add(rule.name)
            message = rule.judge(past, self.settings) if known is not None else None
            if message is not None:
                new.append(RunWarning(rule.name, int(row["step"] or 0), message))
        self.given += new
        return new


def _known(row: Mapping[str, float | None], metrics: tuple[str, ...]) -> dict[str, float] | None:
    """Return the values of these metrics, or None if one of them is missing or not finite."""
    values = {name: value for name in metrics if (value := row.get(name)) is not None}
    complete = len(values) == len(metrics) and all(map(math.isfinite, values.values()))
    return values if complete else None


def cures(settings: Settings, *cures: str) -> str:
    """List fields to change, with their values: "raise a.b (1), or set a.d='x' ('y')".

    Args:
      settings: The config of the run.
      *cures: "raise a.b", "lower a.c" or "set a.d=x"; a field that is already set so is left out.
    """
    items = []
    for cure in cures:
        path, _, wanted = cure.split(" ")[1].partition("=")
        if not wanted:
            items.append(f"{cure} ({settings[path]!r})")
        elif settings[path] != wanted:
            items.append(f"set {path}={wanted!r} ({settings[path]!r})")
    return ", or ".join(filter(None, (", ".join(items[:-1]), items[-1])))
