"""The flags with which a program is one of several processes."""

from absl import flags

from rlp.runtime.errors import UserError

flags.disclaim_key_flags()  # --help lists them with the program that defines them


class HostFlags:
    """--multihost, and who the others are where the environment does not say."""

    def __init__(self) -> None:
        """Defines them."""
        self._several = flags.DEFINE_bool("multihost", False, "run as one of several processes")
        self._address = flags.DEFINE_string(
            "coordinator_address",
            None,
            "HOST:PORT of process 0; without it, Cloud TPU, SLURM, GKE or Open MPI say",
        )
        self._number = flags.DEFINE_integer("num_processes", None, "how many there are")
        self._process = flags.DEFINE_integer("process_id", None, "which one this is, from 0")
        self._timeout = flags.DEFINE_integer(
            "join_timeout", 300, "seconds to wait for the other processes", lower_bound=1
        )

    @property
    def several(self) -> bool:
        """Whether --multihost is given."""
        return self._several.value

    def values(self) -> tuple[str | None, int | None, int | None, int]:
        """Address, number of processes, which one this is, seconds to wait."""
        return self._address.value, self._number.value, self._process.value, self._timeout.value

    def check(self) -> None:
        """Raises UserError if they contradict each other."""
        three = (self._address, self._number, self._process)
        given = [f"--{flag.name}" for flag in three if flag.value is not None]
        absent = [f"--{flag.name}" for flag in three if flag.value is None]
        if given and not self.several:
            raise UserError(f"{given[0]} needs --multihost")
        if given and absent:
            raise UserError(
                f"{' and '.join(given)} without {' and '.join(absent)}; give all three, or none "
                "where Cloud TPU, SLURM, GKE or Open MPI say them"
            )
        address, number, process, _ = self.values()
        if address is not None and number is not None and process is not None:
            self._check_three(address, number, process)

    @staticmethod
    def _check_three(address: str, number: int, process: int) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UserError(f"--coordinator_address={address} is not HOST:PORT of process 0")
        if number < 1:
            raise UserError(f"--num_processes={number}; it must be at least 1")
        if not 0 <= process < number:
            raise UserError(
                f"--process_id={process}; with --num_processes={number} it must be in "
                f"[0, {number - 1}]"
            )
