"""The rules of warnings: each is a function that gives the message, or None while all is well.

The limits stand beside the rules, with their reasons. A run that has converged also has low
entropy and groups without variance, so those messages say what became of the reward. A network
that a few steps have destroyed shows no change from its first steps, so the rules about that
compare with the very first step, with chance, or with nothing.
"""

import math
import statistics

from rlp.metrics.watch import (
    ERRORS,
    EVALUATIONS,
    LAST,
    STEPS_OF_FORKS,
    Past,
    Settings,
    cures,
    rule,
)

ENTROPY_SHARE = 0.25  # of the start's
ENTROPY_NATS = 0.1  # per token: e^0.1 = 1.1 tokens to choose from


@rule("thought_entropy", "reward_mean")
def entropy_collapse(past: Past, settings: Settings) -> str | None:
    """Sampling has become nearly greedy, so nothing new is tried."""
    start, now = past.medians("thought_entropy")
    if now >= min(ENTROPY_SHARE * start, ENTROPY_NATS) or not past.moved("thought_entropy"):
        return None
    return (
        f"thought_entropy fell from {start:.3g} to {now:.3g} nats per token: hardly anything new "
        f"is tried. {_reward(past)}; if not, "
        + cures(
            settings,
            "raise rlp.temperature",
            "raise rlp.kl_weight",
            "lower optimizer.learning_rate",
        )
    )


NO_VARIANCE = 0.8  # of the groups: five are sampled for one that gives a gradient


@rule("zero_variance_share", "distinct_thoughts", "reward_mean")
def zero_variance_groups(past: Past, settings: Settings) -> str | None:
    """Few groups teach anything: in the others all thoughts are worth the same."""
    _, now = past.medians("zero_variance_share")
    if now <= NO_VARIANCE:
        return None
    _, distinct = past.medians("distinct_thoughts")
    return (
        f"zero_variance_share is {now:.2f}: few groups have thoughts of different worth, and no "
        f"other teaches anything (distinct_thoughts {distinct:.2f}). {_reward(past)}; if not, "
        + cures(
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


@rule("thought_length")
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
        + cures(
            settings,
            "set rlp.length_normalization=limit",
            "raise rlp.horizon",
            "raise rlp.kl_weight",
        )
    )


CLOSED_SHARE = 0.75  # of the start's
CLOSED_ENOUGH = 0.2  # where the others are masked: of five thoughts one is used


@rule("closed_fraction")
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
    return f"closed_fraction {how}: thoughts run into their limit{left_out}; " + cures(
        settings, cure, "raise rlp.thought_length", "raise rlp.kl_weight"
    )


NO_THINK_NATS = 0.05  # per token: a perplexity 5% higher


@rule("evaluation/no_think_loss", name="no_think_loss_degrading", steps=EVALUATIONS)
def held_out_no_think_loss(past: Past, settings: Settings) -> str | None:
    """The network predicts worse without a thought, on held-out documents."""
    (start,), last = past.values("evaluation/no_think_loss")
    if not _thinks(settings) or min(last) - start <= NO_THINK_NATS:
        return None
    return _degraded(settings, "held-out no_think_loss", start, last[-1])


@rule("no_think_loss", name="no_think_loss_degrading", steps=STEPS_OF_FORKS)
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
        + cures(
            settings,
            "raise rlp.next_token_weight",
            "raise rlp.kl_weight",
            "lower optimizer.learning_rate",
        )
    )


NAMED_RISE = 0.15  # of all thoughts, above those that name it at the start, by chance or not


@rule("target_named_share", steps=STEPS_OF_FORKS)
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
        + cures(settings, "raise rlp.horizon", "set rlp.positions=entropy", "raise rlp.kl_weight")
    )


SAME = 1e-6  # relative, a few roundings of float32


@rule("no_think_loss", "learning_rate", steps=(0, LAST))
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
        + cures(settings, "lower optimizer.learning_rate", "raise optimizer.warmup_steps")
    )


def _learns(past: Past) -> bool:
    """Whether the last steps had a learning rate above 0."""
    return max(past.values("learning_rate")[1]) > 0


def _perplexity(loss: float) -> str:
    return f"{math.exp(loss):,.0f}" if loss < 30 else "very many"


ABOVE_CHANCE = 1.0  # nats per token; a fresh network is within 0.1 of ln V


@rule("no_think_loss", steps=(0, LAST))
def worse_than_chance(past: Past, settings: Settings) -> str | None:
    """A network that gave all tokens the same probability would predict better."""
    least, size = min(past.values("no_think_loss")[1]), int(settings["model.vocab_size"])
    if size < 2 or least <= math.log(size) + ABOVE_CHANCE:
        return None
    return (
        f"no_think_loss was {least:.5g} nats per token or more in each of the last {LAST} steps, "
        f"and guessing among {size:,} tokens costs {math.log(size):.3f}. Where it was low at the "
        "start, the weights are destroyed: start again, and "
        + cures(settings, "lower optimizer.learning_rate", "raise optimizer.warmup_steps")
        + "; where it was not, the tokenizer or the data are not those of this network"
    )


ROSE_NATS = 1.0  # per token: a perplexity 2.7 times as high


@rule("no_think_loss", steps=(1, LAST), lowest=True)
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
        + cures(settings, "lower optimizer.learning_rate", "raise optimizer.warmup_steps")
    )


NO_GRADIENT = 1e-20  # a gradient of float32 that is not 0 has a larger norm


@rule("grad_norm", steps=(0, LAST))
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
        + cures(settings, "lower optimizer.learning_rate", "raise optimizer.warmup_steps")
    )


@rule("distinct_thoughts", steps=(0, LAST))
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
        + cures(
            settings,
            "lower optimizer.learning_rate",
            "raise rlp.temperature",
            "raise rlp.kl_weight",
        )
    )


RULES = (
    constant_loss,
    worse_than_chance,
    loss_rose,
    no_gradient,
    identical_thoughts,
    entropy_collapse,
    zero_variance_groups,
    thoughts_shrinking,
    closed_share_falling,
    held_out_no_think_loss,
    training_no_think_loss,
    thoughts_name_the_target,
)
