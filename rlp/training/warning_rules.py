"""Warnings that a run gives by itself, from the history of its own figures.

    a line of metrics.jsonl -> Watch.add -> the rules whose steps are full -> a warning, once each

A rule looks at the last steps, most of them against the first ones of the same run, since a figure
means little across models and data. It compares medians, so a few odd steps change nothing, and
believes a change only where it stands out from the scatter of the steps. The limits stand beside
the rules, with their reasons; none of them stops a run. A run in which all is learnt that there is
to learn has low entropy and groups without variance, too: the message says what became of the
reward. A network that a few steps have destroyed shows no change from its first steps, so the rules
about that compare with the very first step, with chance, or with nothing.
"""

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rlp.runtime.config_json import Value

Settings = Mapping[str, Value]  # dotted path of every field of a config to its value

FIRST = 5  # steps that say how a run began, before learning has moved it
LAST = 10  # latest steps; half of them have to be beyond a limit
FIRST_FORKS, LAST_FORKS = 10, 20  # of what is one number a fork, and scatters more
# A held-out loss has no such noise (always the same forks), but two evaluations have to agree.
FIRST_EVALUATIONS, LAST_EVALUATIONS = 1, 2
ERRORS = 5  # standard errors, that a change is told from chance by: it is asked at every step


@dataclass(frozen=True)
class RunWarning:
    """What a run found amiss in its figures.

    Attributes:
      name: of the rule.
      step: at which it first held.
      message: the figures, and the settings that usually cure it, with their values.
    """

    name: str
    step: int
    message: str


@dataclass
class Past:
    """The first and the last steps at which some figures are all known.

    Attributes:
      first, last: the figures of these steps.
      lowest: the lowest median that any `LAST` steps in a row had of the first figure; only for
        rules that ask.
    """

    first: list[dict[str, float]]
    last: deque[dict[str, float]]
    lowest: float = math.inf

    def values(self, figure: str) -> tuple[list[float], list[float]]:
        """A figure in the first and in the last steps."""
        return [row[figure] for row in self.first], [row[figure] for row in self.last]

    def medians(self, figure: str) -> tuple[float, float]:
        """The middle of a figure in the first and in the last steps."""
        first, last = self.values(figure)
        return statistics.median(first), statistics.median(last)

    def moved(self, figure: str) -> bool:
        """Whether a figure's means differ by more than the scatter of its steps explains."""
        both = self.values(figure)
        error = math.sqrt(sum(statistics.variance(x) / len(x) for x in both))
        first, last = map(statistics.fmean, both)
        return abs(last - first) > ERRORS * error


@dataclass(frozen=True)
class Rule:
    """One thing that can go wrong.

    Attributes:
      name: of the warning; of rules that share one, the first whose steps are full is asked.
      figures: of metrics.jsonl; a step counts when it has them all.
      judge: the message, or None while all is well.
      first, last: how many steps it needs; the last ones come after the first ones.
      lowest: whether it reads `Past.lowest`.
    """

    name: str
    figures: tuple[str, ...]
    judge: Callable[[Past, Settings], str | None]
    first: int = FIRST
    last: int = LAST
    lowest: bool = False


@dataclass
class Watch:
    """Follows a run through its figures, in time and memory that do not grow with its steps.

    Attributes:
      settings: of the run; "model.vocab_size" is the number of rows of its embedding, or 0.
      given: warnings so far, in the order of their steps.
    """

    settings: Settings
    given: list[RunWarning] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rules = [(rule, Past([], deque(maxlen=rule.last))) for rule in RULES]

    def add(self, row: Mapping[str, float | None]) -> list[RunWarning]:
        """Takes in the figures of the next step, "step" among them, and gives new warnings.

        A figure that is missing, null or not finite is one that the step does not have.
        """
        asked = {warning.name for warning in self.given}
        new = []
        for rule, past in self._rules:
            known = _known(row, rule.figures)
            if known is not None:
                steps = past.first if len(past.first) < rule.first else past.last
                steps.append(known)
                if rule.lowest and len(past.last) == rule.last:
                    middle = statistics.median(row[rule.figures[0]] for row in past.last)
                    past.lowest = min(past.lowest, middle)
            if rule.name in asked or len(past.last) < rule.last:
                continue
            asked.add(rule.name)
            message = rule.judge(past, self.settings) if known is not None else None
            if message is not None:
                new.append(RunWarning(rule.name, int(row["step"] or 0), message))
        self.given += new
        return new


def _known(row: Mapping[str, float | None], figures: tuple[str, ...]) -> dict[str, float] | None:
    found = {name: value for name in figures if (value := row.get(name)) is not None}
    whole = len(found) == len(figures) and all(map(math.isfinite, found.values()))
    return found if whole else None


def _cures(settings: Settings, *cures: str) -> str:
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


# ---- the rules

ENTROPY_SHARE = 0.25  # of the start's
ENTROPY_NATS = 0.1  # per token: e^0.1 = 1.1 tokens to choose from


def entropy_collapse(past: Past, settings: Settings) -> str | None:
    """Sampling has become nearly greedy, so nothing new is tried."""
    start, now = past.medians("thought_entropy")
    if now >= min(ENTROPY_SHARE * start, ENTROPY_NATS) or not past.moved("thought_entropy"):
        return None
    return (
        f"thought_entropy fell from {start:.3g} to {now:.3g} nats per token: hardly anything new "
        f"is tried. {_reward(past)}; if not, "
        + _cures(
            settings,
            "raise rlp.temperature",
            "raise rlp.kl_weight",
            "lower optimizer.learning_rate",
        )
    )


NO_VARIANCE = 0.8  # of the groups: five are sampled for one that gives a gradient


def zero_variance_groups(past: Past, settings: Settings) -> str | None:
    """Few groups teach anything: in the others all thoughts are worth the same."""
    _, now = past.medians("zero_variance_share")
    if now <= NO_VARIANCE:
        return None
    _, distinct = past.medians("distinct_thoughts")
    return (
        f"zero_variance_share is {now:.2f}: few groups have thoughts of different worth, and no "
        f"other teaches anything (distinct_thoughts {distinct:.2f}). {_reward(past)}; if not, "
        + _cures(
            settings, "raise rlp.temperature", "raise rlp.group_size", "set rlp.positions=entropy"
        )
    )


def _reward(past: Past) -> str:
    start, now = past.medians("reward_mean")
    return (
        f"reward_mean went from {start:.3g} to {now:.3g}: where there is no more to gain, the run "
        "has converged"
    )


LENGTH_SHARE = 0.5  # of the start's


def thoughts_shrinking(past: Past, settings: Settings) -> str | None:
    """Thoughts become short hedges: a wrong working costs more nats than a right one earns."""
    start, now = past.medians("thought_length")
    if now >= LENGTH_SHARE * start or not past.moved("thought_length"):
        return None
    per_token = settings["rlp.length_normalization"] == "thought"
    why = ", and a loss divided by |c| favours short thoughts" if per_token else ""
    return (
        f"thought_length fell from {start:.1f} to {now:.1f} tokens: saying little risks "
        f"little{why}; "
        + _cures(
            settings,
            "set rlp.length_normalization=limit",
            "raise rlp.horizon",
            "raise rlp.kl_weight",
        )
    )


CLOSED_SHARE = 0.75  # of the start's
CLOSED_ENOUGH = 0.2  # where the others are masked: of five thoughts one is used


def closed_share_falling(past: Past, settings: Settings) -> str | None:
    """Thoughts run into their limit, or have done so from the start and are masked."""
    start, now = past.medians("closed_fraction")
    masked = settings["rlp.unclosed"] == "mask"
    falling = now < CLOSED_SHARE * start and past.moved("closed_fraction")
    if not falling and not (masked and now < CLOSED_ENOUGH):
        return None
    how = f"fell from {start:.2f} to {now:.2f}" if falling else f"is {now:.2f}"
    left_out = ", and those are left out, so nothing teaches them to close" if masked else ""
    cure = {
        "mask": "set rlp.unclosed=append",
        "append": "set rlp.unclosed=penalty",
        "penalty": "raise rlp.unclosed_penalty",
    }[str(settings["rlp.unclosed"])]
    return f"closed_fraction {how}: thoughts run into their limit{left_out}; " + _cures(
        settings, cure, "raise rlp.thought_length", "raise rlp.kl_weight"
    )


NO_THINK_NATS = 0.05  # per token: a perplexity 5% higher


def held_out_no_think_loss(past: Past, settings: Settings) -> str | None:
    """The network predicts worse without a thought, on held-out documents."""
    (start,), last = past.values("evaluation/no_think_loss")
    if not _thinks(settings) or min(last) - start <= NO_THINK_NATS:
        return None
    return _degraded(settings, "held-out no_think_loss", start, last[-1])


def training_no_think_loss(past: Past, settings: Settings) -> str | None:
    """The same on the documents of the steps, where forks do not become harder by plan."""
    start, now = past.medians("no_think_loss")
    planned = settings["rlp.positions"] == "easy_to_hard"
    if not _thinks(settings) or planned or now - start <= NO_THINK_NATS:
        return None
    if not past.moved("no_think_loss"):
        return None
    return _degraded(settings, "no_think_loss", start, now)


def _thinks(settings: Settings) -> bool:
    return settings["objective"] != "next_token"


def _degraded(settings: Settings, figure: str, start: float, now: float) -> str:
    return (
        f"{figure} rose from {start:.3f} to {now:.3f} nats per token: without a thought the "
        "network predicts worse than before; "
        + _cures(
            settings,
            "raise rlp.next_token_weight",
            "raise rlp.kl_weight",
            "lower optimizer.learning_rate",
        )
    )


NAMED_RISE = 0.15  # of all thoughts, above those that name it at the start, by chance or not


def thoughts_name_the_target(past: Past, settings: Settings) -> str | None:
    """More and more thoughts say the very tokens that follow."""
    start, now = past.medians("target_named_share")
    if now - start <= NAMED_RISE or not past.moved("target_named_share"):
        return None
    chance = " (tokens that are common are named by chance)" if settings["rlp.horizon"] == 1 else ""
    return (
        f"target_named_share rose from {start:.2f}{chance} to {now:.2f}: more thoughts hold the "
        "tokens that follow, which is a prediction made early unless a working leads to it; read "
        "some, and if none does, "
        + _cures(settings, "raise rlp.horizon", "set rlp.positions=entropy", "raise rlp.kl_weight")
    )


SAME = 1e-6  # relative, a few roundings of float32


def constant_loss(past: Past, settings: Settings) -> str | None:
    """The loss is the same on other documents, so the network does not read them any more."""
    losses = past.values("no_think_loss")[1]
    if max(losses) - min(losses) > SAME * abs(losses[0]) or not _learns(past):
        return None
    return (
        f"no_think_loss was {losses[-1]:.5g} nats per token in each of the last {len(losses)} "
        f"steps: whatever the network reads, it predicts the same, as if each of "
        f"{_perplexity(losses[-1])} tokens were as likely as the others. Its weights are destroyed "
        "unless these steps had the same rows; start again, and "
        + _cures(settings, "lower optimizer.learning_rate", "raise optimizer.warmup_steps")
    )


def _learns(past: Past) -> bool:
    """Whether the last steps had a learning rate above 0."""
    return max(past.values("learning_rate")[1]) > 0


def _perplexity(loss: float) -> str:
    return f"{math.exp(loss):,.0f}" if loss < 30 else "very many"


ABOVE_CHANCE = 1.0  # nats per token; a fresh network is within 0.1 of ln V


def worse_than_chance(past: Past, settings: Settings) -> str | None:
    """A network that gave all tokens the same probability would predict better."""
    least, size = min(past.values("no_think_loss")[1]), int(settings["model.vocab_size"])
    if size < 2 or least <= math.log(size) + ABOVE_CHANCE:
        return None
    return (
        f"no_think_loss was {least:.5g} nats per token or more in each of the last {LAST} steps, "
        f"and guessing among {size:,} tokens costs {math.log(size):.3f}. Where it was low at the "
        "start, the weights are destroyed: start again, and "
        + _cures(settings, "lower optimizer.learning_rate", "raise optimizer.warmup_steps")
        + "; where it was not, the tokenizer or the data are not those of this network"
    )


ROSE_NATS = 1.0  # per token: a perplexity 2.7 times as high


def loss_rose(past: Past, settings: Settings) -> str | None:
    """Next-token training has made the network worse than it was: all of the last steps are far
    above the first one, or above the best ten in a row."""
    losses = past.values("no_think_loss")[1]
    (first,) = past.values("no_think_loss")[0]
    best = min(first, past.lowest)
    rise = min(losses) - best
    # In this order: most steps of a run end with the first of them.
    if rise <= ROSE_NATS or _thinks(settings) or rise <= ERRORS * statistics.stdev(losses):
        return None
    return (
        f"the loss rose from {best:.3f} to {statistics.median(losses):.3f} nats per token and has "
        f"stayed there for {len(losses)} steps: training has diverged. Start again from a "
        "checkpoint before that, and "
        + _cures(settings, "lower optimizer.learning_rate", "raise optimizer.warmup_steps")
    )


NO_GRADIENT = 1e-20  # a gradient of float32 that is not 0 has a larger norm


def no_gradient(past: Past, settings: Settings) -> str | None:
    """Nothing is learnt any more, because the gradient is 0."""
    if max(past.values("grad_norm")[1]) > NO_GRADIENT:
        return None
    why = (
        "no group has thoughts of different worth" if _thinks(settings) else "weights are too large"
    )
    return (
        f"grad_norm was 0 in each of the last {LAST} steps: nothing is learnt any more. Unless all "
        f"is learnt that there is to learn, {why}; start again, and "
        + _cures(settings, "lower optimizer.learning_rate", "raise optimizer.warmup_steps")
    )


def identical_thoughts(past: Past, settings: Settings) -> str | None:
    """All thoughts of every group are the same, token by token."""
    group = int(settings["rlp.group_size"])
    most = max(past.values("distinct_thoughts")[1])
    if group < 2 or most > 1 / group + SAME:
        return None
    return (
        f"distinct_thoughts was {most:.3g} in each of the last {LAST} steps: all {group} thoughts "
        "of a group are the same, token by token, so none is better than another. Unless the "
        "answer is always the same, too, the weights are destroyed; "
        + _cures(
            settings,
            "lower optimizer.learning_rate",
            "raise rlp.temperature",
            "raise rlp.kl_weight",
        )
    )


RULES = (
    Rule("constant_loss", ("no_think_loss", "learning_rate"), constant_loss, first=0),
    Rule("worse_than_chance", ("no_think_loss",), worse_than_chance, first=0),
    Rule("loss_rose", ("no_think_loss",), loss_rose, first=1, lowest=True),
    Rule("no_gradient", ("grad_norm",), no_gradient, first=0),
    Rule("identical_thoughts", ("distinct_thoughts",), identical_thoughts, first=0),
    Rule("entropy_collapse", ("thought_entropy", "reward_mean"), entropy_collapse),
    Rule(
        "zero_variance_groups",
        ("zero_variance_share", "distinct_thoughts", "reward_mean"),
        zero_variance_groups,
    ),
    Rule("thoughts_shrinking", ("thought_length",), thoughts_shrinking),
    Rule("closed_share_falling", ("closed_fraction",), closed_share_falling),
    Rule(
        "no_think_loss_degrading",
        ("evaluation/no_think_loss",),
        held_out_no_think_loss,
        FIRST_EVALUATIONS,
        LAST_EVALUATIONS,
    ),
    Rule(
        "no_think_loss_degrading",
        ("no_think_loss",),
        training_no_think_loss,
        FIRST_FORKS,
        LAST_FORKS,
    ),
    Rule(
        "thoughts_name_the_target",
        ("target_named_share",),
        thoughts_name_the_target,
        FIRST_FORKS,
        LAST_FORKS,
    ),
)
