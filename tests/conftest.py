"""One setting for all tests: CPU, eight simulated devices, no network, no silent broadcasting, and
compiling fast."""

import gc
import os
import signal
import tempfile
from collections import Counter
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # also for the programs that tests start
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network
CACHE = tempfile.TemporaryDirectory()
os.environ["XDG_CACHE_HOME"] = CACHE.name  # runs keep nothing in the user's own cache
# A shell ignores them in what it runs in the background, and programs that tests start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads would wait for each other, spinning

# Tests compile much and compute little, so what they run is not optimized: neither here nor in the
# processes that they start. As a user has it (`environment.of_a_user`) are those that compile for
# accelerators, and runs that are killed at random moments.
from tests.support import environment  # noqa: E402

environment.compile_fast()

import jax  # noqa: E402  reads the environment when imported
import pytest  # noqa: E402

from tests.support.programs import Programs  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
    parser.addoption(
        "--cases", type=int, default=0, help="most cases of a parametrised test; 0 for all"
    )
    parser.addoption("--tests", type=int, default=0, help="most tests of a module; 0 for all")


@pytest.hookimpl(trylast=True)  # what -m and -k leave out is gone
def pytest_collection_modifyitems(config, items):
    """With --cases=N, the first N cases of every test; with --tests=N, the first N tests of every
    module: whether it works here at all."""
    cases, tests = config.getoption("--cases"), config.getoption("--tests")
    seen: dict[str, Counter] = {}
    kept, left_out = [], []
    for item in items:
        module, _, name = item.nodeid.partition("[")[0].rpartition("::")
        counts = seen.setdefault(module, Counter())
        counts[name] += 1
        few = (not cases or counts[name] <= cases) and (not tests or len(counts) <= tests)
        (kept if few else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="module", autouse=True)
def room_for_compiled_programs():
    """Every compiled program holds memory maps, of which Linux grants a process 65,530; all tests
    together would need more."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Starts programs of `launch`; see `tests.support.programs`."""
    with Programs(tmp_path_factory.mktemp("programs")) as made:
        yield made
