"""The names of the files and folders in the folder of a run, an experiment or a sweep.

These names are on the disks of users: programs that find them, and runs that resume, rely on them.
"""

CONFIG = "config.json"  # the resolved config
OWNER = "owner.json"  # whose the folder is (`rlp.runtime.ownership`)
LEASE = "lease.json"  # only while a process trains in the folder (`rlp.runtime.lease`)
LOGS = "logs"  # of each of several processes, or of each point of a sweep

# Of a run
METRICS = "metrics.jsonl"
DAMAGED_METRICS = "metrics.damaged.jsonl"  # lines of METRICS that cannot be used
DECLARED_METRICS = "metrics.declared.json"  # metrics that the objective brings
TENSORBOARD = "tensorboard"
PROFILE = "profile"  # traces of the steps of config.profile.steps
WARNINGS = "warnings.json"
CHECKPOINTS = "checkpoints"  # a folder per step inside
MANIFEST = "manifest.json"  # of a checkpoint: its files with their checksums
# What of a Hugging Face model is not weights (its config.json, tokenizer, chat template, generation
# config). The tokenizer of the run is read from here, and its export has all of it.
HF = "hf"
EVALUATION = "evaluation.json"  # its presence means that the run has finished
THOUGHTS = "thoughts.json"
RESPONSES = "responses.json"

# Of reports
REPORT = "report.html"
PLOTS = "plots"

# Of an experiment, beside a folder per arm
SUMMARY = "summary.json"  # its presence means that the experiment has finished
PIPELINE = "pipeline.md"

# Of a sweep, beside a folder per point
SLURM = "slurm"

# What each of them writes, besides OWNER and LEASE.
WRITTEN = {
    "run": (
        *(CONFIG, HF, CHECKPOINTS, METRICS, TENSORBOARD, WARNINGS, DAMAGED_METRICS),
        *(DECLARED_METRICS, PROFILE, EVALUATION, THOUGHTS, RESPONSES, REPORT, PLOTS, LOGS),
    ),
    "experiment": (CONFIG, SUMMARY, PIPELINE, REPORT, PLOTS, LOGS),
    "sweep": (LOGS, SLURM, REPORT, PLOTS),
}
