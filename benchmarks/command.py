"""Shared code of the benchmark programs: flags, one-line errors, and CPUs."""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from benchmarks import fields
from rlp.runtime.allocator import keep_freed_memory
from rlp.runtime.errors import UserError


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show defaults, and the description without reformatting."""


class Parser(argparse.ArgumentParser):
    """A parser of flags that raises UserError, so that `run` prints one line."""

    def __init__(self, description: str | None):
        spec = sys.modules["__main__"].__spec__
        name = f"python -m {spec.name.removesuffix('.__main__')}" if spec else None
        super().__init__(name, description=description, allow_abbrev=False, formatter_class=_Help)

    def error(self, message: str) -> NoReturn:
        """Raise a UserError."""
        raise UserError(message)


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Run a program and exit with the status it returns, or print a UserError and exit with 2."""
    keep_freed_memory()  # as the programs in launch/ do
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def cpus(threads: int) -> set[int]:
    """Return the first `threads` CPUs of those that this process may use.

    Raises:
      UserError: If there are fewer.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed):
        raise UserError(
            f"--threads={threads}, but this process may use {len(allowed)} CPU(s); lower it"
        )
    return set(allowed[:threads])


def measure(arguments: list[str], description: str | None, kind: type, timing: str) -> int:
    """Time a workload and print its JSON line; return the exit status.

    Args:
      arguments: the command line.
      description: of the program, for its help.
      kind: the workload, a dataclass with a flag for each field.
      timing: name of the module whose `measure` times it. It is imported here, because it imports
        jax: after the command line was checked, and after the CPUs were chosen, since XLA starts
        one thread for each allowed CPU when it first computes.
    """
    parser = Parser(description)
    fields.add_flags(parser, kind)
    sizes = kind(**fields.values(parser.parse_args(arguments), kind))
    os.sched_setaffinity(0, cpus(sizes.threads))
    print(json.dumps(importlib.import_module(timing).measure(sizes)), flush=True)
    return 0
