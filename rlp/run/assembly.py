"""From a config to the things a run is made of, each checked before any long work starts.

The modules of `rlp.run` read a config; everything they build takes plain arguments.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from configs.default import Config
from configs.fields import flat
from models.config import ModelConfig
from models.layers.registry import check_layers
from models.sharding import batch_shards, make_mesh, parameter_shardings
from models.transformer import shapes
from rlp.data.batch import HeldOut, Stream
from rlp.engine.method import Method
from rlp.engine.microbatching import wave_shape
from rlp.engine.placement import check_memory
from rlp.engine.readings import OTHER_DOCUMENT, TOKEN_BYTES, needs
from rlp.engine.step import RLPSettings
from rlp.engine.token_bytes import TokenBytes, token_table
from rlp.evaluation.answer_evaluator import AnswerEvaluator
from rlp.evaluation.answering import Answering
from rlp.evaluation.evaluator import Evaluator
from rlp.run import datasets, tasks, tokens
from rlp.run.answering import build_answering
from rlp.run.checks import check
from rlp.run.method import TextMethod, build_method, named
from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)
# As `rlp.run.method.Look`, called with the mesh, too.
Look = Callable[[ModelConfig, int, RLPSettings | None, Mesh], None]


@dataclasses.dataclass(frozen=True)
class Run:
    """The things a run is made of, all but its rows: those take time to read.

    Attributes:
      task: what kind of run it is.
      dataset: where its rows come from.
      method: what it computes with.
      evaluator: of its held-out rows.
      mesh: that it is spread over.
      answering: how it answers problems; None for a run without problems.
    """

    task: tasks.Task
    dataset: datasets.Dataset
    method: TextMethod
    evaluator: Evaluator
    mesh: Mesh
    answering: Answering | None

    @property
    def sampled(self) -> Method | None:
        """What a training step samples with; None where it samples nothing."""
        return self.task.sampled(self)

    @property
    def sampling(self) -> RLPSettings | None:
        """The settings of what a training step samples; None where it samples nothing."""
        return self.task.sampling(self.method.settings)


def build(
    config: Config,
    files: Path | None = None,
    devices: Sequence[Any] | None = None,
    look: Look | None = None,
) -> Run:
    """Builds a run.

    Args:
      config, files: as of `build_method`.
      devices: that it is spread over; None for all that JAX has.
      look: may refuse the network.

    Raises:
      UserError: as `build_method` does.
    """
    check(flat(config, Config))
    task = tasks.of(config)
    mesh = named(lambda: _mesh(config, devices))

    def look_on_mesh(model: ModelConfig, used: int, sampling: RLPSettings | None) -> None:
        named(lambda: parameter_shardings(mesh, shapes(model)))
        if look:
            look(model, used, sampling, mesh)

    method = build_method(config, files, look_on_mesh)
    answering = build_answering(config, task, method)
    named(lambda: check_layers(method.model, mesh.shape["tensor"]))
    if sampling := task.sampling(method.settings):
        named(lambda: check_memory(mesh, config.rlp.baseline_memory))
        named(lambda: _check_waves(config.batch_size, sampling, batch_shards(mesh)))
    evaluator = _evaluator(config, method, answering, mesh)
    return Run(task, datasets.find(config.data.kind), method, evaluator, mesh, answering)


def read_data(config: Config, run: Run) -> tuple[Stream, HeldOut]:
    """The training stream of a run, and its held-out rows.

    Raises:
      UserError: for data that cannot be used.
    """
    tokenizer, template = run.method.tokenizer, run.method.template
    response_format = run.answering.response_format if run.answering else None
    found = run.task.data(run.dataset, config, tokenizer, template, response_format)
    LOGGER.info("%s", tokens.before_texts(config, tokenizer))
    if template is not None and (run.task.reads_responses or response_format is not None):
        LOGGER.info("what goes through the chat template begins as the template has it")
    return found


def root_keys(seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys of the parameters, of training and of evaluation."""
    parameters, training, evaluation = jax.random.split(jax.random.key(seed), 3)
    return parameters, training, evaluation


def _evaluator(
    config: Config, method: TextMethod, answering: Answering | None, mesh: Mesh
) -> Evaluator:
    """What measures a network on held-out rows."""
    evaluation, at_once = config.evaluation, _evaluated_at_once(config, batch_shards(mesh))
    answers = None
    if answering is not None:
        answers = AnswerEvaluator(answering, evaluation.responses, at_once, mesh)
    trained = "given" if config.rlp.positions == "given" else "uniform"
    return Evaluator(
        method=method,
        positions=evaluation.positions or trained,
        forks=evaluation.forks_per_document,
        thoughts=evaluation.thoughts,
        batch_size=at_once,
        mesh=mesh,
        table=_table(method),
        answers=answers,
    )


def _table(method: TextMethod) -> TokenBytes | None:
    """Bytes of all tokens, where the objective compares them."""
    if TOKEN_BYTES not in needs(method.settings.objective):
        return None
    return token_table(method.tokenizer.token_bytes(), method.model.vocab_size)


def _evaluated_at_once(config: Config, shards: int) -> int:
    """Held-out documents whose thoughts are sampled together: as many on each device."""
    if not config.rlp.max_branches_in_flight:
        return config.batch_size
    branches = config.evaluation.forks_per_document * config.evaluation.thoughts
    each = config.rlp.max_branches_in_flight // (branches * shards)
    return min(config.batch_size, max(1, each) * shards)


def _mesh(config: Config, devices: Sequence[Any] | None) -> Mesh:
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    split = batch_shards(mesh)
    if config.batch_size % split:
        raise UserError.of(
            "batch_size",
            config.batch_size,
            f"is no multiple of the {split} devices that share it "
            f"(mesh.data={mesh.shape['data']}, mesh.fsdp={mesh.shape['fsdp']})",
        )
    return mesh


def _check_waves(documents: int, rlp: RLPSettings, shards: int) -> None:
    """Refuses waves and minibatches that do not divide a batch of so many documents."""
    branches = rlp.forks_per_document * rlp.group_size
    if documents % (rlp.minibatches * shards):
        raise UserError.of(
            "batch_size",
            documents,
            f"is no multiple of {rlp.minibatches * shards}, rlp.minibatches={rlp.minibatches} "
            f"times the {shards} device(s) that share each; change one of them",
        )
    wanted = {
        "max_branches_in_flight": (documents, rlp.group_size),
        "update_micro_batch": (documents // rlp.minibatches, 1),
    }
    waves = {
        field: wave_shape(rows, branches, unit, getattr(rlp, field), shards, f"rlp.{field}")
        for field, (rows, unit) in wanted.items()
    }
    if OTHER_DOCUMENT in needs(rlp.objective) and waves["max_branches_in_flight"][0] < 2:
        raise UserError.of(
            "objective",
            rlp.objective,
            "puts thoughts into another document of their wave, and a wave has one; raise "
            "batch_size or rlp.max_branches_in_flight",
        )
