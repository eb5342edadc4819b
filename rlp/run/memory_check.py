"""A run is built only if it fits into memory: its sizes, from a config, against what there is.

It is refused for what certainly does not fit (see `rlp.capacity.device_memory`), before anything is
made, and before documents are read.
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
from rlp.run.assembly import Run
from rlp.run.method import TextMethod
from rlp.run.schedule import build_optimizer
from rlp.run.tasks.task import RESPONSE, THOUGHT


def build(
    config: Config,
    files: Path | None = None,
    devices: Sequence[Any] | None = None,
    memory: Callable[[Sequence[Any]], Limits] = device_memory.limits,
    only_state: bool = False,
) -> Run:
    """Builds a run that may fit into memory; arguments and errors as of `rlp.run.assembly.build`.

    Args:
      config, files, devices: of the run.
      memory: what some devices have.
      only_state: look at nothing that a compiler will tell exactly.

    Raises:
      DoesNotFit: a step certainly needs more memory than there is.
    """
    limits = functools.cache(lambda mesh: memory(mesh.local_devices))  # and so a warning comes once

    state = functools.cache(functools.partial(_state, config))

    def look(model: ModelConfig, used: int, sampling: RLPSettings | None, mesh: Mesh) -> None:
        _check_state(config, model, used, state(model, sampling, mesh), limits(mesh))

    run = assembly.build(config, files, devices, look)
    if not only_state:
        held = state(run.method.model, run.sampling, run.mesh)
        _check_step(config, run, held, limits(run.mesh))
    return run


def checkpoints(config: Config, last: int | None) -> int:
    """Most checkpoints that a run has at one time: those that are kept, the best one, and the one
    that is being written.

    Args:
      config: of the run.
      last: its last step; None where that is not known.
    """
    most = config.checkpoint.keep + 2
    if last is None:
        return most
    every, evaluated = config.checkpoint.every, config.evaluation.every
    return min(most, last // every + (last // evaluated if evaluated else 0) + 1)


def check_parameters(name: str, model: ModelConfig, used: int, limits: Limits) -> None:
    """Refuses a network whose parameters do not fit on one device.

    Args:
      name: where the network is from, for the message.
      model: the network.
      used: ids of its tokenizer.
      limits: of the device.
    """
    every, on_host = step_memory.of_parameters(model), step_memory.of_unused_rows(model, used)
    device_memory.check(every, limits, f"the network of {name}", on_host)


def check_sampling(method: TextMethod, sizes: Mapping[str, int], limits: Limits) -> None:
    """Refuses to sample what does not fit beside the parameters on one device.

    Args:
      method: of the network.
      sizes: how many thoughts are sampled at a time, and the most tokens of each, by the names
        that they have where the user sets them.
      limits: of the device.
    """
    thoughts, length = sizes.values()
    found = step_memory.of_sampling(method.model, length, thoughts, sizes)
    device_memory.check([*step_memory.of_parameters(method.model), *found], limits, "sampling")


def _check_state(
    config: Config, model: ModelConfig, used: int, state: TrainState, limits: Limits
) -> None:
    """Refuses a network whose state of training does not fit, with a gradient where it learns."""
    every = step_memory.of_state(model, state, learns=_learns(config))
    on_host = step_memory.of_unused_rows(model, used)
    if not config.model.vocab_size:
        every = [_by_tokenizer(need, used) for need in every]
    on_host += datasets.find(config.data.kind).memory(config)
    device_memory.check(every, limits, "the state of training", on_host)


def _by_tokenizer(need: Need, used: int) -> Need:
    """The same need, where the tokenizer says how large the vocabulary is."""
    if need.fields.keys() != {"model.vocab_size"}:
        return need
    return dataclasses.replace(need, fields={"the largest id of the tokenizer": used - 1})


def _learns(config: Config) -> bool:
    return config.steps > 0 or bool(config.match)


def _state(
    config: Config, model: ModelConfig, sampling: RLPSettings | None, mesh: Mesh
) -> TrainState:
    """The state of a run, as shapes with their places."""
    baseline, reference = copies_kept(sampling)
    on_cpu = next(iter(mesh.devices.flat)).platform == "cpu"  # whose memory is the host's
    memory = "device" if on_cpu else config.rlp.baseline_memory
    optimizer = build_optimizer(config, None)
    return step_memory.abstract_state(mesh, model, optimizer, baseline, memory, reference)


def _check_step(config: Config, run: Run, state: TrainState, limits: Limits) -> None:
    """Refuses a run whose steps or evaluations do not fit; its state does."""
    held = step_memory.of_state(run.method.model, state, learns=False)
    for purpose, found in _moments(config, run):
        device_memory.check([*held, *found], limits, purpose)


def _moments(config: Config, run: Run) -> Iterator[tuple[str, list[Need]]]:
    """What is alive besides the state, at the moments when most is."""
    if _learns(config):
        yield from run.task.training_memory(run)
    wanted, place = config.evaluation, (run.method.model, run.mesh)
    if run.dataset.generated or run.task.reads_documents:
        each = {
            THOUGHT: run.method.settings.thought_length,
            "evaluation.thoughts": wanted.thoughts,
            "evaluation.forks_per_document": wanted.forks_per_document,
        }
        count = (wanted.forks_per_document, wanted.thoughts)
        found = step_memory.of_evaluation(*place, run.method.settings, *count, each)
        yield "an evaluation", found
    if run.answering:
        settings = run.answering.method.settings
        each = {RESPONSE: settings.thought_length, "evaluation.responses": wanted.responses}
        found = step_memory.of_evaluation(*place, settings, 1, wanted.responses, each)
        yield "an evaluation", found
