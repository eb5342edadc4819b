"""Predict memory and time of a step on machines that are not here, by compiling it.

    python -m launch.compile --config=configs/text.py:rlp --topology=v5e:2x2
    python -m launch.compile --config=configs/qwen3_1p7b_rlp.py --topology=h200:2x8 \
        --config.data.eos=
    python -m launch.compile --config=configs/qwen3_14b_rlp.py --topology=v5p:4x4x4 \
        --config.data.eos= --show_sharding

(Without a tokenizer, the program uses bytes, which have no EOS token, hence --config.data.eos=;
with init_from, it uses the tokenizer of that model.)

It compiles every stage of a training step for a TPU topology (v4, v5e, v5p, v6e) or NVIDIA GPUs
(h200:NODESxGPUS) on any x86-64 Linux machine, with the compilers that `make compilers` installs. It
exits with 0 if the step fits into the memory of the chips, and with 1 if it does not.

--show_sharding prints the sharding of the parameters instead, and needs no compiler; without a
topology, it uses the devices of this machine.
"""

import copy
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import ConfigDict

from configs.default import Config
from configs.fields import value_of
from launch import config_flags, program
from rlp.capacity import compilers
from rlp.capacity.chips import Topology, parse_topology
from rlp.runtime.errors import UserError

if TYPE_CHECKING:
    from rlp.capacity.step_spec import StepSpec
    from rlp.run.assembly import RunParts

_CONFIG = config_flags.define()
_TOPOLOGY = flags.DEFINE_string("topology", None, "chips to compile for, such as v5p:4x4x4")
_SHOW_SHARDING = flags.DEFINE_bool(
    "show_sharding", False, "print the sharding of the parameters, and compile nothing"
)
NOWHERE = Path("/nonexistent")  # the workdir of a run that has not begun


def main(_: Sequence[str]) -> None:
    """Compile the step, or print the sharding."""
    config = _CONFIG.value
    topology = parse_topology(_TOPOLOGY.value) if _TOPOLOGY.value else None
    if "arms" in config:
        raise UserError("--config has arms, so it is several runs; use the config of a single run")
    if _SHOW_SHARDING.value:
        show_sharding(config, topology)
        return
    if topology is None:
        raise UserError("--topology is missing; set the chips, such as --topology=v5p:4x4x4")
    compilers.prepare(topology)
    sys.exit(0 if compile_step(config, topology) else 1)


def show_sharding(config: ConfigDict, topology: Topology | None) -> None:
    """Print the sharding of the parameters of a run."""
    if topology:
        os.environ["JAX_PLATFORMS"] = "cpu"  # do not look for these chips here
    from rlp.capacity import summary
    from rlp.engine.placement import abstract_params

    devices = compilers.stand_ins(topology.devices) if topology else None
    run = _build(config, devices, None, "a device")
    print(f"mesh {summary.mesh_text(run.mesh)}")
    print("\n".join(summary.sharding_table(abstract_params(run.method.model, run.mesh))))


def compile_step(config: ConfigDict, topology: Topology) -> bool:
    """Compile a step of a run, print its memory and time, and return whether it fits."""
    from rlp.capacity import compiled_stages, programs, summary
    from rlp.capacity.device_memory import DoesNotFit

    devices, chip = compilers.devices(topology), topology.chip
    try:
        run = _build(config, devices, int(chip.usable()), f"a {chip.name}")
    except DoesNotFit as error:  # the state does not fit, so nothing is compiled
        print(f"does not fit: {error}")
        return False
    spec = _spec(config, run)
    print("\n".join(summary.heading(topology, spec)), flush=True)
    compiled, refused = programs.CompiledStep(), None
    with programs.tracing_for(run.mesh, topology.chip.platform):
        try:
            compiled_stages.compile_stages(programs.Compiler(run.mesh, compiled, _log), spec)
        except programs.OutOfMemory as error:
            refused = error
        fits, lines = summary.whole(topology, spec, compiled, refused)
    print("\n".join(lines))
    return fits


def _spec(config: ConfigDict, run: "RunParts") -> "StepSpec":
    from rlp.capacity.step_spec import StepSpec
    from rlp.run.schedule import build_optimizer

    return StepSpec(
        model=run.method.model,
        settings=run.sampling_settings,
        vocabulary=(run.sampling_method or run.method).vocabulary,
        optimizer=build_optimizer(Config.of(config), config.steps),
        mesh=run.mesh,
        rows=config.batch_size,
        length=config.data.sequence_length,
        table=run.evaluator.table,
    )


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _build(
    config: ConfigDict, devices: Sequence[Any] | None, memory: int | None, name: str
) -> "RunParts":
    """Build the run of a config for some devices; None for those of this machine.

    Args:
      config: the config of the run.
      devices: the devices to build it for.
      memory: bytes per device that the training state must fit into; None for no limit.
      name: name of a device, for messages.

    Raises:
      DoesNotFit: The training state does not fit.
    """
    from rlp.capacity import device_memory
    from rlp.interop import init_from
    from rlp.run import datasets, tasks
    from rlp.run.memory_check import build

    config = copy.deepcopy(init_from.adopt(config, NOWHERE, list(_CONFIG.described.values)))
    unread, sft = "not read here", config.data.sft
    if not datasets.find(config.data.kind).generated:
        files_read = tasks.of(Config.of(config)).files
        config.update_from_flattened_dict({f: value_of(config, f) or unread for f in files_read})
    if sft.train and not (sft.prompt_column or sft.response_column):
        sft.messages_column = sft.messages_column or unread
    limits = device_memory.Limits(memory, name, device_memory.host_memory())
    files = init_from.files_for(config, NOWHERE)
    return build(Config.of(config), files, devices, lambda _: limits, only_state=True)


if __name__ == "__main__":
    program.run(main)
