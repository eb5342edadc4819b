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
from ml_collections import ConfigDict

from models.config import ModelConfig
from rlp.capacity import device_memory, step_memory
from rlp.capacity.device_memory import Limits, Need
from rlp.data.compass import DOCUMENT_LENGTH
from rlp.engine.step import TrainState
from rlp.run import assembly as building
from rlp.run.assembly_data import COMPASS, answers_problems

THOUGHT, RESPONSE = "rlp.thought_length", "data.problems.response_length"
ROW_BYTES = 3 * 4  # of a token of a row: its id, its segment and its position, int32


def build(
    config: ConfigDict,
    files: Path | None = None,
    devices: Sequence[Any] | None = None,
    memory: Callable[[Sequence[Any]], Limits] = device_memory.limits,
    only_state: bool = False,
) -> building.Run:
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

    def look(model: ModelConfig, used: int, mesh: Mesh) -> None:
        _check_state(config, model, used, state(model, mesh), limits(mesh))

    run = building.build(config, files, devices, look)
    if not only_state:
        _check_step(config, run, state(run.model, run.mesh), limits(run.mesh))
    return run


def checkpoints(config: ConfigDict, last: int | None) -> int:
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


def check_sampling(method: building.Method, sizes: Mapping[str, int], limits: Limits) -> None:
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
    config: ConfigDict, model: ModelConfig, used: int, state: TrainState, limits: Limits
) -> None:
    """Refuses a network whose state of training does not fit, with a gradient where it learns."""
    every = step_memory.of_state(model, state, learns=_learns(config))
    on_host = step_memory.of_unused_rows(model, used)
    if not config.model.vocab_size:
        every = [_by_tokenizer(need, used) for need in every]
    if config.data.kind == COMPASS:
        on_host += _made_documents(config)
    device_memory.check(every, limits, "the state of training", on_host)


def _by_tokenizer(need: Need, used: int) -> Need:
    """The same need, where the tokenizer says how large the vocabulary is."""
    if need.fields.keys() != {"model.vocab_size"}:
        return need
    return dataclasses.replace(need, fields={"the largest id of the tokenizer": used - 1})


def _learns(config: ConfigDict) -> bool:
    return config.steps > 0 or bool(config.match)


def _state(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> TrainState:
    """The state of a run, as shapes with their places."""
    baseline, reference = building.copies_kept(config)
    on_cpu = next(iter(mesh.devices.flat)).platform == "cpu"  # whose memory is the host's
    memory = "device" if on_cpu else config.rlp.baseline_memory
    optimizer = building.build_optimizer(config, None)
    return step_memory.abstract_state(mesh, model, optimizer, baseline, memory, reference)


def _made_documents(config: ConfigDict) -> list[Need]:
    """Held-out documents of the compass, which are made, and not read from a file."""
    wanted = config.evaluation.documents
    size = wanted * DOCUMENT_LENGTH * ROW_BYTES
    return [Need("held-out documents", size, {"evaluation.documents": wanted})]


def _check_step(config: ConfigDict, run: building.Run, state: TrainState, limits: Limits) -> None:
    """Refuses a run whose steps or evaluations do not fit; its state does."""
    held = step_memory.of_state(run.model, state, learns=False)
    for purpose, found in _moments(config, run):
        device_memory.check([*held, *found], limits, purpose)


def _moments(config: ConfigDict, run: building.Run) -> Iterator[tuple[str, list[Need]]]:
    """What is alive besides the state, at the moments when most is."""
    rows, length = config.batch_size, config.data.sequence_length
    answers = answers_problems(config)
    if _learns(config):
        if building.thinks(config):
            field = RESPONSE if answers else THOUGHT
            settings, words = run.sampled
            place, step = (run.model, run.mesh, settings), (rows, length, field)
            yield "a rollout", step_memory.of_rollout(*place, *step)
            yield "an update", step_memory.of_update(*place, words, *step)
        else:
            yield "an update", step_memory.of_next_token_update(run.model, run.mesh, rows, length)
    wanted = config.evaluation
    if config.data.kind == COMPASS or (not answers and config.data.sft.share < 1):
        each = {
            THOUGHT: run.settings.thought_length,
            "evaluation.thoughts": wanted.thoughts,
            "evaluation.forks_per_document": wanted.forks_per_document,
        }
        count = (wanted.forks_per_document, wanted.thoughts)
        found = step_memory.of_evaluation(run.model, run.mesh, run.settings, *count, each)
        yield "an evaluation", found
    if run.answering:
        each = {
            RESPONSE: run.answering.settings.thought_length,
            "evaluation.responses": wanted.responses,
        }
        of = run.answering.settings
        found = step_memory.of_evaluation(run.model, run.mesh, of, 1, wanted.responses, each)
        yield "an evaluation", found
