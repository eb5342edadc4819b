"""The flags for running a program as one of several processes."""

from absl import flags

from rlp.runtime.errors import UserError

flags.disclaim_key_flags()  # --help lists them with the program that defines them


class HostFlags:
    """--multihost, and the other processes if the environment does not define them."""

    def __init__(self) -> None:
        """Define the flags."""
        self._several = flags.DEFINE_bool("multihost", False, "run as one of several processes")
        self._address = flags.DEFINE_string(
            "coordinator_address",
            None,
            "HOST:PORT of process 0; the default is that of Cloud TPU, SLURM, GKE or Open MPI",
        )
        self._number = flags.DEFINE_integer("num_processes", None, "number of processes")
        self._process = flags.DEFINE_integer("process_id", None, "number of this process, from 0")
        self._timeout = flags.DEFINE_integer(
            "join_timeout", 300, "seconds to wait for the other processes", lower_bound=1
        )

    @property
    def several(self) -> bool:
        """Whether --multihost is given."""
        return self._several.value

    def values(self) -> tuple[str | None, int | None, int | None, int]:
        """Return address, number of processes, number of this process, seconds to wait."""
        return self._address.value, self._number.value, self._process.value, self._timeout.value

    def check(self) -> None:
        """Raise a UserError if the flags contradict each other."""
        three = (self._address, self._number, self._process)
        given = [f"--{flag.name}" for flag in three if flag.value is not None]
        absent = [f"--{flag.name}" for flag in three if flag.value is None]
        if given and not self.several:
            raise UserError(f"{given[0]} needs --multihost")
        if given and absent:
            raise UserError(
                f"{' and '.join(given)} without {' and '.join(absent)}; set all three, or none "
                "on Cloud TPU, SLURM, GKE or with Open MPI"
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
