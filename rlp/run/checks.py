"""Values that no run can use, refused before anything is built or read.

It looks at the fields of a config as `run_config.fields` lists them: dotted path and value. What
only the things themselves can tell (shapes that do not divide, files that are not there) they say
when they are built.
"""

import math
from collections.abc import Mapping

import numpy as np

from models.attention import IMPLEMENTATIONS
from rlp.data.problems import PROBLEM
from rlp.engine.forks import RULES
from rlp.engine.placement import LAYOUTS, MEMORIES
from rlp.evaluation.answer_evaluator import ANSWER_FIGURES
from rlp.evaluation.evaluator import FIGURES
from rlp.objectives.equations import ADVANTAGES, RATIOS
from rlp.run import datasets, tasks
from rlp.run.datasets.dataset import given_forks
from rlp.run.method import INT32
from rlp.runtime.config_json import Value
from rlp.runtime.errors import UserError
from rlp.training import budget

CHOICES: dict[str, tuple[str, ...]] = {
    "model.attention": ("", *IMPLEMENTATIONS),
    "optimizer.schedule": ("constant", "cosine"),
    "rlp.horizon_weighting": ("sum", "mean", "discount"),
    "rlp.positions": RULES,
    "evaluation.positions": ("", "uniform", "given"),
    "rlp.baseline": ("ema", "frozen", "none"),
    "rlp.unclosed": ("append", "mask", "penalty"),
    "rlp.length_normalization": ("thought", "limit", "none"),
    "rlp.advantages": ("", *ADVANTAGES),
    "rlp.ratio": RATIOS,
    "rlp.rollout_layout": LAYOUTS,
    "rlp.baseline_memory": tuple(MEMORIES),
    "evaluation.best_metric": (
        "",
        *FIGURES,
        "document_loss",
        "response_loss",
        *ANSWER_FIGURES,
    ),
}
AT_LEAST_ONE = (
    "batch_size", "max_bad_steps", "data.max_row_bytes", "rlp.group_size",
    "rlp.forks_per_document", "rlp.thought_length", "rlp.horizon", "rlp.min_prefix",
    "rlp.hardest_at", "rlp.updates_per_rollout", "rlp.minibatches",
    "evaluation.documents", "evaluation.forks_per_document", "evaluation.thoughts",
    "evaluation.problems", "evaluation.responses", "data.problems.response_length",
    "evaluation.browse_documents", "evaluation.browse_positions",
    "checkpoint.every", "checkpoint.keep", "data.holdout_every", "data.lookahead.length",
)  # fmt: skip
NOT_NEGATIVE = (
    "steps", "model.vocab_size", "model.query_pre_attn_scalar", "model.sliding_window",
    "model.logit_softcap", "model.rope.local_theta", "model.rope.attention_factor",
    "data.lookahead.distance", "data.compass.late_from",
    "optimizer.learning_rate", "optimizer.warmup_steps", "optimizer.weight_decay",
    "optimizer.clip_norm", "rlp.clip_low", "rlp.clip_high", "rlp.unclosed_penalty",
    "rlp.kl_weight", "rlp.target_weight", "rlp.next_token_weight",
    "rlp.planning_weight", "data.problems.workers",
    "data.problems.memory_limit", "data.problems.step_time_limit",
    "rlp.max_branches_in_flight", "rlp.update_micro_batch", "evaluation.every",
)  # fmt: skip
# Are counted on the devices, in int32.
COUNTED = (
    "steps", "batch_size", "model.vocab_size", "data.sequence_length", "rlp.group_size",
    "rlp.forks_per_document", "rlp.thought_length", "rlp.horizon", "rlp.min_prefix",
    "rlp.hardest_at", "data.problems.response_length", "evaluation.forks_per_document",
    "evaluation.thoughts", "evaluation.responses",
)  # fmt: skip
POSITIVE = ("model.rope.theta", "model.norm_epsilon", "optimizer.epsilon", "rlp.temperature",
            "data.problems.time_limit", "data.max_decompression_ratio")  # fmt: skip
SHARES = (
    "data.sft.share", "data.lookahead.share", "data.max_unusable_share",
    "data.compass.thought_share", "data.compass.musing_share", "data.compass.late_musing_share",
    "data.compass.anywhere_share",
    "optimizer.final_share", "rlp.discount", "rlp.ema_decay",
)  # fmt: skip
BELOW_ONE = ("optimizer.beta1", "optimizer.beta2")
# The optimizer computes in float32, in which other numbers than these are 0, 1 or infinite.
FLOAT32 = {
    "optimizer.learning_rate": "which is infinite in float32; lower it",
    "optimizer.weight_decay": "which is infinite in float32; lower it",
    "optimizer.clip_norm": "which is infinite in float32; set it to 0 for no clipping",
}
MESH = ("mesh.data", "mesh.fsdp", "mesh.tensor")
SEEDS = 2**32  # what the shuffle of the data takes


def check(config: Mapping[str, Value]) -> None:
    """Refuses values that no run can use.

    Args:
      config: dotted path of every field to its value.

    Raises:
      UserError: names the field, its value and what it can be.
    """
    for field, allowed in CHOICES.items():
        if config[field] not in allowed:
            names = ", ".join(name or "''" for name in allowed)
            raise UserError(f"{field}={config[field]!r} is unknown; use one of {names}")
    dataset = datasets.find(str(config["data.kind"]))
    _check_numbers(config)
    if config["steps"] == 0 and not config["init_from"] and not config["match"]:
        raise UserError(
            "steps=0 evaluates what a run starts from; say with init_from what that is, or set "
            "steps to 1 or more"
        )
    task = tasks.find(config)
    _check_match(config, task)
    for rule, field in given_forks(config):
        if config[field] != 1:
            raise UserError(
                f"{field}={config[field]}; {rule}='given' has one fork per document, so set it to 1"
            )
    dataset.check(config, task)
    task.check(dataset)
    _check_problem_fields(config, task.asks_problems)
    _check_best_metric(config, task, dataset)


def _check_match(config: Mapping[str, Value], task: tasks.Task) -> None:
    """`match` has its form, and the schedule an end where the steps are known before."""
    if not config["match"]:
        return
    _, unit = budget.split(str(config["match"]))
    schedule = config["optimizer.schedule"]
    if not task.steps_known(unit) and schedule != "constant":
        raise UserError(
            f"match={config['match']!r}: how many steps that takes is not known before, and "
            f"optimizer.schedule={schedule!r} needs to know; set it to 'constant'"
        )


def _check_problem_fields(config: Mapping[str, Value], asked: bool) -> None:
    """Problems have a place in their instruction and, where there are some, columns."""
    for field in ("data.problems.prompt_column", "data.problems.answer_column"):
        if asked and not config[field]:
            raise UserError(f"{field}=''; give the name of that column")
    instruction = config["data.problems.instruction"]
    if PROBLEM not in str(instruction):
        raise UserError(
            f"data.problems.instruction={instruction!r} has no {PROBLEM} for the problem"
        )


def _check_best_metric(
    config: Mapping[str, Value], task: tasks.Task, dataset: datasets.Dataset
) -> None:
    """What picks the best checkpoint is measured."""
    best = config["evaluation.best_metric"]
    measured = {
        "response_loss": bool(config["data.sft.share"]),
        **dict.fromkeys(ANSWER_FIGURES, task.asks_problems),
        **dict.fromkeys((*FIGURES, "document_loss"), dataset.generated or task.reads_documents),
    }
    if best and not measured[str(best)]:
        raise UserError(
            f"evaluation.best_metric={best!r} is not measured with objective="
            f"{config['objective']!r} and data.sft.share={config['data.sft.share']}; leave it ''"
        )


def _check_numbers(config: Mapping[str, Value]) -> None:
    ranges = (
        (AT_LEAST_ONE, 1, math.inf, "be at least 1"),
        (NOT_NEGATIVE, 0, math.inf, "not be negative"),
        (POSITIVE, math.ulp(0), math.inf, "be above 0"),
        (SHARES, 0, 1, "lie in [0, 1]"),
        (COUNTED, -math.inf, INT32, f"be at most {INT32}"),
        (("seed",), 0, SEEDS - 1, f"lie in [0, {SEEDS - 1}]"),
    )
    for fields, least, most, rule in ranges:
        for field in fields:
            if not least <= _number(config[field]) <= most:
                raise UserError(f"{field}={config[field]}; it must {rule}")
    _check_optimizer(config)
    dual = float(config["rlp.clip_dual"])
    if dual and not dual > 1:
        raise UserError(f"rlp.clip_dual={dual}; it must be above 1, or 0 for none")
    for field in MESH:
        if config[field] != -1 and _number(config[field]) < 1:
            raise UserError(
                f"{field}={config[field]}; give a number of devices, or -1 for the rest"
            )


def _number(value: Value) -> float:
    """The value of a field that holds a number, which may be too large for a float."""
    assert isinstance(value, int | float)
    return value


def _check_optimizer(config: Mapping[str, Value]) -> None:
    """Numbers with which AdamW would divide by 0, or not move, in float32."""
    single = lambda field: float(np.float32(float(config[field])))
    for field in BELOW_ONE:
        if not 0 <= float(config[field]) < 1 or single(field) == 1:
            raise UserError(
                f"{field}={config[field]}; it must lie in [0, 1): with 1 the mean of the gradients "
                "never moves, and its correction divides by 0"
            )
    with np.errstate(over="ignore", under="ignore"):
        for field, why in FLOAT32.items():
            if not math.isfinite(single(field)):
                raise UserError(f"{field}={config[field]}, {why}")
        if single("optimizer.epsilon") < np.finfo(np.float32).tiny:
            raise UserError(
                f"optimizer.epsilon={config['optimizer.epsilon']}, which is 0 in float32: a "
                "parameter without a gradient would be divided by 0; raise it"
            )
        if math.isinf(single("optimizer.epsilon")):
            raise UserError(
                f"optimizer.epsilon={config['optimizer.epsilon']}, which is infinite in float32; "
                "lower it"
            )
