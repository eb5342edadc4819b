r"""Run launch.train on a TPU slice of Cloud TPU VMs, and recreate the slice after a preemption.

    python -m launch.pods.tpu_vm create --name=qwen --zone=us-east5-a --tpu=v5p:4x4x4
    python -m launch.pods.tpu_vm setup  --name=qwen --zone=us-east5-a
    python -m launch.pods.tpu_vm start  --name=qwen --zone=us-east5-a --bucket=<bucket> \
        -- --config=configs/qwen3_1p7b_rlp.py --workdir=bucket/runs/qwen …

`resume`, with the flags of all three, starts the run, and first creates the slice again if it
is preempted, failed or missing. `stop` makes the run save and end; `status` and `delete` act on the
slice. `setup` copies the last commit of this repository to every host, and `start` mounts the
bucket at ./bucket.
"""

import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from launch import program
from launch.pods import jobs, tpu
from rlp.runtime.errors import UserError

_ZONE = flags.DEFINE_string("zone", "", "zone of the slice")
_PROJECT = flags.DEFINE_string("project", "", "Google Cloud project; '' = the default of gcloud")
_VERSION = flags.DEFINE_string("runtime", "", "runtime of the TPU VMs; '' = that of the generation")
_BUCKET = flags.DEFINE_string(
    "bucket", "", "Cloud Storage bucket to mount at ./bucket on every host"
)
_PREPARE = flags.DEFINE_string(
    "prepare", "", "shell commands that `setup` runs first on every host"
)
for _module in (jobs, tpu):
    flags.adopt_module_key_flags(_module)

_GCLOUD = ("gcloud", "compute", "tpus", "tpu-vm")
_FOLDER = "rlp"  # in the home directory of every host
_ARCHIVE = "rlp.tar.gz"
_SET_UP = ".set_up"  # exists after the setup of a host
_GONE = ("PREEMPTED", "TERMINATED", "STOPPED", "FAILED")  # states that a slice does not leave
_PYTHON = "3.12"
_SETUP = f"""
set -euo pipefail
{{prepare}}
mkdir -p {_FOLDER}
tar -xzf {_ARCHIVE} -C {_FOLDER}
cd {_FOLDER}
python3 -m pip install --user --quiet uv
python3 -m uv python install {_PYTHON}
make setup PYTHON="$(python3 -m uv python find {_PYTHON})"
.venv/bin/python -m pip install --quiet --constraint requirements.txt 'jax[tpu]' gcsfs
touch {_SET_UP}
"""
_MOUNT = """if ! mountpoint --quiet bucket; then
  mkdir -p bucket
  gcsfuse --implicit-dirs {bucket} bucket
fi
"""
_START = """
set -euo pipefail
cd {folder}
{mount}if [ -e train.pid ] && kill -0 "$(cat train.pid)" 2>/dev/null; then
  echo 'a run is already running here'
  exit 0
fi
nohup {words} >>train.log 2>&1 </dev/null &
echo "$!" >train.pid
"""
_STOP = f'kill -TERM "$(cat {_FOLDER}/train.pid)"'
_STATUS = f"tail -n 5 {_FOLDER}/train.log"


def main(arguments: Sequence[str]) -> None:
    """Run the action of the first argument."""
    action, *rest = arguments or [""]
    actions = {
        "create": _create,
        "setup": _setup,
        "status": _status,
        "stop": _stop,
        "delete": _delete,
    }
    if action not in (*actions, "start", "resume"):
        names = ", ".join([*actions, "start", "resume"])
        raise UserError(f"the first argument is {action!r}; it must be one of {names}")
    for flag in (jobs.NAME, _ZONE):
        if not flag.value:
            raise UserError(f"--{flag.name} is missing")
    if action in ("start", "resume"):
        start = start_script(rest)  # refuses bad flags before a machine is created
        if action == "resume":
            _make_ready()
        _ssh(start)
    elif rest:
        raise UserError(f"{action} takes no argument; remove {rest[0]!r}")
    else:
        actions[action]()


def start_script(arguments: Sequence[str]) -> str:
    """Return the script that starts the run on a host, unless a run is already running there."""
    run = jobs.job_of(arguments, ".venv/bin/python")
    inside = run.workdir.parts[:1] == ("bucket",)
    if inside != bool(_BUCKET.value) or not (inside or run.workdir.is_absolute()):
        raise UserError(
            f"--workdir={run.workdir}, --bucket={_BUCKET.value!r}: the disks of a slice vanish "
            "with it; set --bucket and a --workdir below bucket/, or one on a shared disk"
        )
    return _START.format(
        folder=_FOLDER,
        mount=_MOUNT.format(bucket=shlex.quote(_BUCKET.value)),
        words=shlex.join(jobs.with_flag(run.words, "--multihost")),
    )


def _create() -> None:
    piece = tpu.parse(tpu.TPU.value)
    version = _VERSION.value or piece.generation.version
    words = [f"--accelerator-type={piece.accelerator_type}", f"--version={version}"]
    _gcloud("create", jobs.NAME.value, *words, *(["--spot"] if tpu.SPOT.value else []))


def _setup() -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = "/tmp/rlp.tar.gz" if jobs.DRY_RUN.value else str(Path(folder) / _ARCHIVE)
        jobs.run_tool(["git", "archive", "--format=tar.gz", f"--output={archive}", "HEAD"])
        _gcloud("scp", archive, f"{jobs.NAME.value}:{_ARCHIVE}", "--worker=all")
    _ssh(_SETUP.format(prepare=_PREPARE.value))


def _status() -> None:
    _gcloud("describe", jobs.NAME.value, "--format=value(state,health)")
    _ssh(_STATUS, worker="0")


def _stop() -> None:
    _ssh(_STOP)


def _delete() -> None:
    _gcloud("delete", jobs.NAME.value, "--quiet")


def _make_ready() -> None:
    """Make sure that the slice is ready and set up; create it if preempted, failed or missing.

    Raises:
      UserError: The slice is in a temporary state.
    """
    tpu.parse(tpu.TPU.value)  # before anything is deleted
    state = _state()
    if jobs.DRY_RUN.value:
        print("# delete only if the slice was preempted, the next three only if it does not exist")
    elif state == "READY":
        try:
            _ssh(f"test -e {_FOLDER}/{_SET_UP}")
        except UserError:
            _setup()
        return
    elif state and state not in _GONE:
        raise UserError(f"{jobs.NAME.value} is {state}; try again when it is READY or deleted")
    if state or jobs.DRY_RUN.value:
        _delete()
    _create()
    _setup()


def _state() -> str:
    """Return the state of the slice in gcloud; "" if it does not exist."""
    here = f"name~/{re.escape(jobs.NAME.value)}$"
    return _gcloud("list", f"--filter={here}", "--format=value(state)").strip()


def _ssh(script: str, worker: str = "all") -> None:
    _gcloud("ssh", jobs.NAME.value, f"--worker={worker}", f"--command={script}")


def _gcloud(*words: str) -> str:
    project = [f"--project={_PROJECT.value}"] if _PROJECT.value else []
    return jobs.run_tool([*_GCLOUD, *words, f"--zone={_ZONE.value}", *project])


if __name__ == "__main__":
    program.run(main, most_arguments=None)
