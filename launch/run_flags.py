"""The flags of a program that runs a config in a workdir, and the run they describe."""

import contextlib
import signal
import sys
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from launch import config_flags, program
from launch.host_flags import HostFlags

flags.disclaim_key_flags()  # --help lists them with the program that defines them


class RunFlags:
    """--config, --workdir, --allow_config_change, and those of several hosts."""

    def __init__(self, workdir: str, unless: str = "") -> None:
        """Defines them.

        Args:
          workdir: what its folder is.
          unless: name of a boolean flag with which --workdir may be left out.
        """
        self._config = config_flags.define()
        self._workdir = program.define_output("workdir", workdir, unless=unless)
        self._allow_config_change = flags.DEFINE_bool(
            "allow_config_change",
            False,
            "go on with a run although its config or its data were others",
        )
        self._hosts = HostFlags()

    @property
    def config(self) -> ConfigDict:
        """What --config gives, with the fields that flags set."""
        return self._config.value

    @property
    def spec(self) -> str:
        """The file of the config: "file.py" or "file.py:argument"."""
        return self._config.described.spec

    @property
    def workdir(self) -> str:
        """The folder."""
        return self._workdir.value

    def joined(self) -> contextlib.AbstractContextManager:
        """While entered, this process is one of several, with --multihost.

        Raises:
          UserError: the flags of several hosts contradict each other.
        """
        self._hosts.check()
        if not self._hosts.several:
            return contextlib.nullcontext()
        from rlp.runtime import (
            multihost,  # here: it brings jax, for which no wrong flag should wait
        )

        return multihost.Joined(*self._hosts.values(), facts=self._facts())

    def _facts(self) -> dict[str, Any]:
        """What all processes must have been given alike: the program, its flags, the config."""
        from rlp.runtime import consistency
        from rlp.runtime.config_json import fields

        spec = sys.modules["__main__"].__spec__
        given = {
            "the program": spec.name if spec else sys.argv[0],
            "--workdir": self.workdir,
            "--allow_config_change": self._allow_config_change.value,
        }
        return given | consistency.config_facts(dict(fields(self.config)))

    def train(self) -> dict[str, Any] | None:
        """Runs the config, an experiment or one run, in the workdir, or goes on with it.

        Returns:
          The content of summary.json or evaluation.json; None if a signal stopped it.
        """
        from rlp.run import experiment, loop
        from rlp.runtime import hosts, signals
        from rlp.runtime.preemption import Preempted

        train = experiment.run if "arms" in self.config else loop.train
        try:
            return train(
                self.config,
                self.workdir,
                allow_config_change=self._allow_config_change.value,
                explicit=list(self._config.described.values),
            )
        except Preempted as preempted:
            number = preempted.number
            by = signal.Signals(number).name if number else "a signal to another process"
            if hosts.is_first():
                print(f"stopped by {by}; the state is saved, and the same command resumes from it")
            if number == signal.SIGINT:
                signals.die_at_exit(number)  # a loop of a shell ends with it
            return None
