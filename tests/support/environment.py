"""XLA settings of the tests: compiler options of one program, and flags of all processes."""

import importlib.metadata
import os

_VERSION = tuple(map(int, importlib.metadata.version("jax").split(".")[:2]))

# The programs are small and need no optimization. XLA's older fusion emitters, which were removed
# later, compile several times faster than the new ones.
COMPILER_OPTIONS: dict[str, int | bool] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
} | ({"xla_cpu_use_fusion_emitters": False} if _VERSION < (0, 11) else {})


_FLAGS = {f"--{name}": str(value).lower() for name, value in COMPILER_OPTIONS.items()}


def _user_flags() -> list[str]:
    """Return the flags in XLA_FLAGS that this module does not set."""
    return [
        flag
        for flag in os.environ.get("XLA_FLAGS", "").split()
        if flag.partition("=")[0] not in _FLAGS
    ]


def compile_fast() -> None:
    """Set the flags in this process and for the processes that it starts."""
    flags = [f"{name}={value}" for name, value in _FLAGS.items()]
    os.environ["XLA_FLAGS"] = " ".join([*_user_flags(), *flags])


def of_a_user() -> dict[str, str]:
    """Return the environment of a program that compiles with optimization, as for a user."""
    return os.environ | {"XLA_FLAGS": " ".join(_user_flags())}
