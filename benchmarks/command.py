"""What the programs of this folder share: flags, a start that refuses with one line, CPUs."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from rlp.runtime.allocator import keep_freed_memory
from rlp.runtime.errors import UserError


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and a description as it was written."""


class Parser(argparse.ArgumentParser):
    """A parser of flags whose complaint is a UserError, and so one line."""

    def __init__(self, description: str | None):
        spec = sys.modules["__main__"].__spec__
        name = f"python -m {spec.name.removesuffix('.__main__')}" if spec else None
        super().__init__(name, description=description, allow_abbrev=False, formatter_class=_Help)

    def error(self, message: str) -> NoReturn:
        """Refuses the command line."""
        raise UserError(message)


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Runs a program and exits with what it returns; a UserError is one line on stderr and 2."""
    keep_freed_memory()  # as the product's programs do
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def cpus(threads: int) -> set[int]:
    """The first `threads` CPUs of those that this process may use.

    Raises:
      UserError: there are fewer.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed):
        raise UserError(f"--threads={threads}, but this process may use {len(allowed)} CPU(s)")
    return set(allowed[:threads])
