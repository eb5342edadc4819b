"""Trains: `python -m launch.train --config=configs/demo.py --workdir=runs/demo`.

A config with `arms` is an experiment of several runs; any other is one run. The same command goes
on where it was stopped, by SIGTERM (the state is saved, exit status 0) or otherwise.
"""

from collections.abc import Sequence

from absl import flags

from launch import program

_CONFIG = program.define_config()
_WORKDIR = program.define_workdir("folder of the run")
_ALLOW_CONFIG_CHANGE = flags.DEFINE_bool(
    "allow_config_change", False, "go on with a run although its config was another one"
)


def main(arguments: Sequence[str]) -> None:
    """Runs the config in the workdir."""
    from rlp import experiment, loop  # here: they bring jax, which a wrong flag should not wait for
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
        print("stopped by SIGTERM; the state is saved, and the same command goes on from it")


if __name__ == "__main__":
    program.run(main)
