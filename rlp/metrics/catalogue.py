"""The catalogue: every metric in metrics.jsonl and evaluation.json, in the order of reports.

To add a metric, add a record here and compute its value where it is measured. Plots, tables,
docs/metrics.md and the valid values of `evaluation.best_metric` are derived from the records. An
objective defined outside this repository declares its additional metrics itself
(`rlp.metrics.declared`).
"""

import dataclasses
import re
from collections.abc import Sequence

from rlp.metrics.metric import HELD_OUT_PREFIX, Measured, Metric

TRAINING = (
    Metric("information_gain", "Information gain", "nats", "mean; positive if thoughts help"),
    Metric("reward_positive_share", "Positive rewards", "share", "thoughts with a reward above 0"),
    Metric("accuracy", "Correct answers", "share", "of responses to training problems"),
    Metric("thought_length", "Thought length", "tokens", "mean over thoughts"),
    Metric("closed_fraction", "Closed thoughts", "share", "closed by the model within the limit"),
    Metric("thought_entropy", "Thought entropy", "nats/token", "near 0, sampling is greedy"),
    Metric("zero_variance_share", "Zero-variance groups", "share", "these give no gradient"),
    Metric("distinct_thoughts", "Distinct thoughts", "share", "within a group"),
    Metric("target_named_share", "Thoughts naming the target", "share", "contain its tokens"),
    Metric("decode_use", "Decode utilization", "share", "decoded tokens that belong to a thought"),
    Metric("grad_norm", "Gradient norm", "", "before clipping"),
    Metric("no_think_loss", "No-think loss", "nats/token", "training documents, no thoughts"),
    Metric("loss", "Next-token loss", "nats/token", "training loss of next-token runs"),
    *(
        dataclasses.replace(metric, shown=False)
        for metric in (
            Metric("reward_mean", "Reward", "", "mean over thoughts"),
            Metric("advantage_std", "Advantage std", "", "standard deviation over thoughts"),
            Metric(
                "in_band_share", "Forks in the band", "share",
                'with rlp.positions="band"; the thoughts of the others are not in the loss',
            ),
            Metric(
                "narrow_groups_share", "Narrow groups", "share",
                "groups excluded because their rewards have a spread below rlp.min_reward_std",
            ),
            Metric("reasoned_evidence", "Reasoned evidence", "nats", "targets after a thought"),
            Metric("baseline_evidence", "Baseline evidence", "nats", "targets without a thought"),
            Metric(
                "no_think_loss_unselected", "No-think loss, unselected forks", "nats/token",
                "at candidate positions that rlp.positions did not select",
            ),
            Metric("majority_accuracy", "Correct majorities", "share", "of training problems"),
            Metric("answered_share", "Answered", "share", "responses whose answer can be parsed"),
            Metric("failed_checks_share", "Failed checks", "share", "answers that timed out"),
            Metric("stated_confidence_share", "Stated confidence", "share", "of responses"),
            Metric("planning_share", "Planning tokens", "share", "of response tokens"),
            Metric("clip_fraction", "Clip fraction", "share", "tokens whose ratio was clipped"),
            Metric(
                "logprob_gap", "Sampler–trainer gap", "nats/token",
                "difference between the log-probabilities at sampling and in the update; only "
                "rounding error, visible in bfloat16",
            ),
            Metric("kl", "KL divergence", "nats/token", "to the model at the start of the run"),
            Metric("target_loss", "Target loss", "nats", "weighted loss of targets after thoughts"),
            Metric("next_token_loss", "Next-token term", "nats/token", "loss of training text"),
            Metric("learning_rate", "Learning rate", "", "of the last update"),
            Metric("skipped_updates", "Skipped updates", "updates", "non-finite ones so far"),
            Metric("gather_bytes", "Gathered bytes", "bytes", "received per device for a rollout"),
            Metric(
                "tokens_per_second", "Tokens per second", "tokens/s",
                "document tokens read and thought tokens sampled in this step, per second of "
                "wall-clock time, on all devices together",
            ),
            Metric(
                "mfu", "Model FLOPs utilization", "share",
                "FLOPs of this step, excluding recomputation by model.remat, divided by its time "
                "and the peak of all devices; absent if the peak is unknown (CPUs, "
                "model.compute_dtype other than bfloat16, chips not in rlp/capacity/chips.py)",
            ),
            Metric("seconds_<stage>", "Stage time", "s", "wall-clock time in this step"),
        )
    ),
)  # fmt: skip

HELD_OUT = (
    Metric(
        "no_think_accuracy", "no-think", "share",
        "share of held-out target tokens that the model ranks first, without a thought",
        "documents", lower_is_better=False, group="Accuracy",
    ),
    Metric(
        "greedy_think_accuracy", "greedy thinking", "share",
        "the same after a greedily decoded thought",
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
        "accuracy", "correct, sampled", "share",
        "share of sampled responses to held-out problems with the correct answer (pass@1)",
        "problems", lower_is_better=False, group="Answers",
    ),
    Metric(
        "greedy_accuracy", "correct, greedy", "share",
        "the same for greedy responses",
        "problems", lower_is_better=False, group="Answers",
    ),
    Metric(
        "majority_accuracy", "correct, majority", "share",
        "share of problems whose most common sampled answer is correct",
        "problems", lower_is_better=False, group="Answers",
    ),
    Metric(
        "any_accuracy", "correct, any", "share",
        "share of problems with at least one correct sampled answer",
        "problems", lower_is_better=False, group="Answers",
    ),
    Metric(
        "accuracy/<file>", "correct, <file>", "share",
        "share of sampled responses to the problems of <file> with the correct answer",
        "problems", lower_is_better=False, group="Answers",
    ),
    Metric(
        "answered_share", "answered", "share",
        "share of sampled responses whose answer can be parsed",
        "problems", lower_is_better=False, group="Answers", shown=False,
    ),
    Metric(
        "response_length", "length", "tokens",
        "tokens of a sampled response, including the end token",
        "problems", group="Answers", shown=False,
    ),
    Metric(
        "response_closed_fraction", "closed", "share",
        "share of sampled responses that the model ends within the limit",
        "problems", lower_is_better=False, group="Answers", shown=False,
    ),
    Metric(
        "benchmark/accuracy", "mean accuracy", "share",
        "mean of the accuracies of all benchmarks of evaluation.suite",
        "benchmarks", lower_is_better=False, group="Benchmarks",
    ),
    Metric(
        "benchmark/<score>/accuracy", "<score>", "share",
        "share of responses with the correct answer, or of problems whose correct option is the "
        "likeliest, for a score such as gsm8k_greedy or mmlu_log-likelihood",
        "benchmarks", lower_is_better=False, group="Benchmarks",
    ),
    Metric(
        "benchmark/<score>/failed", "<score>, failed checks", "share",
        "share of responses whose check exceeded its time or memory, which count as wrong",
        "benchmarks", lower_is_better=True, group="Benchmarks", shown=False,
    ),
    Metric(
        "benchmark/<score>/format", "<score>, format", "share",
        "share of responses with the format that the prompt asks for",
        "benchmarks", lower_is_better=False, group="Benchmarks", shown=False,
    ),
    Metric(
        "benchmark/<score>/no_answer", "<score>, no answer", "share",
        "share of responses without an answer",
        "benchmarks", lower_is_better=True, group="Benchmarks", shown=False,
    ),
    Metric(
        "benchmark/<score>/truncated", "<score>, truncated", "share",
        "share of responses, or of thoughts before options, that were cut at the limit of tokens",
        "benchmarks", lower_is_better=True, group="Benchmarks", shown=False,
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
        "share of thoughts that the model closes within the length limit",
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
        "floating-point operations of this run's training, computed from shapes, not measured",
        "total", group="Training",
    ),
    Metric(
        "tokens_documents", "text", "tokens",
        "document tokens that this run was trained on, excluding thoughts",
        "total", group="Training",
    ),
    Metric(
        "train_seconds", "time", "s",
        "wall-clock time of this run's training",
        "total", group="Training",
    ),
    Metric(
        "seconds_device", "device time", "s",
        "training time multiplied by the number of devices",
        "total", group="Training",
    ),
    Metric(
        "tokens_rollout", "sampled", "tokens", "sampled tokens of thoughts",
        "total", group="Training", shown=False,
    ),
    Metric(
        "tokens_update", "differentiated", "tokens", "token slots of passes with a gradient",
        "total", group="Training", shown=False,
    ),
    Metric(
        "flops_<part>", "compute of a part", "FLOPs",
        "FLOPs of the prefill, decode, scoring, baseline, reference, update or optimizer",
        "total", group="Training", shown=False,
    ),
)  # fmt: skip

_TEMPLATE = re.compile(r"([^<]*)(<[^>]+>)(.*)")
CATALOGUE = (*TRAINING, *HELD_OUT, *TOTALS)
MEASURED = tuple(dict.fromkeys(metric.measured for metric in CATALOGUE))
_SHOWN = [m for m in (*TRAINING, *HELD_OUT) if m.shown]
PLOTTED = tuple(m for m in _SHOWN if "<" not in m.name)
PLOTTED_TEMPLATES = tuple(m for m in _SHOWN if "<" in m.name)


def names(measured: Measured) -> tuple[str, ...]:
    """Return the names of the metrics with this value of `measured`, without templates."""
    return tuple(m.name for m in CATALOGUE if m.measured == measured and "<" not in m.name)


# The valid values of `evaluation.best_metric`, besides those of benchmarks.
PICKING = {m.name: m for m in HELD_OUT if "<" not in m.name}


def lower_is_better(name: str) -> bool:
    """Return whether the step with the lowest value of a held-out metric is the best one."""
    metric = find(HELD_OUT_PREFIX + name)
    assert metric is not None
    return bool(metric.lower_is_better)


def find(key: str, metrics: Sequence[Metric] = CATALOGUE) -> Metric | None:
    """Return the metric with a key of metrics.jsonl, or None if no metric has it.

    If the key matches a template such as "seconds_<stage>", the part in angle brackets is filled
    in.
    """
    exact = (metric for metric in metrics if metric.key == key)
    filled = (_filled(metric, key) for metric in metrics)
    return next(exact, None) or next(filter(None, filled), None)


def _filled(metric: Metric, key: str) -> Metric | None:
    """Return a template filled in so that it has this key, or None if it does not match."""
    parts = _TEMPLATE.fullmatch(metric.key)
    if not parts:
        return None
    before, template, after = parts.groups()
    text = key.removeprefix(before).removesuffix(after)
    if not text or before + text + after != key:
        return None
    changed = {
        field: getattr(metric, field).replace(template, text)
        for field in ("name", "title", "meaning")
    }
    return dataclasses.replace(metric, **changed)
