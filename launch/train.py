"""Trains: `python -m launch.train --config=configs/demo.py --workdir=runs/demo`.

A config with `arms` is an experiment of several runs; any other is one run. The same command goes
on where it was stopped, by SIGTERM (the state is saved, exit status 0) or otherwise.

With --multihost it is one of several processes, each of which is started with the same command.
"""

from collections.abc import Sequence

from launch import program
from launch.run_flags import RunFlags

_RUN = RunFlags("folder of the run")


def main(_: Sequence[str]) -> None:
    """Runs the config in the workdir."""
    with _RUN.joined():
        _RUN.train()


if __name__ == "__main__":
    program.run(main)
