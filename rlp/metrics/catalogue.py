"""The catalogue: every metric of metrics.jsonl and evaluation.json, in the order of reports.

To add a metric, add its record here and its value where it is measured. Plots, tables,
docs/metrics.md and the values of `evaluation.best_metric` follow from the records. An objective
from outside of this repository brings records of its own.
"""

import dataclasses
from collections.abc import Sequence

from rlp.metrics.metric import Measured, Metric

TRAINING = (
    Metric("information_gain", "Information gain", "nats", "mean over thoughts; above 0 they help"),
    Metric("reward_positive_share", "Rewards above 0", "share", "thoughts that help at all"),
    Metric("accuracy", "Right answers", "share", "of the responses to training problems"),
    Metric("thought_length", "Thought length", "tokens", "mean over thoughts"),
    Metric("closed_fraction", "Closed thoughts", "share", "ended by the model within the limit"),
    Metric("thought_entropy", "Entropy of thoughts", "nats/token", "near 0 nothing new is tried"),
    Metric("zero_variance_share", "Groups without variance", "share", "these give no gradient"),
    Metric("distinct_thoughts", "Distinct thoughts", "share", "of the thoughts of one position"),
    Metric("target_named_share", "Thoughts with the target", "share", "hold the text that follows"),
    Metric("decode_use", "Decoding in use", "share", "decoded tokens that belong to a thought"),
    Metric("grad_norm", "Gradient norm", "", "before clipping"),
    Metric("no_think_loss", "No-think loss", "nats/token", "training documents, without thoughts"),
    Metric("loss", "Next-token loss", "nats/token", "the loss that these runs train on"),
    *(
        dataclasses.replace(metric, shown=False)
        for metric in (
            Metric("reward_mean", "Reward", "", "mean over thoughts"),
            Metric("advantage_std", "Spread of advantages", "", "standard deviation over thoughts"),
            Metric("reasoned_evidence", "Evidence, reasoned", "nats", "of targets after thoughts"),
            Metric("baseline_evidence", "Evidence, baseline", "nats", "of targets without one"),
            Metric(
                "no_think_loss_unselected", "No-think loss of other forks", "nats/token",
                "of the candidates that were not selected, where rlp.positions selects",
            ),
            Metric("majority_accuracy", "Right majorities", "share", "of the training problems"),
            Metric("answered_share", "Answered", "share", "responses whose answer can be read"),
            Metric("failed_checks_share", "Failed checks", "share", "answers that timed out"),
            Metric("stated_confidence_share", "Stated confidence", "share", "of the responses"),
            Metric("planning_share", "Planning tokens", "share", "of the tokens of responses"),
            Metric("clip_fraction", "Clipped", "share", "tokens whose ratio was clipped"),
            Metric(
                "logprob_gap", "Sampler–trainer gap", "nats/token",
                "log-probabilities at sampling against the update; the rounding, in bfloat16",
            ),
            Metric("kl", "KL divergence", "nats/token", "to the network of the start"),
            Metric("target_loss", "Target loss", "nats", "weighted loss of targets after thoughts"),
            Metric("next_token_loss", "Next-token term", "nats/token", "of the training text"),
            Metric("learning_rate", "Learning rate", "", "of the last update"),
            Metric("skipped_updates", "Skipped updates", "updates", "not finite, so far"),
            Metric("gather_bytes", "Gathered", "bytes", "that a device receives for the rollout"),
            Metric(
                "tokens_per_second", "Tokens per second", "tokens/s",
                "document tokens read and thought tokens sampled in this step, over its wall-clock "
                "time, on all devices together",
            ),
            Metric(
                "mfu", "Model FLOPs utilization", "share",
                "FLOPs of this step, without what model.remat computes again, over its time and "
                "the peak of all devices; absent where the peak is not known (CPUs, "
                "model.compute_dtype other than bfloat16, chips that rlp/capacity/chips.py lacks)",
            ),
            Metric("seconds_<stage>", "Time of a stage", "s", "wall-clock time in this step"),
        )
    ),
)  # fmt: skip

HELD_OUT = (
    Metric(
        "no_think_accuracy", "no-think", "share",
        "share of held-out targets that are the model's first choice, without a thought",
        "documents", lower_is_better=False, group="Accuracy",
    ),
    Metric(
        "greedy_think_accuracy", "greedy thinking", "share",
        "the same after the most likely thought",
        "documents", lower_is_better=False, group="Accuracy",
    ),
    Metric(
        "sampled_think_accuracy", "sampled thinking", "share",
        "the same after a sampled thought, averaged over thoughts",
        "documents", lower_is_better=False, group="Accuracy",
    ),
    Metric(
        "no_think_loss", "no-think", "nats/token",
        "negative log-probability of the target without a thought",
        "documents", lower_is_better=True, group="Loss",
    ),
    Metric(
        "think_loss", "thinking", "nats/token",
        "the same after a sampled thought",
        "documents", lower_is_better=True, group="Loss",
    ),
    Metric(
        "response_loss", "responses", "nats/token",
        "negative log-probability of the tokens of held-out responses",
        "responses", lower_is_better=True, group="Loss",
    ),
    Metric(
        "accuracy", "right, sampled", "share",
        "share of sampled responses to held-out problems with the right answer (pass@1)",
        "problems", lower_is_better=False, group="Answers",
    ),
    Metric(
        "greedy_accuracy", "right, greedy", "share",
        "the same of greedy responses",
        "problems", lower_is_better=False, group="Answers",
    ),
    Metric(
        "majority_accuracy", "right, majority", "share",
        "share of problems whose most common sampled answer is right",
        "problems", lower_is_better=False, group="Answers",
    ),
    Metric(
        "any_accuracy", "right, any", "share",
        "share of problems with a right answer among the sampled ones",
        "problems", lower_is_better=False, group="Answers",
    ),
    Metric(
        "accuracy/<file>", "right, <file>", "share",
        "share of sampled responses to the problems of <file> with the right answer",
        "problems", lower_is_better=False, group="Answers",
    ),
    Metric(
        "answered_share", "answered", "share",
        "share of sampled responses with an answer that can be read",
        "problems", lower_is_better=False, group="Answers", shown=False,
    ),
    Metric(
        "response_length", "length", "tokens",
        "tokens of a sampled response, the one that ends it included",
        "problems", group="Answers", shown=False,
    ),
    Metric(
        "response_closed_fraction", "closed", "share",
        "share of sampled responses that the model ended itself",
        "problems", lower_is_better=False, group="Answers", shown=False,
    ),
    Metric(
        "mean_information_gain", "information gain", "nats",
        "log-probability of the target with a thought minus without, averaged over thoughts",
        "documents", lower_is_better=False, group="Thoughts",
    ),
    Metric(
        "thought_length", "length", "tokens",
        "tokens of a thought",
        "documents", group="Thoughts",
    ),
    Metric(
        "closed_fraction", "closed", "share",
        "share of thoughts that the model ended itself, within the limit of length",
        "documents", group="Thoughts",
    ),
    Metric(
        "document_loss", "documents", "nats/token",
        "negative log-probability of whole held-out documents, without thoughts",
        "documents", lower_is_better=True, group="Loss", shown=False,
    ),
)  # fmt: skip

TOTALS = (
    Metric(
        "flops", "compute", "FLOPs",
        "floating-point operations of this run's training, counted from shapes, not from time",
        "total", group="Training",
    ),
    Metric(
        "tokens_documents", "text", "tokens",
        "tokens of documents that this run's training read, thoughts not counted",
        "total", group="Training",
    ),
    Metric(
        "train_seconds", "time", "s",
        "wall-clock time of this run's training",
        "total", group="Training",
    ),
    Metric(
        "seconds_device", "device time", "s",
        "the same times the number of devices that it ran on",
        "total", group="Training",
    ),
    Metric(
        "tokens_rollout", "sampled", "tokens", "tokens of thoughts that were sampled",
        "total", group="Training", shown=False,
    ),
    Metric(
        "tokens_update", "differentiated", "tokens", "slots of the passes that have a gradient",
        "total", group="Training", shown=False,
    ),
    Metric(
        "flops_<part>", "compute of a part", "FLOPs",
        "the same of the prefill, decode, scoring, baseline, reference, update and optimizer",
        "total", group="Training", shown=False,
    ),
)  # fmt: skip

CATALOGUE = (*TRAINING, *HELD_OUT, *TOTALS)
MEASURED = tuple(dict.fromkeys(metric.measured for metric in CATALOGUE))
PLOTTED = tuple(m for m in (*TRAINING, *HELD_OUT) if m.shown and "<" not in m.name)


def names(measured: Measured) -> tuple[str, ...]:
    """The names of the metrics that are measured on something, templates aside."""
    return tuple(m.name for m in CATALOGUE if m.measured == measured and "<" not in m.name)


# What `evaluation.best_metric` can name.
PICKING = {m.name: m for m in HELD_OUT if "<" not in m.name}


def lower_is_better(name: str) -> bool:
    """Whether the best step is the one with the lowest value of a held-out metric."""
    return bool(PICKING[name].lower_is_better)


def find(key: str, metrics: Sequence[Metric] = CATALOGUE) -> Metric | None:
    """The metric that metrics.jsonl has by a key, with what stands for angle brackets filled in.

    None if there is no such metric.
    """
    exact = (metric for metric in metrics if metric.key == key)
    filled = (_filled(metric, key) for metric in metrics)
    return next(exact, None) or next(filter(None, filled), None)


def _filled(metric: Metric, key: str) -> Metric | None:
    """The metric of a template, such as "seconds_<stage>", that has a key; None for another."""
    before, bracket, _ = metric.key.partition("<")
    if not bracket or not key.startswith(before) or key == before:
        return None
    template, text = metric.key.removeprefix(before), key.removeprefix(before)
    changed = {
        field: getattr(metric, field).replace(template, text)
        for field in ("name", "title", "meaning")
    }
    return dataclasses.replace(metric, **changed)
