"""Make Pallas' interpreters of multi-threaded kernels compile every kernel only once.

By default they trace and compile the body of a kernel again for each program of its grid and each
of its threads, which takes most of the time of a test. Importing this module makes them cache the
compiled code, and compile it without optimization. `races` collects the data races of each kernel.
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
MOST = 16  # cached kernels, more than a test has

_compiled: dict[int, tuple[Any, Any]] = {}  # keeps the jaxpr too, so that its id is not reused
_lock = threading.Lock()


def _run_jaxpr(jaxpr: Any, consts: Any, *args: Any) -> None:
    """Run the body of a kernel for its effects, in place of the function of the interpreters."""
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
    """Yield a list to which the race detection state of each interpreted kernel is appended.

    The interpreters themselves discard the state when the next kernel begins.
    """
    states = []

    def recorded(state: type[RaceDetectionState]) -> Callable[..., RaceDetectionState]:
        def begin(**options: Any) -> RaceDetectionState:
            states.append(state(**options))
            return states[-1]

        return begin

    with contextlib.ExitStack() as stack:
        for module in (interpret_pallas_call, gpu_callbacks):
            # GPUs have their own class from jax 0.12 on.
            name = next(name for name in STATES if hasattr(module, name))
            begin = recorded(getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, begin))
        yield states
