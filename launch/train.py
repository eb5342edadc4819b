"""Trains: `python -m launch.train --config=configs/demo.py --workdir=runs/demo`.

A config with `arms` is an experiment of several runs; any other is one run. The same command goes
on where it was stopped, by SIGTERM (the state is saved, exit status 0) or otherwise.

With --print_config it prints the config as a config file, every field with its meaning and, if it
differs, its default, and runs nothing.

With --multihost it is one of several processes, each of which is started with the same command.
"""

from collections.abc import Sequence

from absl import flags

from launch import program
from launch.run_flags import RunFlags
from rlp.run.config_text import config_text

_PRINT_CONFIG = flags.DEFINE_bool(
    "print_config", False, "print the config, every field with its meaning, and run nothing"
)
_RUN = RunFlags("folder of the run", unless="print_config")


def main(_: Sequence[str]) -> None:
    """Runs the config in the workdir, or prints it."""
    if _PRINT_CONFIG.value:
        print(config_text(_RUN.config, _RUN.spec))
        return
    with _RUN.joined():
        _RUN.train()


if __name__ == "__main__":
    program.run(main)
