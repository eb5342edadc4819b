"""What reading and writing hold at the worst moment does not grow with the depth of the model.

To see the figures, in MB, with JAX_PLATFORMS=cpu MALLOC_MMAP_THRESHOLD_=65536 as below:
python -m tests.rlp.interop.huggingface.memory_test <empty folder> <devices: 1 or 8>
"""

import ctypes
import functools
import gc
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from rlp.interop.huggingface import read_params, write_folder
from tests.support import standin
from tests.support.paths import ROOT

MB = 1e6
# 12 layers of 8.4 MB in float32; the largest tensor has 16.8 MB. A copy of a stack would show.
SHAPE = {"layers": 12, "width": 1024, "ffn": 2048, "vocab": 4096}
LARGEST = 4 * 1024 * 4096 / MB
SHARD = 30
NOISE = 8  # for what is no tensor
# What is freed goes back to the system at once, so that what is counted is what is held.
ENVIRONMENT = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}


def status(field):
    """A line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / MB


def growth(function, *args, **options):
    """How many MB of memory the process gained at the worst moment of a call."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = status("VmRSS")
    function(*args, **options)
    return status("VmHWM") - before


def resident(params):
    """MB that the parameters take on all devices, replicas included."""
    leaves = jax.tree.leaves(params)
    return sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards) / MB


def measure(folder, devices):
    """Peaks of writing and of reading; the first of either is not counted, for it compiles."""
    # The largest come last, when all others are there already.
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


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the system counts no peak of its own"
)
@pytest.mark.parametrize("devices", [1, 8])
def test_memory_beyond_the_parameters_is_a_tensor_or_a_file(tmp_path, devices):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.rlp.interop.huggingface.memory_test",
            str(tmp_path),
            str(devices),
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(done.stdout)
    replicas = {1: 1, 8: 2}[devices]
    # The tensor in hand is on the devices, besides its parameter.
    assert figures["read"] < figures["params"] + replicas * LARGEST + NOISE, figures
    # Here it is on the devices, then on the host, then in the list of a file.
    assert figures["write"] < SHARD + (replicas + 1) * LARGEST + NOISE, figures


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
