"""Print one JSON line about the device of this machine, its driver and the versions of JAX.

    python -m benchmarks.accelerator.device

This is a program of its own, since a process in which JAX has found a device keeps its memory or
the device itself, so that no measurement could start after it.
"""

import importlib.metadata
import json
import shutil
import subprocess
from typing import Any

from benchmarks import command

DRIVER = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    command.Parser(__doc__).parse_args(arguments)
    print(json.dumps(describe()), flush=True)
    return 0


def describe() -> dict[str, Any]:
    """Return the facts on which measurements depend; `devices` is a number, the others are text."""
    import jax  # slow; only after the command line has been checked

    return {
        "backend": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "driver": _driver(),
        "runtime": " ".join(jax.devices()[0].client.platform_version.split()),
        **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
    }


def _driver() -> str:
    """Return the version of NVIDIA's driver; "" without one."""
    if not shutil.which(DRIVER[0]):
        return ""
    ran = subprocess.run(DRIVER, capture_output=True, text=True, check=False)
    return ran.stdout.partition("\n")[0].strip() if ran.returncode == 0 else ""


if __name__ == "__main__":
    command.run(main)
