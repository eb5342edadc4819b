"""How XLA compiles in tests: options of one program, and flags of all processes."""

import importlib.metadata
import os

_VERSION = tuple(map(int, importlib.metadata.version("jax").split(".")[:2]))

# The programs are small and need no optimization. XLA's older emitters of fusions, which later
# versions do not have, compile several times faster than those in their place.
COMPILER_OPTIONS: dict[str, int | bool] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
} | ({"xla_cpu_use_fusion_emitters": False} if _VERSION < (0, 11) else {})


_FLAGS = {f"--{name}": str(value).lower() for name, value in COMPILER_OPTIONS.items()}


def _given() -> list[str]:
    """Flags of XLA that are not ours."""
    return [
        flag
        for flag in os.environ.get("XLA_FLAGS", "").split()
        if flag.partition("=")[0] not in _FLAGS
    ]


def compile_fast() -> None:
    """Tells it to XLA in this process and in those that it starts."""
    ours = [f"{name}={value}" for name, value in _FLAGS.items()]
    os.environ["XLA_FLAGS"] = " ".join([*_given(), *ours])


def of_a_user() -> dict[str, str]:
    """The environment of a program whose code is optimized, as it is for a user."""
    return os.environ | {"XLA_FLAGS": " ".join(_given())}
