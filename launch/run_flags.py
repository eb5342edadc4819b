"""The flags of programs that run a config in a workdir."""

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
    """--config, --workdir, --allow_config_change, and the flags of several hosts."""

    def __init__(self, workdir: str, unless: str = "") -> None:
        """Define the flags.

        Args:
          workdir: help text of --workdir.
          unless: name of a boolean flag; if that is set, --workdir is not required.
        """
        self._config = config_flags.define()
        self._workdir = program.define_output("workdir", workdir, unless=unless)
        self._allow_config_change = flags.DEFINE_bool(
            "allow_config_change",
            False,
            "resume a run although its config or data have changed",
        )
        self._hosts = HostFlags()

    @property
    def config(self) -> ConfigDict:
        """The config of --config, with the fields that flags set."""
        return self._config.value

    @property
    def spec(self) -> str:
        """The value of --config: "file.py" or "file.py:argument"."""
        return self._config.described.spec

    @property
    def workdir(self) -> str:
        """The value of --workdir."""
        return self._workdir.value

    def joined(self) -> contextlib.AbstractContextManager:
        """Return a context in which this process is one of several, if --multihost is given.

        Raises:
          UserError: The flags of several hosts contradict each other.
        """
        self._hosts.check()
        if not self._hosts.several:
            return contextlib.nullcontext()
        from rlp.runtime import (
            multihost,  # imports jax, so only after the flags were checked
        )

        return multihost.Joined(*self._hosts.values(), facts=self._facts())

    def _facts(self) -> dict[str, Any]:
        """Return what all processes must agree on: the program, its flags, the config."""
        from rlp.runtime import consistency
        from rlp.runtime.config_json import fields

        spec = sys.modules["__main__"].__spec__
        arguments = {
            "the program": spec.name if spec else sys.argv[0],
            "--workdir": self.workdir,
            "--allow_config_change": self._allow_config_change.value,
        }
        return arguments | consistency.config_facts(dict(fields(self.config)))

    def train(self) -> dict[str, Any] | None:
        """Run or resume the config, an experiment or one run, in the workdir.

        Returns:
          The content of summary.json or evaluation.json; None if a signal stopped the run.
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
                signals.die_at_exit(number)  # so that a shell loop ends too
            return None
