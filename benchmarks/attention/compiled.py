"""Compile the attention kernels for accelerators ahead of time, without an accelerator.

    python -m benchmarks.attention.compiled --topology h200:1x1

Compiles forward, backward and decoding for each head size and dtype, for one chip of a topology
(`make compilers` installs the compilers), and prints a Markdown table. For GPUs, the table lists
for each kernel the registers per thread, the bytes of registers spilled to memory, the shared
memory of a thread block, and the number of matrix instructions (wgmma on Hopper, mma before).
"""

import dataclasses
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import command, runs
from rlp.capacity import chips, compilers
from rlp.runtime.errors import UserError

DTYPES = ("bfloat16", "float32")
PTXAS = compilers.FOLDER / "nvidia" / "cu13" / "bin" / "ptxas"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A compiled GPU kernel: registers per thread, bytes, and numbers of matrix instructions."""

    name: str
    registers: int
    spilled: int
    shared_memory: int
    wgmma: int
    mma: int


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    parser = command.Parser(__doc__)
    parser.add_argument("--topology", default="h200:1x1", help="compile for its first chip")
    parser.add_argument("--head_dims", default="64,128,256", help="head sizes, separated by commas")
    parser.add_argument("--dtypes", default="bfloat16", help=f"dtypes out of {','.join(DTYPES)}")
    parser.add_argument(
        "--implementation",
        default="",
        help="implementation of attention; empty = the best one for the chip",
    )
    flags = parser.parse_args(arguments)
    topology = chips.parse_topology(flags.topology)
    dtypes = flags.dtypes.split(",")
    if unknown := sorted(set(dtypes) - set(DTYPES)):
        raise UserError(
            f"--dtypes={flags.dtypes}: {', '.join(unknown)} is not one of {', '.join(DTYPES)}"
        )
    try:
        sizes = [int(size) for size in flags.head_dims.split(",")]
    except ValueError:
        raise UserError(
            f"--head_dims={flags.head_dims!r}: use integers separated by commas, such as 64,128"
        ) from None
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        if topology.chip.platform == "cuda":
            os.environ["XLA_FLAGS"] = f"--xla_dump_to={folder} {os.environ.get('XLA_FLAGS', '')}"
            os.environ |= {"MOSAIC_GPU_DUMP_PTXAS": "1", "MOSAIC_GPU_DUMP_TO": folder}
        compilers.prepare(topology)
        for dtype in dtypes:
            for size in sizes:
                rows += _compile(topology, size, dtype, flags.implementation, Path(folder))
    header = ["head size", "dtype", "pass", "kernel"]
    if topology.chip.platform == "cuda":
        header += ["registers", "spilled B", "shared KiB", "wgmma", "mma"]
    print(runs.markdown([*header, "compiled in s"], rows))
    return 0


def _compile(
    topology: chips.Topology, head_dim: int, dtype: str, implementation: str, folder: Path
) -> list[list[str]]:
    """Return a row of the table for every kernel of every pass."""
    rows = []
    for name, (program, shapes) in _passes(head_dim, dtype, implementation or None).items():
        for file in folder.iterdir():
            file.unlink()
        start = time.perf_counter()
        text = _compiled(topology, program, shapes)
        seconds = f"{time.perf_counter() - start:.1f}"
        lead = [str(head_dim), dtype, name]
        if topology.chip.platform == "cuda":
            for k in gpu_kernels(folder):
                cells = k.registers, k.spilled, f"{k.shared_memory / 1024:.0f}", k.wgmma, k.mma
                rows.append([*lead, k.name, *map(str, cells), seconds])
        else:
            calls = [line for line in text.splitlines() if '"tpu_custom_call"' in line]
            kernels = [re.findall(r"attention_[a-z]+", line)[-1] for line in calls]
            rows += [[*lead, kernel, seconds] for kernel in kernels]
    return rows


def _compiled(topology: chips.Topology, program: Any, shapes: Any) -> str:
    """Compile a program for the first chip of a topology and return its HLO."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from rlp.capacity.programs import tracing_for

    mesh = Mesh(np.array(compilers.devices(topology)[:1]), ("one",))
    whole = NamedSharding(mesh, PartitionSpec())
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes)
    with tracing_for(mesh, topology.chip.platform):
        return jax.jit(program).lower(*shapes).compile().as_text() or ""


def _passes(head_dim: int, dtype: str, implementation: str | None) -> dict[str, Any]:
    """Return the program of each pass and the shapes of its arguments."""
    import jax
    import jax.numpy as jnp

    from models.attention import attention
    from models.mask import Coordinates, Keys

    def case(slots: int) -> tuple:
        batch, trunk, branches, width, heads, kv_heads = 2, 1000, 16, 256, 16, 8
        shape: Any = jax.ShapeDtypeStruct
        at = lambda *sizes: Coordinates(*[shape(sizes, jnp.int32)] * 4)
        keys = lambda at, *s: Keys(shape((*s, head_dim), dtype), shape((*s, head_dim), dtype), at)
        q = shape((batch, branches, slots, heads, head_dim), dtype)
        trunk_keys = keys(at(batch, trunk), batch, kv_heads, trunk)
        branch_keys = keys(at(batch, branches, width), batch, kv_heads, branches, width)
        return q, at(batch, branches, slots), trunk_keys, branch_keys

    def forward(q: Any, at: Any, trunk_keys: Any, branch_keys: Any) -> Any:
        return attention(q, at, trunk_keys, branch_keys, implementation=implementation)

    def backward(q: Any, at: Any, trunk_keys: Any, branch_keys: Any) -> Any:
        def run(q: Any, key: Any, value: Any, branch_key: Any, branch_value: Any) -> Any:
            trunk = Keys(key, value, trunk_keys.at)
            return forward(q, at, trunk, Keys(branch_key, branch_value, branch_keys.at))

        arrays = q, trunk_keys.key, trunk_keys.value, branch_keys.key, branch_keys.value
        out, vjp = jax.vjp(run, *arrays)
        return vjp(out)

    return {"training": (backward, case(256)), "decoding": (forward, case(1))}


def gpu_kernels(folder: Path) -> list[Kernel]:
    """Return the attention kernels that XLA (Triton) and Mosaic GPU have dumped to a folder.

    Raises:
      UserError: If ptxas fails.
    """
    shared: dict[str, int] = {}
    for file in folder.glob("*.thunk_sequence.txt"):
        sizes = re.findall(r"(\w+) grid: .*shared_memory: (\d+) bytes", file.read_text())
        shared |= {name: int(size) for name, size in sizes}
    for file in folder.glob("*.mlir-passes.log"):
        sizes = re.findall(r"dynamic_shared_memory_size %c(\d+)", file.read_text())
        entry = file.name.split("_kernel_")[0] + "_kernel_mosaic_gpu_kernel"
        shared[entry] = max(map(int, sizes), default=0)
    kernels = []
    for file in sorted(folder.glob("*.ptx")):
        text = file.read_text()
        name = re.search(r"\.entry (\w+)", text)
        if name is None or not re.match(r"attention_|\w+_mosaic_gpu_kernel", name[1]):
            continue
        ran = subprocess.run(
            [PTXAS, "-v", "-arch=sm_90a", file, "-o", os.devnull], capture_output=True, text=True
        )
        if ran.returncode:
            raise UserError(f"ptxas failed on {name[1]}: {ran.stderr.strip()}")
        number = lambda pattern, text=ran.stderr: sum(map(int, re.findall(pattern, text)))
        kernels.append(
            Kernel(
                name=name[1].removesuffix("_mosaic_gpu_kernel"),
                registers=number(r"Used (\d+) registers"),
                spilled=number(r"(\d+) bytes spill stores"),
                shared_memory=shared.get(name[1], 0),
                wgmma=text.count("wgmma.mma_async"),
                mma=text.count("mma.sync"),
            )
        )
    return kernels


if __name__ == "__main__":
    command.run(main)
