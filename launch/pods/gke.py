r"""Run launch.train on a TPU slice in Google Kubernetes Engine, as a JobSet that restarts it.

    python -m launch.pods.gke start --image=<image> --tpu=v5p:4x4x4 --bucket=<bucket> \
        -- --config=configs/qwen3_1p7b_rlp.py --workdir=/bucket/runs/qwen …
    python -m launch.pods.gke status --name=qwen
    python -m launch.pods.gke delete --name=qwen

The image contains this repository, as its working directory, and its environment. The bucket is
mounted at /bucket on every host. `kubectl` must be configured for the cluster (docs/pods.md creates
one with xpk).
"""

import hashlib
import re
import shlex
from collections.abc import Sequence
from typing import Any

import yaml
from absl import flags

from launch import program
from launch.pods import jobs, tpu
from launch.pods.jobs import Job
from rlp.runtime.errors import UserError

_IMAGE = flags.DEFINE_string("image", "", "container image with this repository")
_BUCKET = flags.DEFINE_string("bucket", "", "Cloud Storage bucket that is mounted at /bucket")
_ACCOUNT = flags.DEFINE_string(
    "service_account", "default", "Kubernetes service account that may write to the bucket"
)
_QUEUE = flags.DEFINE_string("queue", "", "local queue of Kueue, if the cluster has one")
_RESTARTS = flags.DEFINE_integer(
    "max_restarts", 100, "maximum number of restarts after preemptions and failures"
)
for _module in (jobs, tpu):
    flags.adopt_module_key_flags(_module)

MOUNT = "/bucket"
PYTHON = "python"  # in the image
_SECONDS_TO_SAVE = 60  # a spot machine gives only 25 seconds
_LONGEST_NAME = 40  # the name of a pod is 23 longer, and DNS labels have at most 63
_VOLUME = "bucket"
_LABEL = "rlp-run"


def main(arguments: Sequence[str]) -> None:
    """Run the action: start, status or delete."""
    action, *rest = arguments or [""]
    if action == "start":
        submit(jobs.job_of(rest, PYTHON))
    elif action in ("status", "delete"):
        if rest or not jobs.NAME.value:
            raise UserError(f"{action} needs --name=<job>, and takes no other argument")
        name = job_name(jobs.NAME.value)
        words = ["get", "jobset,pods", "--selector", f"{_LABEL}={name}", "--output=wide"]
        jobs.run_tool(["kubectl", *(words if action == "status" else ["delete", "jobset", name])])
    else:
        raise UserError(f"the first argument is {action!r}; it must be start, status or delete")


def submit(run: Job) -> None:
    """Submit a run to the cluster, which starts it when a slice is available.

    Raises:
      UserError: A flag is missing, the workdir is not in the bucket, or kubectl fails.
    """
    text = yaml.dump(manifest(run), Dumper=_Dumper, sort_keys=False, width=1000)
    jobs.run_tool(["kubectl", "apply", "--filename=-"], text)


def job_name(name: str) -> str:
    """Return the name if Kubernetes accepts it, otherwise a valid form of it with a hash."""
    if re.fullmatch(rf"[a-z]([a-z0-9-]{{0,{_LONGEST_NAME - 2}}}[a-z0-9])?", name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    valid = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[: _LONGEST_NAME - 13].strip("-")
    return f"rlp-{valid}-{digest}"


def manifest(run: Job) -> dict[str, Any]:
    """Return the JobSet of a run: one job over the hosts of one slice."""
    for flag in (_IMAGE, _BUCKET, tpu.TPU):
        if not flag.value:
            raise UserError(f"--{flag.name} is missing")
    if not run.workdir.is_relative_to(MOUNT):
        raise UserError(
            f"--workdir={run.workdir}: the disk of a pod is deleted with it; use a folder below "
            f"{MOUNT}, where gs://{_BUCKET.value} is mounted"
        )
    piece = tpu.parse(tpu.TPU.value)
    name = job_name(run.name)
    labels = {_LABEL: name}
    pod = {
        "metadata": {"annotations": {"gke-gcsfuse/volumes": "true"}, "labels": labels},
        "spec": _pod(run, piece),
    }
    job = {
        "parallelism": piece.hosts,
        "completions": piece.hosts,
        "backoffLimit": 0,  # the loss of one host restarts all hosts
        "template": pod,
    }
    queue = {"kueue.x-k8s.io/queue-name": _QUEUE.value} if _QUEUE.value else {}
    exclusive = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": name, "labels": labels | queue, "annotations": exclusive},
        "spec": {
            "failurePolicy": {"maxRestarts": _RESTARTS.value},
            "replicatedJobs": [{"name": "slice", "replicas": 1, "template": {"spec": job}}],
        },
    }


class _Dumper(yaml.SafeDumper):
    """Write strings of several lines as blocks."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def _pod(run: Job, piece: tpu.Slice) -> dict[str, Any]:
    words = jobs.with_flag(run.words, "--multihost") if piece.hosts > 1 else run.words
    script = (
        f"{jobs.UNTIL_FINISHED.lstrip()}until_finished {shlex.join([str(run.finished), *words])}\n"
    )
    selector = {
        "cloud.google.com/gke-tpu-accelerator": piece.generation.gke,
        "cloud.google.com/gke-tpu-topology": piece.topology,
    }
    if tpu.SPOT.value:
        selector["cloud.google.com/gke-spot"] = "true"
    volume = {
        "driver": "gcsfuse.csi.storage.gke.io",
        "volumeAttributes": {"bucketName": _BUCKET.value, "mountOptions": "implicit-dirs"},
    }
    container = {
        "name": "train",
        "image": _IMAGE.value,
        "command": ["bash", "-c", script],
        "ports": [{"containerPort": 8471}, {"containerPort": 8080}],
        "resources": {"limits": {"google.com/tpu": piece.chips_per_host}},
        "volumeMounts": [{"name": _VOLUME, "mountPath": MOUNT}],
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _SECONDS_TO_SAVE,
        "serviceAccountName": _ACCOUNT.value,
        "nodeSelector": selector,
        "containers": [container],
        "volumes": [{"name": _VOLUME, "csi": volume}],
    }


if __name__ == "__main__":
    program.run(main, most_arguments=None)
