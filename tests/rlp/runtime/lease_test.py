"""Only one process at a time holds a folder, on file systems with and without locks."""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from rlp.runtime import lease, run_folder
from rlp.runtime.errors import UserError
from tests.support.paths import ROOT

HOLD = """
import sys, time
from pathlib import Path
from rlp.runtime import lease
with lease.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
ELSEWHERE = lease.Owner("host-b", "another boot", 4711, "2026-11-29 10:02:00 UTC", "abc")


@pytest.fixture
def quick(monkeypatch):
    """Make leases expire after 0.6 s."""
    monkeypatch.setattr(lease, "RENEWED_EVERY_S", 0.05)
    monkeypatch.setattr(lease, "EXPIRES_AFTER_S", 0.6)
    monkeypatch.setattr(lease, "SETTLES_IN_S", 0.2)


@pytest.fixture
def no_locks(monkeypatch):
    """Simulate a file system without locks."""
    monkeypatch.setattr(lease, "_lock", lambda path: (None, False))


@pytest.fixture
def locks_of_this_machine(monkeypatch):
    """Simulate a network file system whose locks work within one machine only."""
    monkeypatch.setattr(lease, "_file_system", lambda folder: "nfs4")


def left_by(owner, folder):
    """Write the lease of a process that has ended."""
    folder.mkdir(exist_ok=True)
    lease._write(folder / run_folder.LEASE, owner)


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds a folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_folder_is_held_and_let_go(tmp_path):
    folder = tmp_path / "a" / "run"
    with lease.held(folder) as held:
        held.check()
        content = json.loads((folder / run_folder.LEASE).read_text())
        assert (content["pid"], content["renewals"]) == (os.getpid(), 0)
    assert contents(tmp_path) == []  # the folders that were created for the lease are removed


def test_what_a_run_wrote_stays(tmp_path):
    with lease.held(tmp_path / "run"):
        (tmp_path / "run" / "config.json").write_text("{}")
    assert contents(tmp_path / "run") == ["config.json"]


def test_an_error_lets_go(tmp_path):
    with pytest.raises(RuntimeError), lease.held(tmp_path):
        raise RuntimeError
    with lease.held(tmp_path):
        pass


def test_another_process_is_refused_at_once_by_its_number(tmp_path, holder):
    content = (tmp_path / "run" / run_folder.LEASE).read_bytes()
    for _ in range(2):
        message = rf"run is being trained by process {holder.pid} on "
        with pytest.raises(UserError, match=message), lease.held(tmp_path / "run"):
            pass
    assert (tmp_path / "run" / run_folder.LEASE).read_bytes() == content


def test_a_suspended_process_still_holds_its_folder(tmp_path, holder):
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match=str(holder.pid)), lease.held(tmp_path / "run"):
        pass
    holder.send_signal(signal.SIGCONT)


def test_after_a_kill_the_next_process_does_not_wait(tmp_path, holder):
    holder.kill()
    holder.wait()
    start = time.monotonic()
    with lease.held(tmp_path / "run") as held:
        held.check()
    assert time.monotonic() - start < 5  # not EXPIRES_AFTER_S


def test_one_of_many_that_start_at_once_gets_the_folder(tmp_path):
    """Threads are sufficient here, because a lock belongs to a file descriptor."""
    outcomes, start = [], threading.Barrier(8)

    def take():
        start.wait()
        try:
            with lease.held(tmp_path):
                outcomes.append("held")
                time.sleep(0.5)
        except UserError:
            outcomes.append("refused")

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held"] + ["refused"] * 7


def test_a_lease_from_elsewhere_that_is_not_renewed_expires(tmp_path, quick, caplog):
    left_by(ELSEWHERE, tmp_path)
    with lease.held(tmp_path) as held:
        held.check()
    assert "by process 4711 on host-b since 2026-11-29 10:02:00 UTC; waiting" in caplog.text
    assert contents(tmp_path) == []


def test_a_lease_from_elsewhere_that_is_released_meanwhile_is_free(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRES_AFTER_S", 600.0)
    left_by(ELSEWHERE, tmp_path)
    threading.Timer(0.2, (tmp_path / run_folder.LEASE).unlink).start()
    with lease.held(tmp_path):
        pass


def test_a_lease_from_elsewhere_that_is_renewed_is_refused(tmp_path, quick):
    left_by(ELSEWHERE, tmp_path)
    renewed = dataclasses.replace(ELSEWHERE, renewals=1)
    threading.Timer(0.2, left_by, (renewed, tmp_path)).start()
    with pytest.raises(UserError, match="process 4711 on host-b"), lease.held(tmp_path):
        pass
    assert json.loads((tmp_path / run_folder.LEASE).read_text())["renewals"] == 1


def test_the_clock_of_another_machine_means_nothing(tmp_path, quick):
    """The modification time of the lease does not matter."""
    left_by(ELSEWHERE, tmp_path)
    for stamp in (0, 2**32):
        left_by(ELSEWHERE, tmp_path)
        os.utime(tmp_path / run_folder.LEASE, (stamp, stamp))
        with lease.held(tmp_path):
            pass


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_renewed_lease_keeps_others_out(tmp_path, quick):
    with lease.held(tmp_path) as held:
        for _ in range(2):
            with pytest.raises(UserError, match=str(os.getpid())), lease.held(tmp_path):
                pass
            held.check()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_dead_process_of_this_machine_is_known(tmp_path, holder):
    holder.kill()
    holder.wait()
    start = time.monotonic()
    with lease.held(tmp_path / "run") as held:
        held.check()
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("locks", ["no_locks", "locks_of_this_machine"])
def test_of_two_machines_that_take_a_folder_at_once_one_stops(tmp_path, quick, locks, request):
    """The second process has read the folder before the first one wrote its lease."""
    request.getfixturevalue(locks)
    first = lease.Lease(tmp_path, None, [])
    second = lease.Lease(tmp_path, None, [])
    with pytest.raises(UserError, match="stops before its next write"):
        first.check()
    second.check()
    first.release()
    assert contents(tmp_path) == [run_folder.LEASE]  # that of the second process
    second.release()
    assert contents(tmp_path) == []


def test_an_owner_that_was_suspended_stops_before_its_next_write(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(lease.Lease, "_renew_for_ever", lambda self: None)
    with lease.held(tmp_path) as held:
        held.check()
        time.sleep(0.4)  # more than half of the time after which leases expire
        left_by(ELSEWHERE, tmp_path)
        with pytest.raises(UserError, match="is held by process 4711 on host-b"):
            held.check()
        with pytest.raises(UserError, match="host-b"):
            held.check()
    assert json.loads((tmp_path / run_folder.LEASE).read_text())["token"] == "abc"


def test_an_owner_renews_its_lease_by_itself(tmp_path, quick):
    with lease.held(tmp_path):
        time.sleep(0.4)
        assert json.loads((tmp_path / run_folder.LEASE).read_text())["renewals"] >= 2


def test_an_owner_notices_by_itself_that_it_lost_its_lease(tmp_path, quick):
    with lease.held(tmp_path) as held:
        left_by(ELSEWHERE, tmp_path)
        time.sleep(0.3)
        with pytest.raises(UserError, match="host-b"):
            held.check()


@pytest.mark.parametrize("content", ["{}", "mine", '{"host": 1}', "[" * 100_000])
def test_a_file_of_others_is_left_alone(tmp_path, content):
    (tmp_path / run_folder.LEASE).write_text(content)
    with pytest.raises(UserError, match="is not a lease"), lease.held(tmp_path):
        pass
    assert (tmp_path / run_folder.LEASE).read_text() == content


def test_what_an_interrupted_start_left_is_no_lease(tmp_path):
    (tmp_path / run_folder.LEASE).touch()
    with lease.held(tmp_path):
        pass
    assert contents(tmp_path) == []


def test_a_number_that_is_used_again_is_not_the_owner(tmp_path):
    """In a container, a restarted process often has the same process id."""
    mine = lease.Owner("here", lease._machine(), os.getpid(), "then", "of a process before us")
    left_by(mine, tmp_path)
    start = time.monotonic()
    with lease.held(tmp_path):
        pass
    assert time.monotonic() - start < 5


def _end_by_itself(folder):
    with lease.held(folder):
        os._exit(0)


def test_a_process_that_ends_without_a_word_leaves_nothing_in_the_way(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_end_by_itself, args=(tmp_path,))
    process.start()
    process.join()
    assert contents(tmp_path) == [run_folder.LEASE]
    with lease.held(tmp_path):
        pass
