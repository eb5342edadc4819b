"""The peak memory of reading and writing does not grow with the number of layers."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.weights_memory import MB, SHAPE, SHARD

LARGEST = 4 * SHAPE["width"] * SHAPE["vocab"] / MB
NOISE = 8  # MB for objects that are not tensors
# Return freed memory to the system at once, so that only memory in use is counted.
ENVIRONMENT = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK),
    reason="the system does not measure peak memory",
)
@pytest.mark.parametrize("devices", [1, 8])
def test_memory_beyond_the_parameters_is_a_tensor_or_a_file(tmp_path, devices):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.weights_memory",
            str(tmp_path),
            str(devices),
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    peaks = json.loads(done.stdout)
    replicas = {1: 1, 8: 2}[devices]
    # The current tensor is on the devices, in addition to its parameter.
    assert peaks["read"] < peaks["params"] + replicas * LARGEST + NOISE, peaks
    # A tensor is on the devices, then on the host, then in the list of a shard.
    assert peaks["write"] < SHARD + (replicas + 1) * LARGEST + NOISE, peaks
