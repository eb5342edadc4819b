"""Jobs for clusters: what --dry_run prints, and what the scripts do with fake tools."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launch.pods import jobs, tpu
from rlp.runtime.errors import UserError
from tests.support.paths import ROOT

NASTY = "a b/$(touch /tmp/never)'\"*.jsonl"
TRAIN = ["--", "--config=configs/default.py", f"--config.data.train={NASTY}"]

# All cases are forks of one process, so that Python starts only once.
FORK = """
import importlib, json, os, sys
from launch import program

for number, (module, words) in enumerate(json.loads(sys.stdin.read())):
    child = os.fork()
    if child == 0:
        for stream in (1, 2):
            os.dup2(os.open(f"{sys.argv[1]}/{number}.{stream}", os.O_WRONLY | os.O_CREAT), stream)
        sys.argv = [module, *words]
        loaded = importlib.import_module(f"launch.{module}")
        assert "jax" not in sys.modules or module == "sweep"
        program.run(loaded.main, most_arguments=None)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run_all(cases, folder, path=None):
    """Return (exit status, stdout, stderr) of each module and its arguments."""
    ran = subprocess.run(
        [sys.executable, "-c", FORK, str(folder)],
        input=json.dumps(cases), cwd=ROOT, timeout=120, check=True, stdout=subprocess.PIPE,
        text=True, env=os.environ | ({"PATH": path} if path else {}),
    )  # fmt: skip
    read = lambda number, stream: (folder / f"{number}.{stream}").read_text()
    statuses = enumerate(map(int, ran.stdout.split()))
    return [(status, read(number, 1), read(number, 2)) for number, status in statuses]


VM = ["--name=qwen", "--zone=us-east5-a"]
SLICE = ["--tpu=v5p:4x4x4"]
IN_BUCKET = ["--bucket=mine", *TRAIN, "--workdir=bucket/my runs"]
GKE = ["start", "--image=some/image:1", "--bucket=mine", *SLICE]
DRY = {
    "slurm": ["pods.slurm", "--nodes=2", "--gpus_per_node=8", "--sbatch=--comment='a b'", *TRAIN,
              "--workdir=/shared/my runs"],
    "slurm one": ["pods.slurm", *TRAIN, "--workdir=/shared/one"],
    "gke": ["pods.gke", *GKE, *TRAIN, "--workdir=/bucket/my runs"],
    "gke one": ["pods.gke", *GKE[:3], "--tpu=v6e:2x4", "--nospot", "--queue=q", *TRAIN,
                "--workdir=/bucket/one"],
    "gke status": ["pods.gke", "status", "--name=qwen"],
    "gke delete": ["pods.gke", "delete", "--name=qwen"],
    "create": ["pods.tpu_vm", "create", *VM, *SLICE],
    "setup": ["pods.tpu_vm", "setup", *VM, "--prepare=echo 'it is \"mine\"'"],
    "start": ["pods.tpu_vm", "start", *VM, *IN_BUCKET],
    "status": ["pods.tpu_vm", "status", *VM],
    "stop": ["pods.tpu_vm", "stop", *VM],
    "resume": ["pods.tpu_vm", "resume", *VM, *SLICE, "--project=p", *IN_BUCKET],
    "delete": ["pods.tpu_vm", "delete", *VM],
}  # fmt: skip


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """The output of every case."""
    cases = [(module, ["--dry_run", *words]) for module, *words in DRY.values()]
    ran = run_all(cases, tmp_path_factory.mktemp("dry"))
    for name, (status, _, said) in zip(DRY, ran, strict=True):
        assert (status, said) == (0, ""), (name, said)
    return {name: shown for name, (_, shown, _) in zip(DRY, ran, strict=True)}


@pytest.fixture
def fakes(tmp_path):
    """`fakes(name, body)` makes a fake tool that records its arguments; `fakes.path` contains only
    these tools and the system tools that scripts need."""
    made, system = tmp_path / "fakes", tmp_path / "system"
    made.mkdir()
    system.mkdir()
    for name in ("bash", "cat", "mkdir", "nohup", "sleep", "touch", "wc"):
        (system / name).symlink_to(shutil.which(name))

    def fake(name, body="true"):
        path = made / name
        path.unlink(missing_ok=True)  # it may be running
        path.write_text(
            # One write, because tools can run in parallel.
            f"#!/bin/bash\nprintf '%s\\0' {name} \"$@\" $'\\n' >>{tmp_path}/calls\n{body}\n"
        )
        path.chmod(0o755)
        return path

    fake.path = f"{made}:{system}"
    fake.calls = lambda: [
        call.split("\0")[:-1] for call in (tmp_path / "calls").read_text().split("\n\0")[:-1]
    ]
    return fake


def bash(script, path, folder, **environment):
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env={"PATH": path, "HOME": str(folder)} | environment,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("name", DRY)
def test_what_is_shown_is_what_bash_would_run(dry, fakes, tmp_path, name):
    """The tools receive the arguments unchanged, whatever characters they contain."""
    for tool in ("sbatch", "kubectl", "gcloud", "git"):
        fakes(tool)
    ran = bash(dry[name], fakes.path, tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    calls = fakes.calls()
    assert len(calls) >= 1
    text = "\0".join(word for call in calls for word in call)
    assert not Path("/tmp/never").exists()
    for script in re.findall("--command=([^\0]+)", text):
        subprocess.run(["bash", "-n", "-c", script], check=True)
    if name in ("slurm", "slurm one"):
        script = dry[name].split("<<'END'\n")[1].removesuffix("END\n")
        subprocess.run(["bash", "-n", "-c", script], check=True)


def test_a_slurm_job_has_a_process_for_every_gpu(dry):
    words = shlex.split(dry["slurm"].split(" <<")[0])
    assert {"--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--requeue"} < set(words)
    assert words[-1] == "--comment=a b"  # options of the user come last and take precedence
    assert "--multihost" in dry["slurm"]
    assert "--multihost" not in dry["slurm one"]


def test_a_job_set_asks_for_all_chips_of_its_slice(dry):
    found = {}
    for name in ("gke", "gke one"):
        command, manifest = dry[name].removesuffix("END\n").split(" <<'END'\n")
        assert command == "kubectl apply --filename=-"
        found[name] = yaml.safe_load(manifest)
    job, one = (m["spec"]["replicatedJobs"][0]["template"]["spec"] for m in found.values())
    pod = job["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 16
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "4x4x4",
        "cloud.google.com/gke-spot": "true",
    }
    assert found["gke one"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"
    lone = one["template"]["spec"]
    assert one["parallelism"] == 1
    assert lone["containers"][0]["resources"]["limits"] == {"google.com/tpu": 8}
    assert "cloud.google.com/gke-spot" not in lone["nodeSelector"]
    assert "--multihost" not in lone["containers"][0]["command"][-1]
    for name in found:
        job_name = found[name]["metadata"]["name"]
        assert re.fullmatch(r"[a-z]([a-z0-9-]{,38}[a-z0-9])?", job_name)


def container(manifest_text):
    manifest = yaml.safe_load(manifest_text.removesuffix("END\n").split(" <<'END'\n")[1])
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
        "containers"
    ][0]


def test_a_container_runs_the_command_of_its_run(dry, fakes, tmp_path):
    command = container(dry["gke"])["command"]
    assert command[:2] == ["bash", "-c"]
    fakes("python", "exit 3")
    assert bash(command[2], fakes.path, tmp_path).returncode == 3
    ((_, *words),) = fakes.calls()
    train = ["-m", "launch.train", *TRAIN[1:], "--workdir=/bucket/my runs", "--multihost"]
    assert words == train


def test_a_host_starts_the_run_once_and_goes_on_without_the_terminal(dry, fakes, tmp_path):
    (script,) = [
        word.removeprefix("--command=")
        for word in shlex.split(dry["start"])
        if word.startswith("--command=")
    ]
    (tmp_path / "rlp" / ".venv" / "bin").mkdir(parents=True)
    fakes("gcsfuse")
    fakes("mountpoint", "exit 1")
    train = fakes("train", "exec sleep 30")
    (tmp_path / "rlp" / ".venv" / "bin" / "python").symlink_to(train)
    first = bash(script, fakes.path, tmp_path)
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    second = bash(script, fakes.path, tmp_path)
    assert second.stdout == "a run is already running here\n"
    os.kill(int((tmp_path / "rlp" / "train.pid").read_text()), 15)
    calls = {call[0]: call[1:] for call in fakes.calls()}
    assert calls["gcsfuse"] == ["--implicit-dirs", "mine", "bucket"]
    if "train" in calls:  # it may not have started yet
        train = ["-m", "launch.train", *TRAIN[1:], "--workdir=bucket/my runs", "--multihost"]
        assert calls["train"] == train


# Until it is finished.

ENDS = {
    "well": ("touch {end}", None, 0),
    "badly": ("exit 4", None, 4),
    "by a signal": ("kill -KILL $$", None, 137),
    "stopped": ("trap 'exit 0' TERM; touch {up}; while :; do sleep 0.05; done", 15, 75),
    "stopped at its end": (
        "trap 'touch {end}; exit 0' TERM; touch {up}; while :; do sleep 0.05; done", 15, 0,
    ),
    "stopped twice": (
        "trap 'sleep 0.3; exit 0' TERM; touch {up}; while :; do sleep 0.05; done", (15, 15), 75,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_a_command_is_run_until_the_file_of_its_end_is_there(tmp_path, case):
    body, signals, expected = ENDS[case]
    body = body.format(end=tmp_path / "end", up=tmp_path / "up")
    script = f"{jobs.UNTIL_FINISHED}until_finished {tmp_path}/end bash -c {shlex.quote(body)}"
    process = subprocess.Popen(["bash", "-c", script])
    for number in [signals] if isinstance(signals, int) else signals or ():
        while not (tmp_path / "up").exists():
            assert process.poll() is None
        process.send_signal(number)
    assert process.wait(30) == expected


# Sweeps, and SLURM from submission to requeue with fake tools.

SWEEP = """
from configs import default
from configs.sweeps import chain, product
def get_config():
    config = default.get_config()
    config.data.train = "some.txt"
    return config
def sweep():
    rlp = product({"init_from": "base", "rlp.group_size": [2, 4]})
    return chain({"name": "base", "steps": 3}, rlp, {"steps": 4})
"""


@pytest.fixture
def sweep(tmp_path):
    """The flags of a small sweep in tmp_path/run."""
    (tmp_path / "some.py").write_text(SWEEP)
    return ["sweep", [f"--config={tmp_path}/some.py", f"--workdir={tmp_path}/run"]]


def test_a_sweep_goes_through_slurm_with_what_it_builds_on_first(tmp_path, fakes, sweep):
    fakes("sbatch", f"cat >{tmp_path}/script-$(wc -l <{tmp_path}/calls); echo '71;here'")
    name, words = sweep
    ((status, _, said),) = run_all([(name, [*words, "--launcher=slurm"])], tmp_path, fakes.path)
    assert (status, said) == (0, "")
    first, second = fakes.calls()
    assert "--array=0-1" in first
    assert {"--array=0-1", "--dependency=afterany:71"} < set(second)
    scripts = [(tmp_path / f"script-{number}").read_text() for number in (1, 2)]

    fakes("srun")
    fakes("scontrol")
    run = lambda script, task: bash(
        script, fakes.path, tmp_path, SLURM_JOB_ID="71", SLURM_ARRAY_TASK_ID=str(task)
    )
    early = run(scripts[1], 0)
    assert early.returncode == 1
    assert re.match("error: .*base/evaluation.json is missing", early.stderr)
    fakes("sleep")  # the script waits a minute for the file before it requeues the job
    stopped = run(scripts[0], 0)
    assert stopped.returncode == 0
    assert fakes.calls()[-1] == ["scontrol", "requeue", "71"]
    fakes("srun", f"mkdir -p {tmp_path}/run/base; touch {tmp_path}/run/base/evaluation.json")
    assert run(scripts[0], 0).returncode == 0
    assert fakes.calls()[-1][0] == "srun"
    assert fakes.calls()[-1][-1] == "--config.steps=3"
    run(scripts[1], 1)
    srun = [call for call in fakes.calls() if call[0] == "srun"][-1]
    assert srun[-1] == "--config.rlp.group_size=4"
    assert f"--config.init_from={tmp_path}/run/base" in srun
    assert "run-group_size=4" in (tmp_path / "run" / "logs" / "group_size=4.log").read_text()


BAD = {
    "url": (["pods.slurm", *TRAIN, "--workdir=gs://a/b"], "--workdir=gs://a/b: .*gcsfuse"),
    "no run": (["pods.slurm"], "with --config=… exactly once"),
    "field": (
        ["pods.slurm", *TRAIN, "--workdir=a", "--config.steeps=3"], "'steeps'; did you mean steps",
    ),
    "sbatch": (
        ["pods.slurm", "--sbatch=gpu", *TRAIN, "--workdir=a"], "--sbatch: 'gpu' is not an option",
    ),
    "image": (["pods.gke", "start", *TRAIN, "--workdir=/bucket/a"], "--image is missing"),
    "disk": (["pods.gke", *GKE, *TRAIN, "--workdir=/a"], "--workdir=/a: the disk of a pod"),
    "action": (["pods.gke", "begin"], "argument is 'begin'; it must be start, status or"),
    "vm's disk": (["pods.tpu_vm", "start", *VM, *TRAIN, "--workdir=a"], "disks of a slice"),
    "zone": (["pods.tpu_vm", "create", "--name=a"], "--zone is missing"),
    "tpu": (["pods.tpu_vm", "create", *VM, "--tpu=v5p"], "--tpu='v5p' is not generation:shape"),
    "no sbatch": (["pods.slurm", *TRAIN, "--workdir=a/b"], "sbatch is not installed here"),
    "no kubectl": (["pods.gke", *GKE, *TRAIN, "--workdir=/bucket/a"], "kubectl is not installed"),
    "no gcloud": (["pods.tpu_vm", "status", *VM], "gcloud is not installed"),
}  # fmt: skip


def test_what_cannot_be_submitted_gets_one_line_and_status_2(tmp_path, fakes, sweep):
    words = sweep[1]
    sweeps = {
        "sweep url": ([words[0], "--workdir=gs://a/b"], "--workdir=gs://a/b: .*gcsfuse"),
        "sweep value": ([*words, "--config.batch_size=0"], "batch_size=0; it must be at least 1"),
        "sweep dry": ([*words, "--dry_run"], "--dry_run is for clusters"),
    }
    cases = BAD | {name: (["sweep", *given], line) for name, (given, line) in sweeps.items()}
    ran = run_all([(m, rest) for (m, *rest), _ in cases.values()], tmp_path, fakes.path)
    for (name, (_, message)), (status, shown, said) in zip(cases.items(), ran, strict=True):
        assert (status, shown) == (2, ""), (name, said)
        (line,) = said.splitlines()
        assert re.match(f"error: .*{message}", line), (name, line)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "chips", "hosts", "name"),
    [
        ("v5e:2x2", 4, 1, "v5litepod-4"),
        ("v5e:2x4", 8, 1, "v5litepod-8"),
        ("v5e:4x4", 16, 4, "v5litepod-16"),
        ("v5p:2x2x1", 4, 1, "v5p-8"),
        ("v5p:4x4x4", 64, 16, "v5p-128"),
        ("v6e:16x16", 256, 64, "v6e-256"),
        ("v4:2x2x2", 8, 2, "v4-16"),
    ],
)
def test_slices_have_their_names_and_hosts(text, chips, hosts, name):
    found = tpu.parse(text)
    assert (found.chips, found.hosts, found.accelerator_type) == (chips, hosts, name)


@pytest.mark.parametrize(
    "text", ["", "v5p", "v9:2x2", "v5p:4x4", "v5e:4x4x4", "v5e:0x4", "v5e:3x3"]
)
def test_slices_that_do_not_exist_are_refused(text):
    with pytest.raises(UserError, match=f"--tpu={text!r}"):
        tpu.parse(text)
