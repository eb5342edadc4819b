"""The stages of a training step, in order: Algorithm 1 of RLP (arXiv 2510.01265).

Each entry of the lists below is a jitted program: its name, its function, the names of its inputs
and outputs, how often a step runs it (`UNITS`), the phase that its time counts toward, the parts of
the FLOP count that it accounts for (`rlp.training.cost.PARTS`), and the condition under which a
step includes it. The trainers run these lists, evaluation samples with them, and `launch.compile`
compiles them ahead of time for other devices.

In all stages but `update` and `finish`, theta has its value from before the updates.
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
from rlp.engine.rollout_metrics import metrics_stage, responses_stage
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

Values = dict[str, Any]  # inputs and outputs of stages, by name


@dataclasses.dataclass(frozen=True)
class Setup:
    """The static configuration that the stages of a step are compiled for."""

    model: ModelConfig
    settings: RLPSettings | None  # None, like the vocabulary, for next-token prediction
    vocabulary: Vocabulary | None
    optimizer: Optimizer
    mesh: Mesh


def always(setup: Setup) -> bool:
    """Return True: every step includes the stage."""
    return True


def copies_theta(setup: Setup) -> bool:
    """Return whether rollouts read a copy of theta, gathered over fsdp or in another dtype."""
    return needs_gathering(setup.model, setup.mesh, _settings(setup).rollout_layout)


def scores_text(setup: Setup) -> bool:
    """Return whether thoughts are rewarded for the text that follows them."""
    return not checks_answers(setup)


def checks_answers(setup: Setup) -> bool:
    """Return whether thoughts are responses to problems, rewarded for their answers."""
    return reads_answers(_settings(setup).objective)


def has_kl_term(setup: Setup) -> bool:
    """Return whether the loss has a KL term to the network at the start of the run."""
    return _settings(setup).kl_weight > 0


def _settings(setup: Setup) -> RLPSettings:
    assert setup.settings is not None
    return setup.settings


@dataclasses.dataclass(frozen=True)
class Stage:
    """A program of a training step.

    Attributes:
      name: of the stage.
      function: the function to jit; None for work on the host, which the trainer does.
      arrows: "inputs -> outputs", names of values. The buffer of an input that is also an output is
        donated. "evidence.reference" sets a field of a value.
      unit: how often a step runs it, one of `UNITS`.
      phase: part of the step's time that its time counts toward.
      flops: parts of the FLOP count that it accounts for.
      when: returns whether the step of a `Setup` includes the stage.
      bound: fields of `Setup` that are the first arguments of the function.
      static: inputs that are static Python numbers.
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
        """Names of the input values."""
        return self.arrows.split("->")[0].split()

    @property
    def outputs(self) -> list[str]:
        """Names of the output values."""
        return self.arrows.split("->")[1].split()

    def jit(self, setup: Setup, placements: Mapping[str, Any]) -> Callable:
        """Return the jitted function, with static, donated and sharded arguments set.

        Args:
          setup: bound to the first arguments.
          placements: shardings of some outputs by name; the compiler chooses those of the others.
        """
        assert self.function is not None
        bound = [getattr(setup, name) for name in self.bound.split()]
        indices = lambda names: [self.inputs.index(name) for name in self.inputs if name in names]
        options: dict[str, Any] = {}
        if all(name in placements for name in self.outputs):
            out = tuple(placements[name] for name in self.outputs)
            options["out_shardings"] = out if len(out) > 1 else out[0]
        program: Any = jax.named_scope(self.name)(functools.partial(self.function, *bound))
        program.__name__ = self.name  # the name of the compiled program in traces and logs
        return jax.jit(
            program,
            static_argnums=indices(self.static.split()),
            donate_argnums=indices(self.outputs),
            **options,
        )

    def arguments(self, values: Values) -> list[Any]:
        """Return the arguments of the program."""
        return [values[name] for name in self.inputs]

    def results(self, values: Values, outputs: Any) -> Values:
        """Return `values` updated with the outputs of the program."""
        new = dict(zip(self.outputs, outputs if len(self.outputs) > 1 else [outputs], strict=True))
        for name in [name for name in new if "." in name]:
            value, field = name.split(".")
            new[value] = dataclasses.replace(values[value], **{field: new.pop(name)})
        return values | new


# Values: `policy` is theta in the layout that rollouts read, `scorer` the network whose loss ranks
# forks, `baseline` phi, `reference` pi_ref, `forked` documents with their forks, `first` the index
# of a rollout batch's first fork, `trained` the state without phi and pi_ref.
# fmt: off
RLP = (
    Stage("gather", gather, "params -> policy", "start", "gather",
          when=copies_theta, bound="model"),
    # Choose the forks, and prefill the documents.
    Stage("read", read_stage, "policy scorer batch key step -> forked", "documents", "rollout",
          flops="scoring prefill"),
    # S_ema and the no-think loss of theta: one pass per document and network for all its forks.
    Stage("no_think", no_think_stage, "policy baseline batch forked -> no_think", "documents",
          "evidence", flops="scoring baseline", when=scores_text),
    # Sample G thoughts at each fork.
    Stage("rollout", rollout_stage, "policy forked first forks -> rollout", "forks", "rollout",
          flops="decode", static="forks"),
    # S_pred on the caches of the rollout, rewards (eq. 3) and advantages (eq. 4).
    Stage("evidence", evidence_stage, "policy forked no_think rollout first table -> evidence",
          "forks", "evidence", flops="scoring", when=scores_text),
    # For problems instead: the host grades the answers of the responses, and rewards follow.
    Stage("responses", responses_stage, "rollout batch -> responses", "forks", "verify",
          when=checks_answers, bound="vocabulary"),
    Stage("grade", None, "responses -> answers planning", "forks", "verify", when=checks_answers),
    Stage("answer_rewards", answer_rewards_stage, "forked rollout answers planning -> evidence",
          "forks", "verify", when=checks_answers),
    Stage("join", join_rollout_batches,
          "rollout_batches batches_per_document -> rollout evidence", "join", "update",
          bound="", static="batches_per_document"),
    # log pi_ref of the actions, for the KL term.
    Stage("reference", reference_stage, "reference rollout -> evidence.reference", "batch",
          "evidence", flops="reference", when=has_kl_term),
    Stage("metrics", metrics_stage, "rollout evidence -> rollout_metrics counts", "batch", "update",
          bound="settings vocabulary"),
    # The gradient of the clipped surrogate (eq. 5), and the optimizer update.
    Stage("update", update_stage, "trained rollout evidence minibatch -> trained metrics",
          "minibatch", "update", flops="update optimizer",
          bound="model settings vocabulary optimizer"),
    # Count the step; phi <- tau phi + (1 - tau) theta.
    Stage("finish", finish_step, "state -> state", "end", "update", flops="optimizer",
          bound="settings"),
)
NEXT_TOKEN = (
    Stage("update", next_token_stage, "state batch -> state metrics tokens", "batch", "update",
          flops="update optimizer", bound="model optimizer"),
)
# fmt: on


def stages_of(setup: Setup) -> list[Stage]:
    """Return the stages of a training step, in order."""
    listed = NEXT_TOKEN if setup.settings is None else RLP
    return [stage for stage in listed if stage.when(setup)]


def of_unit(stages: Sequence[Stage], unit: str) -> list[Stage]:
    """Return the stages of one of `UNITS`, in order."""
    return [stage for stage in stages if stage.unit == unit]


def still_read(values: Values, stages: Sequence[Stage], unit: str) -> Values:
    """Return the values that stages of later units than `unit` read; the others can be freed."""
    later = list(UNITS)[list(UNITS).index(unit) + 1 :]
    read = {name for stage in stages if stage.unit in later for name in stage.inputs}
    return {name: value for name, value in values.items() if name in read}


def placements(setup: Setup, shardings: TrainState) -> dict[str, Any]:
    """Return shardings of outputs by name; the compiler chooses those of all others.

    Args:
      setup: of the step.
      shardings: of a state, from `state_shardings`.
    """
    network = shapes(setup.model)
    whole = replicated(setup.mesh)
    # The host reads these.
    names = ("rollout_metrics", "counts", "metrics", "tokens", "responses")
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
    """Run the stages up to the rollout on a whole batch at once; for tracing in a larger program.

    Args:
      model, settings, vocabulary: of the method.
      params: of the network, which also ranks positions if the rule of forks needs scores.
      batch: single-document rows, [B, T].
      key: root PRNG key.

    Returns:
      The documents with their forks, and G thoughts of at most L actions at each fork: the schedule
      of the limit is one of training.
    """
    settings = dataclasses.replace(settings, thought_length_schedule=())
    values: Values = {"policy": params, "scorer": params, "batch": batch, "key": key, "step": 0}
    values |= {"first": 0, "forks": None}
    values = _computed("rollout", values, (model, settings, vocabulary))
    return values["forked"], values["rollout"]


def _computed(name: str, values: Values, method: tuple) -> Values:
    """Return `values` with the value of that name, and with those that it depends on."""
    if name in values:
        return values
    stage = next(stage for stage in RLP if name in stage.outputs)
    assert stage.function is not None
    for needed in stage.inputs:
        values = _computed(needed, values, method)
    return stage.results(values, stage.function(*method, *stage.arguments(values)))
