"""The stages of a training step, in order: Algorithm 1 of RLP (arXiv 2510.01265), read downwards.

Every line is a jitted program: its name, the function, the values that it reads and makes by name,
how often a step runs it (`UNITS`), under which part of the step its time is counted, the parts of
the FLOP count that it accounts for (`rlp.training.cost.PARTS`), and on what it depends whether a
step has it at all. The trainers run these lists, evaluation samples with them, and
`launch.compile` compiles them for devices that are not here.

theta is that of before the updates in all stages but `update` and `finish`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from models.config import ModelConfig
from models.sharding import parameter_shardings, replicated
from models.transformer import Params, shapes
from rlp.data.batch import Batch
from rlp.engine.branches import Vocabulary
from rlp.engine.optimizer import Optimizer
from rlp.engine.placement import gather, needs_gathering
from rlp.engine.rollout import Rollout
from rlp.engine.rollout_metrics import figures_stage, responses_stage
from rlp.engine.settings import RLPSettings
from rlp.engine.step import (
    ForkedDocuments,
    TrainState,
    answer_rewards_stage,
    evidence_stage,
    finish_step,
    next_token_stage,
    no_think_stage,
    read_stage,
    reference_stage,
    rollout_stage,
    update_stage,
)
from rlp.engine.step.rollout_batches import join_rollout_batches
from rlp.objectives.registry import reads_answers

# How often a step runs a stage. Rollout batches bound the size of the caches; with enough memory
# there is only one. The stages of a unit run in the order of their list, and the units in this
# order.
UNITS = {
    "start": "once, before the rollout batches",
    "documents": "for every batch of documents",
    "forks": "for every batch of forks of these documents",
    "join": "once, if there were several rollout batches",
    "batch": "once, on all thoughts",
    "minibatch": "for every minibatch of documents, as often as the thoughts are passed over",
    "end": "once, after the updates",
}

Values = dict[str, Any]  # what stages read and make, by name


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the stages of a step are compiled for."""

    model: ModelConfig
    settings: RLPSettings | None  # None, as is the vocabulary, for next-token prediction
    vocabulary: Vocabulary | None
    optimizer: Optimizer
    mesh: Mesh


def always(setup: Setup) -> bool:
    """A stage that every step has."""
    return True


def copies_theta(setup: Setup) -> bool:
    """Whether a rollout reads a copy of the parameters, whole over fsdp or in another dtype."""
    return needs_gathering(setup.model, setup.mesh, _settings(setup).rollout_layout)


def scores_text(setup: Setup) -> bool:
    """Whether thoughts are rewarded for the text that follows them."""
    return not checks_answers(setup)


def checks_answers(setup: Setup) -> bool:
    """Whether thoughts are responses to problems, rewarded for their answers."""
    return reads_answers(_settings(setup).objective)


def has_kl_term(setup: Setup) -> bool:
    """Whether the loss has a KL term towards the network of the start."""
    return _settings(setup).kl_weight > 0


def _settings(setup: Setup) -> RLPSettings:
    assert setup.settings is not None
    return setup.settings


@dataclasses.dataclass(frozen=True)
class Stage:
    """A program of a training step.

    Attributes:
      name: of the stage.
      function: what is jitted; None for work of the host, which the trainer does.
      arrows: "inputs -> outputs", names of values. An output that is also an input takes its
        memory. "evidence.reference" fills a field of a value.
      unit: how often a step runs it, one of `UNITS`.
      phase: of the step's time that it is counted under.
      flops: parts of the FLOP count that it accounts for.
      when: whether a step has the stage.
      bound: fields of a `Setup` that are the function's first arguments.
      static: inputs that are Python numbers, for which it is compiled.
    """

    name: str
    function: Callable | None
    arrows: str
    unit: str
    phase: str
    flops: str = ""
    when: Callable[[Setup], bool] = always
    bound: str = "model settings vocabulary"
    static: str = ""

    @property
    def inputs(self) -> list[str]:
        """Names of the values that it reads."""
        return self.arrows.split("->")[0].split()

    @property
    def outputs(self) -> list[str]:
        """Names of the values that it makes."""
        return self.arrows.split("->")[1].split()

    def jit(self, setup: Setup, placements: Mapping[str, Any]) -> Callable:
        """The program, compiled when it is called with its inputs.

        Args:
          setup: what it is compiled for.
          placements: shardings of some outputs by name; JAX chooses those of the others.
        """
        assert self.function is not None
        bound = [getattr(setup, name) for name in self.bound.split()]
        number = lambda names: [self.inputs.index(name) for name in self.inputs if name in names]
        options: dict[str, Any] = {}
        if all(name in placements for name in self.outputs):
            out = tuple(placements[name] for name in self.outputs)
            options["out_shardings"] = out if len(out) > 1 else out[0]
        program = jax.named_scope(self.name)(functools.partial(self.function, *bound))
        program.__name__ = self.name  # the name of the compiled program in traces and logs
        return jax.jit(
            program,
            static_argnums=number(self.static.split()),
            donate_argnums=number(self.outputs),
            **options,
        )

    def arguments(self, values: Values) -> list[Any]:
        """What the program is called with."""
        return [values[name] for name in self.inputs]

    def results(self, values: Values, made: Any) -> Values:
        """`values` with what the program made."""
        new = dict(zip(self.outputs, made if len(self.outputs) > 1 else [made], strict=True))
        for name in [name for name in new if "." in name]:
            value, field = name.split(".")
            new[value] = dataclasses.replace(values[value], **{field: new.pop(name)})
        return values | new


# Names of values: policy, theta as rollouts read it; scorer, the network whose loss ranks forks;
# baseline, phi; reference, pi_ref; forked, documents with their forks; first, index of the first
# fork of a rollout batch; trained, the state without phi and pi_ref, which an update does not use.
# fmt: off
RLP = (
    Stage("gather", gather, "params -> policy", "start", "gather",
          when=copies_theta, bound="model"),
    # Forks are chosen, and documents read by theta.
    Stage("read", read_stage, "policy scorer batch key step -> forked", "documents", "rollout",
          flops="scoring prefill"),
    # S_ema, and the loss without a thought: one pass per document for all its forks.
    Stage("no_think", no_think_stage, "policy baseline batch forked -> no_think", "documents",
          "evidence", flops="scoring baseline", when=scores_text),
    # G thoughts at each fork.
    Stage("rollout", rollout_stage, "policy forked first forks -> rollout", "forks", "rollout",
          flops="decode", static="forks"),
    # S_pred on the rollout's caches; rewards (eq. 3) and advantages (eq. 4).
    Stage("evidence", evidence_stage, "policy forked no_think rollout first table -> evidence",
          "forks", "evidence", flops="scoring", when=scores_text),
    # Of responses to problems, the answers are checked on the host, and give the rewards.
    Stage("responses", responses_stage, "rollout batch -> responses", "forks", "verify",
          when=checks_answers, bound="vocabulary"),
    Stage("grade", None, "responses -> answers planning", "forks", "verify", when=checks_answers),
    Stage("answer_rewards", answer_rewards_stage, "forked rollout answers planning -> evidence",
          "forks", "verify", when=checks_answers),
    Stage("join", join_rollout_batches,
          "rollout_batches batches_per_document -> rollout evidence", "join", "update",
          bound="", static="batches_per_document"),
    # log pi_ref of the actions.
    Stage("reference", reference_stage, "reference rollout -> evidence.reference", "batch",
          "evidence", flops="reference", when=has_kl_term),
    Stage("figures", figures_stage, "rollout evidence -> figures counts", "batch", "update",
          bound="settings vocabulary"),
    # The clipped surrogate (eq. 5) and its gradient, and the optimizer.
    Stage("update", update_stage, "trained rollout evidence minibatch -> trained metrics",
          "minibatch", "update", flops="update optimizer",
          bound="model settings vocabulary optimizer"),
    # The step is counted, and phi moves towards theta.
    Stage("finish", finish_step, "state -> state", "end", "update", flops="optimizer",
          bound="settings"),
)
NEXT_TOKEN = (
    Stage("update", next_token_stage, "state batch -> state metrics tokens", "batch", "update",
          flops="update optimizer", bound="model optimizer"),
)
# fmt: on


def stages_of(setup: Setup) -> list[Stage]:
    """The stages of a training step, in order."""
    listed = NEXT_TOKEN if setup.settings is None else RLP
    return [stage for stage in listed if stage.when(setup)]


def of_unit(stages: Sequence[Stage], unit: str) -> list[Stage]:
    """Those that a step runs as often as `UNITS` says of `unit`."""
    return [stage for stage in stages if stage.unit == unit]


def still_read(values: Values, stages: Sequence[Stage], unit: str) -> Values:
    """Of some values, those that stages of later units read; the others can be freed."""
    later = list(UNITS)[list(UNITS).index(unit) + 1 :]
    read = {name for stage in stages if stage.unit in later for name in stage.inputs}
    return {name: value for name, value in values.items() if name in read}


def placements(setup: Setup, shardings: TrainState) -> dict[str, Any]:
    """Shardings of what stages make, by name, where they are not the compiler's choice.

    Args:
      shardings: of a whole state, from `state_shardings`.
    """
    network = shapes(setup.model)
    whole = replicated(setup.mesh)
    names = ("figures", "counts", "metrics", "tokens", "responses")  # come to the host
    return dict.fromkeys(names, whole) | {
        "policy": parameter_shardings(setup.mesh, network, gathered=True),
        "state": shardings,
        "trained": shardings.trained(),
    }


def sample_thoughts(
    model: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    batch: Batch,
    key: jax.Array,
) -> tuple[ForkedDocuments, Rollout]:
    """The stages up to the rollout on all of a batch at once, without rollout batches: documents
    with their forks, and the thoughts there. To be traced in a larger program.

    Args:
      params: of the network, which also ranks the forks where the rule asks.
      batch: rows of one document each.
      key: root PRNG key.
    """
    values: Values = {"policy": params, "scorer": params, "batch": batch, "key": key, "step": 0}
    values |= {"first": 0, "forks": None}
    found = _computed("rollout", values, (model, settings, vocabulary))
    return found["forked"], found["rollout"]


def _computed(name: str, values: Values, method: tuple) -> Values:
    """`values` with the one of that name, and those that its stages read."""
    if name in values:
        return values
    stage = next(stage for stage in RLP if name in stage.outputs)
    assert stage.function is not None
    for needed in stage.inputs:
        values = _computed(needed, values, method)
    return stage.results(values, stage.function(*method, *stage.arguments(values)))
