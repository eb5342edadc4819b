"""Freed memory is reused without new page faults when JAX computes on a CPU, and only then."""

import os
import platform
import subprocess
import sys

import pytest

from rlp.runtime.allocator import keep_freed_memory

SIZE = 2**26
# Prints the page faults of allocating and using a block again after it was used and freed.
PROGRAM = f"""
import ctypes, resource, sys
from rlp.runtime.allocator import keep_freed_memory
print(keep_freed_memory())
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc({SIZE})
    libc.memset(block, 1, {SIZE})
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's mallopt")


def second_use(platforms: str) -> tuple[str, int]:
    """Return the result of `keep_freed_memory` and the page faults."""
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"JAX_PLATFORMS": platforms},
        capture_output=True,
        text=True,
        check=True,
    )
    result, faults = finished.stdout.split()
    return result, int(faults)


@on_glibc
def test_freed_memory_is_kept_on_a_cpu_and_only_there():
    pages = SIZE // os.sysconf("SC_PAGESIZE")
    result, faults = second_use("cpu")
    assert result == "True"
    assert faults < pages // 10
    result, faults = second_use("cuda")
    assert result == "False"
    assert faults > pages // 2


def test_an_installed_plugin_is_an_accelerator(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [group])
    assert not keep_freed_memory()
