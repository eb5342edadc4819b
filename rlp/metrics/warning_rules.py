"""The warning rules: each is a function that returns the message, or None if nothing is wrong.

The thresholds precede the rules, with their reasons. A converged run also has low entropy and
zero-variance groups, so those messages include the change of the reward. If the first few steps
destroy a network, its metrics do not change afterwards, so the rules for that compare with the very
first step, with chance level, or with nothing.
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

ENTROPY_SHARE = 0.25  # of the initial entropy
ENTROPY_NATS = 0.1  # per token: an effective choice of e^0.1 = 1.1 tokens


@rule("thought_entropy", "reward_mean")
def entropy_collapse(past: Past, settings: Settings) -> str | None:
    """Sampling is nearly greedy, so the policy no longer explores."""
    start, now = past.medians("thought_entropy")
    if now >= min(ENTROPY_SHARE * start, ENTROPY_NATS) or not past.moved("thought_entropy"):
        return None
    return (
        f"thought_entropy fell from {start:.3g} to {now:.3g} nats per token: sampling is nearly "
        f"greedy and no longer explores. {_reward(past)}; otherwise, "
        + cures(
            settings,
            "raise rlp.temperature",
            "raise rlp.kl_weight",
            "lower optimizer.learning_rate",
        )
    )


NO_VARIANCE = 0.8  # share of groups: five groups are sampled for each one with a gradient


@rule("zero_variance_share", "distinct_thoughts", "reward_mean")
def zero_variance_groups(past: Past, settings: Settings) -> str | None:
    """In most groups all thoughts have the same reward, so they give no gradient."""
    _, now = past.medians("zero_variance_share")
    if now <= NO_VARIANCE:
        return None
    _, distinct = past.medians("distinct_thoughts")
    return (
        f"zero_variance_share is {now:.2f}: in these groups all thoughts have the same reward, so "
        f"they give no gradient (distinct_thoughts {distinct:.2f}). {_reward(past)}; otherwise, "
        + cures(
            settings, "raise rlp.temperature", "raise rlp.group_size", "set rlp.positions=entropy"
        )
    )


def _reward(past: Past) -> str:
    start, now = past.medians("reward_mean")
    return (
        f"reward_mean went from {start:.3g} to {now:.3g}: if it cannot rise further, the run has "
        "converged"
    )


LENGTH_SHARE = 0.5  # of the initial length


@rule("thought_length")
def thoughts_shrinking(past: Past, settings: Settings) -> str | None:
    """Thoughts become short and evasive: a wrong derivation costs more than a right one gains."""
    start, now = past.medians("thought_length")
    if now >= LENGTH_SHARE * start or not past.moved("thought_length"):
        return None
    per_token = settings["rlp.length_normalization"] == "thought"
    why = ", and dividing the loss by the length favors short thoughts" if per_token else ""
    return (
        f"thought_length fell from {start:.1f} to {now:.1f} tokens: short thoughts avoid the risk "
        f"of a negative reward{why}; "
        + cures(
            settings,
            "set rlp.length_normalization=limit",
            "raise rlp.horizon",
            "raise rlp.kl_weight",
        )
    )


CLOSED_SHARE = 0.75  # of the initial share
CLOSED_ENOUGH = 0.2  # if the others are masked: one thought in five is used


@rule("closed_fraction")
def closed_share_falling(past: Past, settings: Settings) -> str | None:
    """More thoughts reach the length limit, or most do from the start and are masked."""
    start, now = past.medians("closed_fraction")
    masked = settings["rlp.unclosed"] == "mask"
    falling = now < CLOSED_SHARE * start and past.moved("closed_fraction")
    if not falling and not (masked and now < CLOSED_ENOUGH):
        return None
    how = f"fell from {start:.2f} to {now:.2f}" if falling else f"is {now:.2f}"
    left_out = " and are masked out, so nothing trains them to close" if masked else ""
    cure = {
        "mask": "set rlp.unclosed=append",
        "append": "set rlp.unclosed=penalty",
        "penalty": "raise rlp.unclosed_penalty",
    }[str(settings["rlp.unclosed"])]
    return f"closed_fraction {how}: thoughts reach the length limit{left_out}; " + cures(
        settings, cure, "raise rlp.thought_length", "raise rlp.kl_weight"
    )


NO_THINK_NATS = 0.05  # per token: a perplexity 5% higher


@rule("evaluation/no_think_loss", name="no_think_loss_degrading", steps=EVALUATIONS)
def held_out_no_think_loss(past: Past, settings: Settings) -> str | None:
    """The model predicts worse without a thought, on held-out documents."""
    (start,), last = past.values("evaluation/no_think_loss")
    if not _thinks(settings) or min(last) - start <= NO_THINK_NATS:
        return None
    return _degraded(settings, "held-out no_think_loss", start, last[-1])


@rule("no_think_loss", name="no_think_loss_degrading", steps=STEPS_OF_FORKS)
def training_no_think_loss(past: Past, settings: Settings) -> str | None:
    """The model predicts worse without a thought, on training documents.

    Does not apply to a curriculum, whose forks become harder by design.
    """
    start, now = past.medians("no_think_loss")
    planned = settings["rlp.positions"] == "easy_to_hard"
    if not _thinks(settings) or planned or now - start <= NO_THINK_NATS:
        return None
    if not past.moved("no_think_loss"):
        return None
    return _degraded(settings, "no_think_loss", start, now)


def _thinks(settings: Settings) -> bool:
    return settings["objective"] != "next_token"


def _degraded(settings: Settings, metric: str, start: float, now: float) -> str:
    return (
        f"{metric} rose from {start:.3f} to {now:.3f} nats per token: without a thought, the model "
        "predicts worse than before; "
        + cures(
            settings,
            "raise rlp.next_token_weight",
            "raise rlp.kl_weight",
            "lower optimizer.learning_rate",
        )
    )


NAMED_RISE = 0.15  # of all thoughts, above the share at the start


@rule("target_named_share", steps=STEPS_OF_FORKS)
def thoughts_name_the_target(past: Past, settings: Settings) -> str | None:
    """A growing share of thoughts contains the target tokens verbatim."""
    start, now = past.medians("target_named_share")
    if now - start <= NAMED_RISE or not past.moved("target_named_share"):
        return None
    chance = " (common tokens occur by chance)" if settings["rlp.horizon"] == 1 else ""
    return (
        f"target_named_share rose from {start:.2f}{chance} to {now:.2f}: more thoughts contain the "
        "target tokens, either as the result of reasoning or as a guess written down early. Read "
        "some thoughts; if they do not reason, "
        + cures(settings, "raise rlp.horizon", "set rlp.positions=entropy", "raise rlp.kl_weight")
    )


SAME = 1e-6  # relative; a few rounding errors of float32


@rule("no_think_loss", "learning_rate", steps=(0, LAST))
def constant_loss(past: Past, settings: Settings) -> str | None:
    """The loss is the same on all documents, so the model ignores its input."""
    losses = past.values("no_think_loss")[1]
    if max(losses) - min(losses) > SAME * abs(losses[0]) or not _learns(past):
        return None
    return (
        f"no_think_loss was {losses[-1]:.5g} nats per token in each of the last {len(losses)} "
        "steps: the model predicts the same for every input, like a uniform choice among "
        f"{_perplexity(losses[-1])} tokens. Unless all these steps had the same batch, training "
        "has diverged; restart the run, and "
        + cures(settings, "lower optimizer.learning_rate", "raise optimizer.warmup_steps")
    )


def _learns(past: Past) -> bool:
    """Return whether the last steps had a learning rate above 0."""
    return max(past.values("learning_rate")[1]) > 0


def _perplexity(loss: float) -> str:
    return f"{math.exp(loss):,.0f}" if loss < 30 else "very many"


ABOVE_CHANCE = 1.0  # nats per token; a newly initialized model is within 0.1 of ln V


@rule("no_think_loss", steps=(0, LAST))
def worse_than_chance(past: Past, settings: Settings) -> str | None:
    """The loss is above that of a uniform distribution over the vocabulary."""
    least, size = min(past.values("no_think_loss")[1]), int(settings["model.vocab_size"])
    if size < 2 or least <= math.log(size) + ABOVE_CHANCE:
        return None
    return (
        f"no_think_loss was at least {least:.5g} nats per token in each of the last {LAST} steps, "
        f"above the {math.log(size):.3f} of a uniform guess among {size:,} tokens. If it was low "
        "at the start, training has diverged: restart the run, and "
        + cures(settings, "lower optimizer.learning_rate", "raise optimizer.warmup_steps")
        + "; if it was high from the start, the tokenizer or the data do not match the model"
    )


ROSE_NATS = 1.0  # per token: a perplexity 2.7 times as high


@rule("no_think_loss", steps=(1, LAST), lowest=True)
def loss_rose(past: Past, settings: Settings) -> str | None:
    """Next-token training has made the model worse.

    All of the last steps are far above the first step, or above the best ten consecutive steps.
    """
    losses = past.values("no_think_loss")[1]
    (first,) = past.values("no_think_loss")[0]
    best = min(first, past.lowest)
    rise = min(losses) - best
    # The cheapest condition comes first: it decides most steps of a run.
    if rise <= ROSE_NATS or _thinks(settings) or rise <= ERRORS * statistics.stdev(losses):
        return None
    return (
        f"the loss rose from {best:.3f} to {statistics.median(losses):.3f} nats per token and has "
        f"stayed there for {len(losses)} steps: training has diverged; restart from an earlier "
        "checkpoint, and "
        + cures(settings, "lower optimizer.learning_rate", "raise optimizer.warmup_steps")
    )


NO_GRADIENT = 1e-20  # a nonzero float32 gradient has a larger norm


@rule("grad_norm", steps=(0, LAST))
def no_gradient(past: Past, settings: Settings) -> str | None:
    """The gradient is 0, so the model no longer learns."""
    if max(past.values("grad_norm")[1]) > NO_GRADIENT:
        return None
    why = (
        "in every group all thoughts have the same reward"
        if _thinks(settings)
        else "the weights are too large"
    )
    return (
        f"grad_norm was 0 in each of the last {LAST} steps: the model no longer learns. Unless the "
        f"run has converged, {why}; restart the run, and "
        + cures(settings, "lower optimizer.learning_rate", "raise optimizer.warmup_steps")
    )


@rule("distinct_thoughts", steps=(0, LAST))
def identical_thoughts(past: Past, settings: Settings) -> str | None:
    """In every group, all thoughts are identical."""
    group = int(settings["rlp.group_size"])
    most = max(past.values("distinct_thoughts")[1])
    if group < 2 or most > 1 / group + SAME:
        return None
    return (
        f"distinct_thoughts was {most:.3g} in each of the last {LAST} steps: all {group} thoughts "
        "of a group are identical, so no thought has an advantage. Unless the answer is also "
        "always the same, training has diverged; "
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
