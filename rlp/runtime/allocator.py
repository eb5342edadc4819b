"""Keep freed memory in the process when JAX computes on a CPU.

XLA's CPU backend allocates the temporaries of a program with malloc and frees them when the program
ends. glibc returns blocks of that size to the system at once, so the next program faults in every
page again, which costs about an eighth of an RLP step of a small model. With an accelerator, host
memory is used for files and checkpoints, which many threads read, and glibc's defaults are right.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import sys

# Parameters of glibc's mallopt(3) and their values.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
SETTINGS = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}


def keep_freed_memory() -> bool:
    """Configure malloc to keep freed memory. Call this before JAX computes anything.

    Does nothing if JAX may find an accelerator (`JAX_PLATFORMS`, or an installed plugin), or if the
    C library is not glibc.

    Returns:
      Whether malloc accepted all settings.
    """
    if not _computes_on_cpu() or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    accepted = [mallopt(name, value) for name, value in SETTINGS.items()]
    return all(accepted)


def _computes_on_cpu() -> bool:
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None
