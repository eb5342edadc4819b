"""Train: `python -m launch.train --config=configs/demo.py --workdir=runs/demo`.

A config with `arms` is an experiment of several runs; any other config is one run. The same command
resumes a run that was stopped by SIGTERM (which saves the state, exit status 0) or otherwise.

--print_config prints the config as a config file, with the meaning of every field and, if its value
differs, its default, and runs nothing.

With --multihost, the program is one of several processes that are started with the same command.
"""

from collections.abc import Sequence

from absl import flags

from launch import program
from launch.run_flags import RunFlags
from rlp.run.config_text import config_text

_PRINT_CONFIG = flags.DEFINE_bool(
    "print_config", False, "print the config with the meaning of every field, and run nothing"
)
_RUN = RunFlags("folder of the run", unless="print_config")


def main(_: Sequence[str]) -> None:
    """Run the config in the workdir, or print it."""
    if _PRINT_CONFIG.value:
        print(config_text(_RUN.config, _RUN.spec))
        return
    with _RUN.joined():
        _RUN.train()


if __name__ == "__main__":
    program.run(main)
