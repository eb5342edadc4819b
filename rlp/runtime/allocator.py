"""Freed memory stays with the process, where JAX computes on a CPU.

XLA's CPU backend takes the temporaries of a program from malloc and frees them when it ends. glibc
gives blocks of that size back to the system at once, and the next program pays for every page
again: about an eighth of an RLP step of a small model. On accelerators the host's memory is for
files and checkpoints, which many threads read; there glibc's own ways are right.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import sys

# Parameters of glibc's mallopt(3) and what they are set to.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
SETTINGS = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}


def keep_freed_memory() -> bool:
    """Tells malloc to keep what is freed; whether it could. Call it before JAX computes.

    Does nothing where JAX may find an accelerator (`JAX_PLATFORMS`, or an installed plugin), or
    where the C library is not glibc.
    """
    if not _computes_on_cpu() or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    done = [mallopt(name, value) for name, value in SETTINGS.items()]
    return all(done)


def _computes_on_cpu() -> bool:
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None
