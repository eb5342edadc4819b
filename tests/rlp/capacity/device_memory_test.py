"""A run that cannot fit is refused with bytes and field; one that may fit is not refused."""

import logging
import types

import jax
import pytest

from rlp.capacity import device_memory
from rlp.capacity.device_memory import DoesNotFit, Limits, Need
from rlp.runtime.display import readable_bytes

GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine(meminfo, cgroup, files)` sets files of Linux, and returns the detected memory."""
    monkeypatch.setattr(device_memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(device_memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(device_memory, "_address_space", lambda: None)

    def memory(cgroup, files, total=32, swap=0):
        (tmp_path / "proc" / "self").mkdir(parents=True)
        kib = lambda gib: gib * 2**20
        meminfo = f"MemTotal: {kib(total)} kB\nMemFree: 1 kB\nSwapTotal: {kib(swap)} kB\nHuge: 0\n"
        (tmp_path / "proc" / "meminfo").write_text(meminfo)
        (tmp_path / "proc" / "self" / "cgroup").write_text(cgroup)
        for name, content in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        memory = device_memory.host_memory()
        assert memory is not None
        return memory / GIB

    return memory


V2, V1 = "0::/jobs/mine\n", "5:cpu:/\n4:cpuset,memory:/jobs/mine\n0::/\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "memory"),
    [
        pytest.param("", {}, 36, id="no group: the machine's, and its swap"),
        pytest.param(V2, {"jobs/mine/memory.max": "max"}, 36, id="no limit"),
        pytest.param(
            V2,
            {"jobs/mine/memory.max": 8 * GIB, "jobs/mine/memory.swap.max": 0},
            8,
            id="version 2",
        ),
        pytest.param(
            V2,
            {"jobs/mine/memory.max": 8 * GIB, "jobs/mine/memory.swap.max": "max"},
            12,
            id="version 2, which may swap",
        ),
        pytest.param(
            V2,
            {
                "jobs/memory.max": 4 * GIB,
                "jobs/memory.swap.max": 0,
                "jobs/mine/memory.max": 8 * GIB,
            },
            4,
            id="a smaller limit above",
        ),
        pytest.param(
            V2, {"memory.max": 2 * GIB, "memory.swap.max": 0}, 2, id="a container of version 2"
        ),
        pytest.param(
            V1,
            {
                "memory/jobs/mine/memory.limit_in_bytes": 8 * GIB,
                "memory/jobs/mine/memory.memsw.limit_in_bytes": 9 * GIB,
            },
            9,
            id="version 1",
        ),
        pytest.param(
            V1, {"memory/memory.limit_in_bytes": 3 * GIB}, 7, id="a container of version 1"
        ),
        pytest.param(
            V1, {"memory/memory.limit_in_bytes": 9223372036854771712}, 36, id="version 1, no limit"
        ),
    ],
)
def test_the_memory_of_a_host_is_what_its_control_groups_leave(machine, cgroup, files, memory):
    assert machine(cgroup, files, total=32, swap=4) == memory


def test_a_limit_of_the_shell_counts(monkeypatch):
    unlimited = device_memory.host_memory()
    assert unlimited is not None
    limits = lambda _: (unlimited // 2, device_memory.resource.RLIM_INFINITY)
    monkeypatch.setattr(device_memory.resource, "getrlimit", limits)
    assert device_memory.host_memory() == unlimited // 2


def test_cpu_devices_share_the_memory_of_the_host(monkeypatch):
    monkeypatch.setattr(device_memory, "host_memory", lambda: 64 * GIB)
    assert len(jax.local_devices()) == 8
    assert device_memory.limits(jax.local_devices()).device == 8 * GIB
    assert device_memory.limits(jax.local_devices()[:1]).device == 64 * GIB


def accelerator(stats):
    def memory_stats():
        if isinstance(stats, Exception):
            raise stats
        return stats

    return types.SimpleNamespace(platform="cuda", device_kind="H1", memory_stats=memory_stats)


def test_an_accelerator_has_its_own_limit(caplog):
    devices = [accelerator({"bytes_limit": 9 * GIB}), accelerator({"bytes_limit": 8 * GIB})]
    actual = device_memory.limits(devices)
    assert (actual.device, actual.name, actual.sharing) == (8 * GIB, "a H1", 0)
    assert caplog.text == ""


@pytest.mark.parametrize("stats", [None, {}, NotImplementedError()])
def test_a_limit_that_is_not_known_is_one_warning(caplog, stats):
    with caplog.at_level(logging.WARNING):
        actual = device_memory.limits([accelerator({"bytes_limit": GIB}), accelerator(stats)])
    assert actual.device is None
    assert len(caplog.records) == 1
    device_memory.check([Need("caches", 2**200, {"batch_size": 1})], actual, "a step")


NEEDS = [
    Need("parameters", 600, {"model.vocab_size": 50, "model.hidden_size": 12}),
    Need("caches", 400, {"rlp.group_size": 4}, "rlp.max_branches_in_flight"),
]


def test_the_bound_itself_fits_and_one_byte_less_does_not():
    device_memory.check(NEEDS, Limits(1000, "a H1", None), "a step")
    with pytest.raises(DoesNotFit) as caught:
        device_memory.check(NEEDS, Limits(999, "a H1", None), "a step")
    said = ("a step needs at least 1,000 bytes", "parameters 600", "caches 400", "a H1 has 999")
    assert all(words in str(caught.value) for words in said)
    assert str(caught.value).endswith("; lower model.vocab_size (it is 50)")
    with pytest.raises(DoesNotFit, match=r"lower rlp\.group_size \(it is 4\), or set rlp\.max_b"):
        device_memory.check(NEEDS[1:], Limits(399, "a H1", None), "a step")


def test_the_host_has_a_limit_of_its_own_where_devices_have_theirs():
    device_memory.check(NEEDS, Limits(1000, "a H1", 400), "a step", NEEDS[1:])
    with pytest.raises(DoesNotFit, match="400 bytes of host memory"):
        device_memory.check(NEEDS, Limits(1000, "a H1", 399), "a step", NEEDS[1:])


def test_what_the_host_needs_is_shared_by_cpu_devices():
    device_memory.check(NEEDS, Limits(1100, "the CPU", 4400, sharing=4), "a step", NEEDS[1:])
    with pytest.raises(DoesNotFit):
        device_memory.check(NEEDS, Limits(1099, "the CPU", 4396, sharing=4), "a step", NEEDS[1:])


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1 KiB"), (1536 * 2**20, "1.5 GiB"),
     (2**31 * 1000, "1.95 TiB"), (200 * 2**30, "200 GiB"), (2**64, "16 EiB"),
     (10**400, f"{10**400 >> 60:,} EiB")],
)  # fmt: skip
def test_bytes_as_a_person_reads_them(size, text):
    assert readable_bytes(size) == text
