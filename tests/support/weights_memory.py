"""Measure the peak memory of reading and writing weights, in MB:

    JAX_PLATFORMS=cpu MALLOC_MMAP_THRESHOLD_=65536 \\
        python -m tests.support.weights_memory <empty folder> <devices: 1 or 8>
"""

import ctypes
import functools
import gc
import json
import math
import sys
from pathlib import Path

import jax

from rlp.interop.huggingface import read_params, write_folder
from tests.support import standin

MB = 1e6
# 12 layers of 8.4 MB in float32; the largest tensor has 16.8 MB. A copy of all layers would show.
SHAPE = {"layers": 12, "width": 1024, "ffn": 2048, "vocab": 4096}
SHARD = 30  # MB of a file


def status(field):
    """Return a field of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / MB


def growth(function, *args, **options):
    """Return the MB by which a call raised the peak memory of the process."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = status("VmRSS")
    function(*args, **options)
    return status("VmHWM") - before


def resident(params):
    """Return the MB of the parameters on all devices, including replicas."""
    leaves = jax.tree.leaves(params)
    return sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards) / MB


def measure(folder, devices):
    """Return the peaks of writing and reading in MB, without the first calls, which compile."""
    # The largest tensors come last, when all others are already in memory.
    made = sorted(standin.tensors(**SHAPE), key=lambda tensor: math.prod(tensor.shape))
    mesh = {1: (1, 1, 1), 8: (2, 2, 2)}[devices]
    params = standin.on_mesh(standin.params(made, standin.arrays(made)), mesh)
    shardings = standin.shardings(params, mesh)
    figures = {"params": resident(params)}
    write = functools.partial(write_folder, files={}, record={}, shard_bytes=int(SHARD * MB))
    write(folder / "bfloat16", params, made, {}, dtype="bfloat16")
    figures["write"] = growth(write, folder / "float32", params, made, {}, dtype="float32")
    del params
    read_params(folder / "float32", made, shardings)
    figures["read"] = growth(read_params, folder / "bfloat16", made, shardings)
    return figures


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
