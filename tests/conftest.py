"""Settings of all tests: eight simulated CPU devices, no network, no implicit rank promotion, and
fast compilation."""

import gc
import os
import signal
import tempfile
from collections import Counter
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # also for the programs that tests start
os.environ["HF_HUB_OFFLINE"] = "1"  # tests do not use the network
CACHE = tempfile.TemporaryDirectory()
os.environ["XDG_CACHE_HOME"] = CACHE.name  # runs do not write to the user's cache
# A shell starts background processes with these signals ignored, and child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several torch threads would waste time spinning

# Tests compile much and compute little, so they compile without optimization, also in the processes
# that they start. Exceptions use `environment.of_a_user`: tests that compile for accelerators, and
# the soak test.
from tests.support import environment  # noqa: E402

environment.compile_fast()

import jax  # noqa: E402  reads the environment when imported
import pytest  # noqa: E402

from tests.support.programs import Programs  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
    parser.addoption(
        "--cases", type=int, default=0, help="maximum cases per parametrized test; 0 for all"
    )
    parser.addoption("--tests", type=int, default=0, help="maximum tests per module; 0 for all")


@pytest.hookimpl(trylast=True)  # after -m and -k have removed tests
def pytest_collection_modifyitems(config, items):
    """With --cases=N, select the first N cases of every test; with --tests=N, the first N tests of
    every module."""
    cases, tests = config.getoption("--cases"), config.getoption("--tests")
    seen: dict[str, Counter] = {}
    selected, deselected = [], []
    for item in items:
        module, _, name = item.nodeid.partition("[")[0].rpartition("::")
        counts = seen.setdefault(module, Counter())
        counts[name] += 1
        within = (not cases or counts[name] <= cases) and (not tests or len(counts) <= tests)
        (selected if within else deselected).append(item)
    items[:] = selected
    config.hook.pytest_deselected(items=deselected)


@pytest.fixture(scope="module", autouse=True)
def limit_memory_maps():
    """Drop compiled programs when they use many memory maps.

    Linux allows a process 65,530 maps, and the programs of all tests together would use more.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Start programs of `launch`; see `tests.support.programs`."""
    with Programs(tmp_path_factory.mktemp("programs")) as server:
        yield server
