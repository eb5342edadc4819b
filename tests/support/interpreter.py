"""Pallas' interpreters of kernels with several threads, with every kernel compiled once.

As they come, they trace and compile the body of a kernel anew for each program of its grid and each
of its threads, which takes most of a test's time. Importing this module makes them keep what they
have compiled, and compile it without optimization. `races` keeps what they find in each kernel.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
from jax._src.pallas.mosaic.interpret import interpret_pallas_call, thread_map
from jax._src.pallas.mosaic.interpret.race_detection_state import RaceDetectionState
from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks

from tests.support import tiny

STATES = ("GPURaceDetectionState", "RaceDetectionState")
MOST = 16  # kernels that are kept: more than a test has

_compiled: dict[int, tuple[Any, Any]] = {}  # the kernel is kept, so that no other gets its id
_lock = threading.Lock()


def _run_jaxpr(jaxpr: Any, consts: Any, *args: Any) -> None:
    """What stands in for the interpreters' own: runs a kernel's body for its effects."""
    with _lock:
        if id(jaxpr) not in _compiled:
            if len(_compiled) == MOST:
                del _compiled[next(iter(_compiled))]
            run = tiny.jit(lambda consts, *args: jax.core.eval_jaxpr(jaxpr, consts, *args))
            _compiled[id(jaxpr)] = jaxpr, run.lower(consts, *args).compile()
        _, run = _compiled[id(jaxpr)]
    run(consts, *args)


assert callable(thread_map._run_jaxpr)
thread_map._run_jaxpr = _run_jaxpr


@contextlib.contextmanager
def races() -> Iterator[list[RaceDetectionState]]:
    """A list of what is found in the kernels that are interpreted within, one after the other. The
    interpreters forget it when the next kernel begins."""
    found = []

    def kept(state: type[RaceDetectionState]) -> Callable[..., RaceDetectionState]:
        def begin(**options: Any) -> RaceDetectionState:
            found.append(state(**options))
            return found[-1]

        return begin

    with contextlib.ExitStack() as stack:
        for module in (interpret_pallas_call, gpu_callbacks):
            # That of GPUs is a class of its own from jax 0.12 on.
            name = next(name for name in STATES if hasattr(module, name))
            begin = kept(getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, begin))
        yield found
