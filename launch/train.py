"""Trains: `python -m launch.train --config=configs/demo.py --workdir=runs/demo`.

A config with `arms` is an experiment of several runs; any other is one run. The same command goes
on where it was stopped, by SIGTERM (the state is saved, exit status 0) or otherwise.

With --multihost it is one of several processes, each of which is started with the same command.
"""

import contextlib
from collections.abc import Sequence

from absl import flags

from launch import program
from launch.host_flags import HostFlags

_CONFIG = program.define_config()
_WORKDIR = program.define_workdir("folder of the run")
_ALLOW_CONFIG_CHANGE = flags.DEFINE_bool(
    "allow_config_change", False, "go on with a run although its config was another one"
)
_HOSTS = HostFlags()


def main(arguments: Sequence[str]) -> None:
    """Runs the config in the workdir."""
    _HOSTS.check()
    from rlp import hosts  # here: they bring jax, which a wrong flag should not wait for

    with hosts.Joined(*_HOSTS.values()) if _HOSTS.several else contextlib.nullcontext():
        _train()


def _train() -> None:
    from rlp import experiment, hosts, loop
    from rlp.preemption import Preempted

    config = _CONFIG.value
    train = experiment.run if "arms" in config else loop.train
    try:
        train(
            config,
            _WORKDIR.value,
            allow_config_change=_ALLOW_CONFIG_CHANGE.value,
            explicit=program.fields_set_by_hand(),
        )
    except Preempted:
        if hosts.is_first():
            print("stopped by SIGTERM; the state is saved, and the same command goes on from it")


if __name__ == "__main__":
    program.run(main)
