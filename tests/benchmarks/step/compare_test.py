"""The programs that run implementations: order, medians, ratios, and errors of failed peers."""

import json
import sys

import pytest

from benchmarks import command, runs
from benchmarks.step import compare, curve
from benchmarks.step.workload import Workload
from rlp.runtime.errors import UserError

# A peer that records its arguments, and takes twice as long each time.
PEER = """
import json, os, sys
name, first, log = sys.argv[1:4]
with open(log, "a") as file:
    file.write(json.dumps([name, sys.argv[4:], os.environ["OMP_NUM_THREADS"],
                           len(os.sched_getaffinity(0))]) + "\\n")
calls = [json.loads(line)[0] for line in open(log)].count(name)
second = float(first) * 2 ** (calls - 1)
print("a word before")
print(json.dumps({"impl": name, "rollout_s": second, "score_s": 2 * second, "update_s": 3 * second,
                  "step_s": 6 * second, "cpu_s": 7 * second}))
print("a word after")
"""


@pytest.fixture
def peer(tmp_path):
    """Return the command line of a fake peer; `peer.calls()` lists the recorded runs."""
    script, log = tmp_path / "peer.py", tmp_path / "log"
    script.write_text(PEER)
    make = lambda name, first: f"{sys.executable} {script} {name} {first} {log}"
    make.calls = lambda: [json.loads(line) for line in log.read_text().splitlines()]
    return make


@pytest.fixture
def ours(monkeypatch, peer):
    """Replace this project by a fake that takes 1, 2 and 4 seconds for a rollout."""
    monkeypatch.setattr(Workload, "command", lambda sizes: peer("ours", 1).split())


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()]


def test_medians_ranges_and_ratios_are_those_of_the_rounds(capsys, peer, ours):
    arguments = ["--peer", peer("slow", 3), "--peer", peer("fast", 0.5), "--rounds", "3"]
    assert compare.main([*arguments, "--", "--threads", "1"]) == 0
    header, _, product, slow, fast, *ratios = cells(capsys.readouterr().out)
    times = ["rollout s", "score s", "update s", "step s", "core-seconds"]
    assert header == ["implementation", *times]
    assert product[:2] == ["ours", "2 (1 to 4)"]
    assert product[4:] == ["12 (6 to 24)", "14 (7 to 28)"]
    assert slow[:3] == ["slow", "6 (3 to 12)", "12 (6 to 24)"]
    assert fast[:2] == ["fast", "1 (0.5 to 2)"]
    assert ratios == [["slow / ours", *["3.00×"] * 5], ["fast / ours", *["0.50×"] * 5]]


def test_every_round_starts_with_another_implementation(peer, ours):
    arguments = ["--peer", peer("a", 1), "--peer", peer("b", 1), "--rounds", "4"]
    assert compare.main(arguments) == 0
    order = "".join(name[0] for name, *_ in peer.calls())
    assert order == "oab" + "abo" + "boa" + "oab"


def test_a_peer_receives_the_workload_and_the_same_cpus(peer, ours):
    flags = ["--group=3", "--kv_heads=1", "--pos_mode=last", "--remat=block", "--micro_batch=2"]
    assert compare.main(["--rounds=1", "--peer", peer("a", 1), "--threads=1", "--", *flags]) == 0
    _, (_, received, omp, cpus) = peer.calls()
    assert {"--group=3", "--kv-heads=1", "--pos-mode=last", "--threads=1"} <= set(received)
    assert "remat" not in str(received)
    assert "micro" not in str(received)
    assert (omp, cpus) == ("1", 1)


def test_every_line_is_written_to_the_file(tmp_path, peer, ours):
    out = tmp_path / "lines.jsonl"
    assert compare.main(["--peer", peer("a", 2), "--rounds=2", "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    written = [(line["round"], line["impl"], line["rollout_s"]) for line in lines]
    assert written == [(1, "ours", 1), (1, "a", 2), (2, "a", 4), (2, "ours", 2)]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; print('{}'); sys.exit('first line\\nno such flag')", "no such flag"),
        ("print('no line')", "printed no JSON line"),
        ("print('[1]')", "printed no JSON line"),
        ('print(\'{"rollout_s": 1, "step_s": null}\')', "score_s, update_s, step_s, cpu_s"),
    ],
)
def test_a_peer_that_fails_is_named_and_ends_the_comparison(
    tmp_path, capsys, peer, ours, code, message
):
    script = tmp_path / "broken.py"
    script.write_text(code)
    command_line = f"{sys.executable} {script}"
    arguments = ["--peer", command_line, "--peer", peer("late", 1), "--rounds", "2"]
    assert compare.main(arguments) == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert f"peer '{command_line}'" in last
    assert message in last
    assert [name for name, *_ in peer.calls()] == ["ours"]


def test_a_missing_peer_is_named(capsys, ours):
    assert compare.main(["--peer", "/no/such/python peer.py"]) == 1
    assert "peer '/no/such/python peer.py' cannot be started" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (compare.main, ["--rounds=0"], "--rounds=0"),
        (compare.main, ["--peer", "python 'peer.py"], "is not a command line"),
        (compare.main, ["--peer", ""], "--peer is empty"),
        (compare.main, ["--threads=100000"], "--threads=100000"),
        (compare.main, ["--", "--heads=3"], "--heads=3"),
        (curve.main, ["--over=temperature"], "argument --over"),
        (curve.main, ["--values=1,two"], "--values='1,two'"),
        (curve.main, ["--values=2,1"], "must ascend"),
        (curve.main, ["--over=heads", "--values=2,3"], "--heads=3 is not a multiple"),
    ],
)
def test_a_bad_command_line_is_refused(main, arguments, message):
    with pytest.raises(UserError, match=message):
        main(arguments)


def test_a_curve_shows_the_marginal_cost(monkeypatch, capsys):
    def run_line(words, name, threads, needed):
        count = int(next(w for w in words if w.startswith("--positions=")).split("=")[1])
        line = {"step_s": 3.0 + count, "rollout_s": 2.0, "score_s": 0.5, "update_s": 1.5}
        return line | {"positions": count, "rows": 64 * count}

    monkeypatch.setattr(runs, "run_line", run_line)
    assert curve.main(["--over=positions", "--values=1,2,16"]) == 0
    _, _, *rows = cells(capsys.readouterr().out)
    assert rows == [
        ["1", "4", "2", "0.5", "1.5", "64", "", ""],
        ["2", "5", "2", "0.5", "1.5", "128", "1", "25.0%"],
        ["16", "19", "2", "0.5", "1.5", "1024", "1", "25.0%"],
    ]


def test_this_project_receives_all_flags():
    words = Workload(kv_heads=1, remat="dots", micro_batch=2).command()
    assert words[:3] == [sys.executable, "-m", "benchmarks.step"]
    assert {"--kv_heads=1", "--remat=dots", "--micro_batch=2", "--steps=3"} <= set(words)


def test_more_cpus_than_available_are_refused(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {4, 2, 7})
    assert command.cpus(2) == {2, 4}
    with pytest.raises(UserError, match=r"may use 3 CPU"):
        command.cpus(4)


def test_a_run_is_stopped_at_its_limit_and_its_errors_are_kept(tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    code = "import sys, time; print('working', file=sys.stderr, flush=True); time.sleep(60)"
    with pytest.raises(runs.RunFailed, match="slow was stopped after 1 s"):
        runs.run_line([sys.executable, "-c", code], "slow", 1, [], limit_s=1, log=log)
    assert log.read_text() == "before\nworking\n"


def test_a_result_counts_with_the_accepted_statuses_only(tmp_path):
    words = [sys.executable, "-c", "print('{\"a\": 1}'); raise SystemExit('one refused')"]
    assert runs.run_line(words, "it", 1, ["a"], statuses=(0, 1)) == {"a": 1}
    with pytest.raises(runs.RunFailed, match="it ended with status 1: one refused"):
        runs.run_line(words, "it", 1, ["a"], log=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "one refused\n"
