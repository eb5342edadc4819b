"""What reading and writing hold at the worst moment does not grow with the depth of the model."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.weights_memory import MB, SHAPE, SHARD

LARGEST = 4 * SHAPE["width"] * SHAPE["vocab"] / MB
NOISE = 8  # for what is no tensor
# What is freed goes back to the system at once, so that what is counted is what is held.
ENVIRONMENT = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the system counts no peak of its own"
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
    figures = json.loads(done.stdout)
    replicas = {1: 1, 8: 2}[devices]
    # The tensor in hand is on the devices, besides its parameter.
    assert figures["read"] < figures["params"] + replicas * LARGEST + NOISE, figures
    # Here it is on the devices, then on the host, then in the list of a file.
    assert figures["write"] < SHARD + (replicas + 1) * LARGEST + NOISE, figures
