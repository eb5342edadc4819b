"""Check whether a run fits into memory, from shapes, before any array is allocated.

    limits     memory of a device and of the host
    Need       bytes that are live on one device, and the fields that they grow with
    check      raises if needs certainly do not fit

Every need is a lower bound of the live bytes, whatever the compiler does. So a run that is refused
could not have run, and one that passes may still run out of memory. `python -m launch.compile`
reports the exact memory of a step.
"""

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax

try:
    import resource
except ImportError:  # not on Unix
    resource = None  # type: ignore[assignment]

from rlp.runtime.display import readable_bytes
from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


class DoesNotFit(UserError):
    """A run needs more memory than is available."""


@dataclasses.dataclass(frozen=True)
class Need:
    """A lower bound of the memory of some arrays on one device.

    Attributes:
      what: description for the error.
      size: bytes.
      fields: from the dotted path of every field that the bytes are proportional to, to its value.
      limit_field: the field that splits these arrays into smaller batches; "" if there is none, or
        if the batches cannot be smaller.
    """

    what: str
    size: int
    fields: Mapping[str, int]
    limit_field: str = ""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Available memory of one machine.

    Attributes:
      device: bytes that one device can use; None if unknown.
      name: of a device, for the error.
      host: bytes of host memory that this process can use; None if unknown.
      sharing: number of devices that share host memory; 0 if devices have their own memory.
    """

    device: int | None
    name: str
    host: int | None
    sharing: int = 0


def limits(devices: Sequence[jax.Device]) -> Limits:
    """Return the memory of the smallest of this process's devices.

    CPU devices share host memory equally. Logs a warning if the memory of a device is unknown.
    """
    host, name = host_memory(), devices[0].device_kind
    if devices[0].platform == "cpu":
        count, size = len(devices), f" {readable_bytes(host)}" if host else " host memory"
        name = f"each of the {count} CPU devices that share{size}" if count > 1 else "the CPU"
        result = Limits(host // count if host else None, name, host, count)
    else:
        known = [_bytes_limit(device) for device in devices]
        least = None if None in known else min(size for size in known if size is not None)
        result = Limits(least, f"a {name}", host)
    if result.device is None:
        LOGGER.warning("the memory of %s is unknown, so memory is not checked", result.name)
    return result


def _bytes_limit(device: jax.Device) -> int | None:
    try:
        return (device.memory_stats() or {}).get("bytes_limit")
    except (NotImplementedError, jax.errors.JaxRuntimeError):  # not supported by the backend
        return None


def check(
    needs: Sequence[Need], limits: Limits, purpose: str, on_host: Sequence[Need] = ()
) -> None:
    """Check that arrays that are live at the same time fit into memory.

    Args:
      needs: of one device.
      limits: of a device and the host.
      purpose: what needs the memory, for the error.
      on_host: needs of this process in host memory.

    Raises:
      DoesNotFit: If they do not fit; names the bytes and the field to lower.
    """
    if limits.sharing:
        share = lambda need: dataclasses.replace(need, size=need.size // limits.sharing)
        needs, on_host = [*needs, *map(share, on_host)], ()
    _check(needs, limits.device, limits.name, purpose, "per device")
    _check(on_host, limits.host, "this machine", purpose, "of host memory")


def _check(needs: Sequence[Need], limit: int | None, name: str, purpose: str, where: str) -> None:
    total = sum(need.size for need in needs)
    if limit is None or total <= limit:
        return
    large = [need for need in needs if need.size * 100 >= total]
    parts = ", ".join(f"{need.what} {readable_bytes(need.size)}" for need in large)
    raise DoesNotFit(
        f"{purpose} needs at least {total:,} bytes {where} ({parts}), but {name} has {limit:,} "
        f"({readable_bytes(limit)}); {_cure(max(needs, key=lambda need: need.size))}"
    )


def _cure(need: Need) -> str:
    """Return which field to lower: the largest one that the bytes are proportional to."""
    field = max(need.fields, key=lambda name: need.fields[name])
    or_limit = f", or set {need.limit_field}" if need.limit_field else ""
    return f"lower {field} (it is {need.fields[field]}){or_limit}"


def host_memory() -> int | None:
    """Return the bytes that this process can use, including swap; None if unknown.

    This is the memory of the machine, or a lower limit of a control group or of `ulimit -v`.
    """
    known = [_machine_memory(), _address_space(), *_group_limits()]
    return min((size for size in known if size is not None), default=None)


def _meminfo() -> dict[str, int]:
    """Return /proc/meminfo of Linux, in bytes by name."""
    path = PROC / "meminfo"
    if not path.is_file():
        return {}
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}


def _machine_memory() -> int | None:
    meminfo = _meminfo()
    if "MemTotal" in meminfo:
        return meminfo["MemTotal"] + meminfo.get("SwapTotal", 0)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on Unix, or not supported
        return None


def _address_space() -> int | None:
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _group_limits() -> Iterator[int]:
    """Yield the memory limits of this process's control groups (cgroup v1 and v2), with swap."""
    swap = _meminfo().get("SwapTotal", 0)
    for folder in _groups():
        limit_v2 = _number(folder / "memory.max")
        if limit_v2 is not None:
            swap_limit = _number(folder / "memory.swap.max")
            yield limit_v2 + (swap if swap_limit is None else min(swap_limit, swap))
        limit_v1 = _number(folder / "memory.limit_in_bytes")
        if limit_v1 is not None:
            total = _number(folder / "memory.memsw.limit_in_bytes")
            yield limit_v1 + swap if total is None else min(total, limit_v1 + swap)


def _groups() -> Iterator[Path]:
    """Yield the folders of this process's memory control groups and of their parents."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            root, inside = CGROUPS / ("memory" if controllers else ""), Path(path.lstrip("/"))
            # In a container, the path may be that on the host; then the root is the group.
            yield from (root / folder for folder in (inside, *inside.parents))


def _number(path: Path) -> int | None:
    """Return the number in a file; None if it does not exist or has another content ("max")."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
