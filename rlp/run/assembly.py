"""Build the parts of a run from its config, and check each of them before any long work starts.

    config -> checks -> task, mesh -> method (model, tokenizer, settings) -> answering, evaluator

`build` does this without reading data; `read_data` then opens the training stream and the held-out
rows. Only modules of `rlp.run` read a config; everything that they build takes plain arguments.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from rlp.run.method import TextMethod, as_user_error, build_method
from rlp.runtime.errors import UserError

if TYPE_CHECKING:
    from rlp.run.training_suite import TrainingSuite

LOGGER = logging.getLogger(__name__)
# Like `rlp.run.method.ModelCheck`, with the mesh as an additional argument.
ModelCheck = Callable[[ModelConfig, int, RLPSettings | None, Mesh], None]


@dataclasses.dataclass(frozen=True)
class RunParts:
    """The parts of a run, except its data, which takes time to read.

    Attributes:
      task: The kind of run: next-token training, RL on thoughts, or RL on answers.
      dataset: The source of its rows.
      method: The model configuration, settings and tokenizer.
      evaluator: Computes the held-out metrics.
      mesh: The devices.
      answering: Samples and grades responses to problems; None for a run without problems.
      suite: The benchmarks that it evaluates; None without them.
    """

    task: tasks.Task
    dataset: datasets.Dataset
    method: TextMethod
    evaluator: Evaluator
    mesh: Mesh
    answering: Answering | None
    suite: "TrainingSuite | None" = None

    @property
    def sampling_method(self) -> Method | None:
        """The method that a training step samples with; None if it does not sample."""
        return self.task.sampling_method(self)

    @property
    def sampling_settings(self) -> RLPSettings | None:
        """The settings that a training step samples with; None if it does not sample."""
        return self.task.sampling_settings(self.method.settings)


def build(
    config: Config,
    files: Path | None = None,
    devices: Sequence[Any] | None = None,
    check_model: ModelCheck | None = None,
) -> RunParts:
    """Build a run.

    Args:
      config: The config of the run.
      files: As in `build_method`.
      devices: The devices of the mesh; None for all JAX devices.
      check_model: Called with the model configuration before anything is allocated; may raise.

    Raises:
      UserError: If a value of the config cannot be used; names its field.
    """
    check(flat(config, Config))
    task = tasks.of(config)
    mesh = as_user_error(lambda: _mesh(config, devices))

    def check_model_on_mesh(model: ModelConfig, used: int, sampling: RLPSettings | None) -> None:
        as_user_error(lambda: parameter_shardings(mesh, shapes(model)))
        if check_model:
            check_model(model, used, sampling, mesh)

    method = build_method(config, files, check_model_on_mesh)
    answering = build_answering(config, task, method)
    as_user_error(lambda: check_layers(method.model, mesh.shape["tensor"]))
    as_user_error(lambda: task.check_mesh(method.settings, mesh))
    evaluator = build_evaluator(config, method, answering, mesh)
    return RunParts(task, datasets.find(config.data.kind), method, evaluator, mesh, answering)


def read_data(config: Config, run: RunParts) -> tuple[Stream, HeldOut]:
    """Open the training stream of a run, and read its held-out rows.

    Raises:
      UserError: If the data cannot be used.
    """
    tokenizer, template = run.method.tokenizer, run.method.template
    response_format = run.answering.response_format if run.answering else None
    train, held_out = run.task.data(run.dataset, config, tokenizer, template, response_format)
    LOGGER.info("%s", tokens.bos_description(config, tokenizer))
    if template is not None and (run.task.reads_responses or response_format is not None):
        LOGGER.info("texts formatted by the chat template begin as the template defines")
    return train, held_out


def root_keys(seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the PRNG keys for parameters, training and evaluation."""
    parameters, training, evaluation = jax.random.split(jax.random.key(seed), 3)
    return parameters, training, evaluation


def _mesh(config: Config, devices: Sequence[Any] | None) -> Mesh:
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    shards = batch_shards(mesh)
    if config.batch_size % shards:
        raise UserError.of(
            "batch_size",
            config.batch_size,
            f"is not a multiple of the {shards} devices that share a batch "
            f"(mesh.data={mesh.shape['data']}, mesh.fsdp={mesh.shape['fsdp']})",
        )
    return mesh
