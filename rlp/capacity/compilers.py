"""The devices of a topology: for ahead-of-time compilation, or only to build a mesh.

XLA's compilers for TPUs and NVIDIA GPUs run on any x86-64 Linux machine. Their packages
(requirements-compile.txt) are not installed into the environment of a run, because JAX looks for a
TPU at every start if libtpu can be imported.
"""

import dataclasses
import importlib.util
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rlp.capacity.chips import Topology
from rlp.runtime.errors import UserError

FOLDER = Path(sys.prefix) / "compilers"  # not on the path of a run
MODULES = {"tpu": "libtpu", "cuda": "jax_plugins.xla_cuda13"}

# The target of XLA's GPU compiler: NVIDIA's specifications of the H200 SXM and of compute
# capability 9.0.
_H200 = """
gpu_device_info {
  name: "NVIDIA H200" core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  cuda_compute_capability { major: 9 minor: 0 }
  device_memory_size: 150754820096 memory_bandwidth: 4800000000000 l2_cache_size: 52428800
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 registers_per_block_limit: 65536 registers_per_core_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H200"
"""


@dataclasses.dataclass(frozen=True)
class StandIn:
    """A placeholder device, sufficient for a mesh and its shardings."""

    id: int
    process_index: int = 0
    platform: str = "none"
    device_kind: str = "stand-in"

    @property
    def client(self) -> SimpleNamespace:
        """A client whose process index is that of the device, so that the device is local."""
        return SimpleNamespace(process_index=lambda: self.process_index)

    def addressable_memories(self) -> list[SimpleNamespace]:
        """Return the kinds of memory of accelerators."""
        return [SimpleNamespace(kind=kind) for kind in ("device", "pinned_host")]


def stand_ins(count: int) -> list[StandIn]:
    """Return `count` placeholder devices for a mesh; programs cannot be compiled for them."""
    return [StandIn(number) for number in range(count)]


def prepare(topology: Topology, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the environment variables of the compilers; call it before JAX is imported.

    JAX computes on the CPU only, libtpu does not query the metadata server, and XLA does not
    autotune GPU kernels.

    Raises:
      UserError: If the compiler is not installed.
    """
    environment["JAX_PLATFORMS"] = "cpu"
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # a cache hit would not log warnings
    if topology.chip.platform == "tpu":
        environment["TPU_SKIP_MDS_QUERY"] = "1"
        environment["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # no TPU is used
        environment["TPU_WORKER_HOSTNAMES"] = "localhost"
        environment["TPU_ACCELERATOR_TYPE"] = "v5litepod-16"  # required, but has no effect
        environment["TPU_STDERR_LOG_LEVEL"] = "1"  # warnings, some of which are printed
    else:
        flags = environment.get("XLA_FLAGS", "")
        environment["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()
    if not installed(topology.chip.platform):
        raise UserError(
            f"the compiler for {topology.name} (Python module "
            f"{MODULES[topology.chip.platform]}) is not installed; run `make compilers`"
        )


def installed(platform: str) -> bool:
    """Add `FOLDER` to the path; return whether the compiler of a platform can be imported."""
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    name = MODULES[platform]
    parent = name.partition(".")[0]
    return importlib.util.find_spec(parent) is not None and (
        parent == name or importlib.util.find_spec(name) is not None
    )


def devices(topology: Topology) -> list[Any]:
    """Return the devices of a topology, for ahead-of-time compilation; call `prepare` first.

    Raises:
      UserError: If the compiler rejects the topology.
    """
    import jax
    from jax.experimental import topologies

    options: dict[str, Any] = {"topology_name": topology.name}
    if topology.chip.platform == "cuda":
        nodes, gpus = topology.shape
        options = {"topology_name": topology.chip.name, "target_config": _H200}
        options["topology"] = f"1x{nodes}x{gpus}"
    elif topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"  # the two cores of a chip are one device
    try:
        description = topologies.get_topology_desc(platform=topology.chip.platform, **options)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={topology.name} is not a valid topology: {error}") from error
    return list(description.devices)
