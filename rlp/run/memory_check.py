"""Build a run only if it may fit in memory: compare its sizes with the available memory.

A run that certainly does not fit (see `rlp.capacity.device_memory`) is refused before anything is
allocated and before documents are read.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from configs.default import Config
from models.config import ModelConfig
from rlp.capacity import device_memory, step_memory
from rlp.capacity.device_memory import Limits, Need
from rlp.engine.step import RLPSettings, TrainState, copies_kept
from rlp.run import assembly, datasets
from rlp.run.assembly import RunParts
from rlp.run.schedule import build_optimizer
from rlp.run.tasks.task import RESPONSE, THOUGHT


def build(
    config: Config,
    files: Path | None = None,
    devices: Sequence[Any] | None = None,
    memory: Callable[[Sequence[Any]], Limits] = device_memory.limits,
    only_state: bool = False,
) -> RunParts:
    """Build a run that may fit in memory.

    Args:
      config: As in `rlp.run.assembly.build`.
      files: As in `rlp.run.assembly.build`.
      devices: As in `rlp.run.assembly.build`.
      memory: Returns the memory limits of devices.
      only_state: Check only the training state; the caller compiles the steps for exact numbers.

    Raises:
      DoesNotFit: If a step certainly needs more memory than is available.
      UserError: As in `rlp.run.assembly.build`.
    """
    limits = functools.cache(lambda mesh: memory(mesh.local_devices))  # cached to warn only once

    state = functools.cache(functools.partial(_state, config))

    def check_model(
        model: ModelConfig, used: int, sampling: RLPSettings | None, mesh: Mesh
    ) -> None:
        _check_state(config, model, used, state(model, sampling, mesh), limits(mesh))

    run = assembly.build(config, files, devices, check_model)
    if not only_state:
        _check_step(
            config, run, state(run.method.model, run.sampling_settings, run.mesh), limits(run.mesh)
        )
    return run


def checkpoints(config: Config, last: int | None) -> int:
    """Return the most checkpoints that exist at a time.

    These are the latest `checkpoint.keep`, the best one, and the one that is being written.

    Args:
      config: The config of the run.
      last: The last step of the run; None if it is not known.
    """
    most = config.checkpoint.keep + 2
    if last is None:
        return most
    evaluation = config.evaluation
    suite_every = evaluation.suite_every if evaluation.suite else 0
    between = (config.checkpoint.every, evaluation.every, suite_every)
    return min(most, sum(last // every for every in between if every) + 1)


def check_parameters(name: str, model: ModelConfig, used: int, mesh: Mesh, limits: Limits) -> None:
    """Refuse a model whose parameters do not fit on a mesh.

    Args:
      name: The name of the model, for the message.
      model: The model configuration.
      used: The number of ids of its tokenizer.
      mesh: The mesh.
      limits: The memory limits of its devices.

    Raises:
      DoesNotFit: If the parameters do not fit.
    """
    needs = step_memory.of_parameters(model, mesh)
    on_host = step_memory.of_unused_rows(model, used)
    device_memory.check(needs, limits, f"the model {name}", on_host)


def check_sampling(
    model: ModelConfig,
    mesh: Mesh,
    thoughts: int,
    length: int,
    sizes: Mapping[str, int],
    limits: Limits,
) -> None:
    """Refuse sampling that does not fit next to the parameters on one device.

    Args:
      model: The model configuration.
      mesh: The mesh of the device.
      thoughts: The number of thoughts that the device samples at a time.
      length: The most tokens of each.
      sizes: The values of the arguments or flags that they are proportional to, by name.
      limits: The memory limits of the device.

    Raises:
      DoesNotFit: If sampling does not fit.
    """
    caches = step_memory.of_sampling(model, length, thoughts, sizes)
    parameters = step_memory.of_parameters(model, mesh)
    layers = step_memory.of_unrolled_layers(model)
    device_memory.check([*parameters, *layers, *caches], limits, "sampling")


def _check_state(
    config: Config, model: ModelConfig, used: int, state: TrainState, limits: Limits
) -> None:
    """Refuse a model whose training state, including gradients if it trains, does not fit."""
    needs = step_memory.of_state(model, state, learns=_learns(config))
    on_host = step_memory.of_unused_rows(model, used)
    if not config.model.vocab_size:
        needs = [_by_tokenizer(need, used) for need in needs]
    on_host += datasets.find(config.data.kind).memory(config)
    device_memory.check(needs, limits, "the training state", on_host)


def _by_tokenizer(need: Need, used: int) -> Need:
    """Return the same need, attributed to the tokenizer if it determines the vocabulary size."""
    if need.fields.keys() != {"model.vocab_size"}:
        return need
    return dataclasses.replace(need, fields={"the largest id of the tokenizer": used - 1})


def _learns(config: Config) -> bool:
    return config.steps > 0 or bool(config.match)


def _state(
    config: Config, model: ModelConfig, sampling: RLPSettings | None, mesh: Mesh
) -> TrainState:
    """Return the state of a run as abstract arrays with shardings."""
    baseline, reference = copies_kept(sampling)
    on_cpu = next(iter(mesh.devices.flat)).platform == "cpu"  # device memory is host memory
    memory = "device" if on_cpu else config.rlp.baseline_memory
    optimizer = build_optimizer(config, None)
    return step_memory.abstract_state(mesh, model, optimizer, baseline, memory, reference)


def _check_step(config: Config, run: RunParts, state: TrainState, limits: Limits) -> None:
    """Refuse a run whose state fits, but whose steps or evaluations do not."""
    resident = step_memory.of_state(run.method.model, state, learns=False)
    for purpose, needs in _peaks(config, run):
        device_memory.check([*resident, *needs], limits, purpose)


def _peaks(config: Config, run: RunParts) -> Iterator[tuple[str, list[Need]]]:
    """Yield the memory peaks of a run: a label, and what is allocated in addition to the state."""
    if _learns(config):
        yield from run.task.training_memory(run)
    evaluation, model_and_mesh = config.evaluation, (run.method.model, run.mesh)
    if run.dataset.generated or run.task.reads_documents:
        sizes = {
            THOUGHT: run.method.settings.thought_length,
            "evaluation.thoughts": evaluation.thoughts,
            "evaluation.forks_per_document": evaluation.forks_per_document,
        }
        count = (evaluation.forks_per_document, evaluation.thoughts)
        needs = step_memory.of_evaluation(*model_and_mesh, run.method.settings, *count, sizes)
        yield "an evaluation", needs
    if run.answering:
        settings = run.answering.method.settings
        sizes = {RESPONSE: settings.thought_length, "evaluation.responses": evaluation.responses}
        needs = step_memory.of_evaluation(*model_and_mesh, settings, 1, evaluation.responses, sizes)
        yield "an evaluation", needs
