"""Whether a run fits into memory, told from shapes before anything is made.

    limits     what memory a device has, and the host
    Need       some bytes that are alive on one device, and the fields they grow with
    check      refuses needs that certainly do not fit

Every need is a lower bound: what is alive in any case, whatever the compiler does. So a run that is
refused here could not have run, and one that passes may still run out of memory. What a step needs
exactly, `python -m launch.compile` says.
"""

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

from rlp.runtime.display import readable_bytes
from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


class DoesNotFit(UserError):
    """What is asked for needs more memory than there is."""


@dataclasses.dataclass(frozen=True)
class Need:
    """Memory that something takes on one device, at the least.

    Attributes:
      what: for the message.
      size: bytes.
      fields: dotted path of every field that the bytes are proportional to, and its value.
      limit_field: the field that cuts this into smaller pieces; "" if there is none, or if the
        pieces cannot be smaller.
    """

    what: str
    size: int
    fields: Mapping[str, int]
    limit_field: str = ""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Memory of one machine.

    Attributes:
      device: bytes that one device may use; None where that is not known.
      name: of a device, for messages.
      host: bytes that this process may use on its host; None where that is not known.
      sharing: devices that have their memory from the host; 0 where they have their own.
    """

    device: int | None
    name: str
    host: int | None
    sharing: int = 0


def limits(devices: Sequence[jax.Device]) -> Limits:
    """The memory of devices of this process, of which the smallest one counts.

    CPU devices share the memory of the host. A limit that is not known gives a warning.
    """
    host, name = host_memory(), devices[0].device_kind
    if devices[0].platform == "cpu":
        count, size = len(devices), f" {readable_bytes(host)}" if host else " it"
        name = f"each of the {count} CPU devices that share{size}" if count > 1 else "the CPU"
        found = Limits(host // count if host else None, name, host, count)
    else:
        known = [_bytes_limit(device) for device in devices]
        least = None if None in known else min(size for size in known if size is not None)
        found = Limits(least, f"a {name}", host)
    if found.device is None:
        LOGGER.warning("how much memory %s has is not known, so nothing is checked", found.name)
    return found


def _bytes_limit(device: jax.Device) -> int | None:
    try:
        return (device.memory_stats() or {}).get("bytes_limit")
    except (NotImplementedError, jax.errors.JaxRuntimeError):  # the backend does not say
        return None


def check(
    needs: Sequence[Need], limits: Limits, purpose: str, on_host: Sequence[Need] = ()
) -> None:
    """Refuses what is alive at one time and does not fit into memory.

    Args:
      needs: all of it, on one device.
      limits: of the device and the host.
      purpose: what needs it.
      on_host: what this process needs in the memory of the host.

    Raises:
      DoesNotFit: with the bytes, and the field to lower.
    """
    if limits.sharing:
        share = lambda need: dataclasses.replace(need, size=need.size // limits.sharing)
        needs, on_host = [*needs, *map(share, on_host)], ()
    _check(needs, limits.device, limits.name, purpose, "of each device")
    _check(on_host, limits.host, "this machine", purpose, "of the host's memory")


def _check(needs: Sequence[Need], limit: int | None, name: str, purpose: str, where: str) -> None:
    total = sum(need.size for need in needs)
    if limit is None or total <= limit:
        return
    large = [need for need in needs if need.size * 100 >= total]
    parts = ", ".join(f"{need.what} {readable_bytes(need.size)}" for need in large)
    raise DoesNotFit(
        f"{purpose} needs at least {total:,} bytes {where} ({parts}), and {name} has {limit:,} "
        f"({readable_bytes(limit)}); {_cure(max(needs, key=lambda need: need.size))}"
    )


def _cure(need: Need) -> str:
    """Which field to lower: of those that the bytes grow with, the largest one."""
    field = max(need.fields, key=lambda name: need.fields[name])
    cut = f", or set {need.limit_field}" if need.limit_field else ""
    return f"lower {field} (it is {need.fields[field]}){cut}"


def host_memory() -> int | None:
    """Bytes that this process may use, swap included; None where that is not known.

    The memory of the machine, or less where a control group or `ulimit -v` allows less.
    """
    known = [_machine_memory(), _address_space(), *_group_limits()]
    return min((size for size in known if size is not None), default=None)


def _meminfo() -> dict[str, int]:
    """Bytes by name, of Linux."""
    path = PROC / "meminfo"
    if not path.is_file():
        return {}
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}


def _machine_memory() -> int | None:
    found = _meminfo()
    if "MemTotal" in found:
        return found["MemTotal"] + found.get("SwapTotal", 0)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not a Unix, or one that does not say
        return None


def _address_space() -> int | None:
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _group_limits() -> Iterator[int]:
    """The limits of the control groups that this process is in, of version 1 or 2."""
    swap = _meminfo().get("SwapTotal", 0)
    for folder in _groups():
        second = _number(folder / "memory.max")
        if second is not None:
            most = _number(folder / "memory.swap.max")
            yield second + (swap if most is None else min(most, swap))
        first = _number(folder / "memory.limit_in_bytes")
        if first is not None:
            both = _number(folder / "memory.memsw.limit_in_bytes")
            yield first + swap if both is None else min(both, first + swap)


def _groups() -> Iterator[Path]:
    """Folders of the memory control groups of this process, those above them included."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            root, inside = CGROUPS / ("memory" if controllers else ""), Path(path.lstrip("/"))
            # In a container the path may be that of the host; then the root is the group.
            yield from (root / folder for folder in (inside, *inside.parents))


def _number(path: Path) -> int | None:
    """The number in a file; None if there is no such file, or no number in it ("max")."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
