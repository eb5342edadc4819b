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
from rlp.engine.step import RLPSettings
from rlp.evaluation.answering import Answering
from rlp.evaluation.evaluator import Evaluator
from rlp.run import datasets, tasks, tokens
from rlp.run.answering import build_answering
from rlp.run.checks import check
from rlp.run.held_out import build_evaluator
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
    named(lambda: task.check_mesh(method.settings, mesh))
    evaluator = build_evaluator(config, method, answering, mesh)
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
