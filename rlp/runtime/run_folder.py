"""Names of the files and folders in the folder of a run, an experiment or a sweep.

Do not change these names: users' programs and resumed runs rely on them.
"""

CONFIG = "config.json"  # the resolved config
OWNER = "owner.json"  # which run, experiment or sweep owns the folder (`rlp.runtime.ownership`)
LEASE = "lease.json"  # exists only while a process trains in the folder (`rlp.runtime.lease`)
LOGS = "logs"  # one file for each process of a multihost run, or for each point of a sweep

# Files of a run
METRICS = "metrics.jsonl"
DAMAGED_METRICS = "metrics.damaged.jsonl"  # lines of METRICS that cannot be read
DECLARED_METRICS = "metrics.declared.json"  # metrics that the objective declares
TENSORBOARD = "tensorboard"
PROFILE = "profile"  # traces of the steps of config.profile.steps
WARNINGS = "warnings.json"
CHECKPOINTS = "checkpoints"  # contains a folder for each step
MANIFEST = "manifest.json"  # in each checkpoint: its files and their checksums
# All files of a Hugging Face model except its weights (config.json, tokenizer, chat template,
# generation config). The run reads its tokenizer from here, and an export copies these files.
HF = "hf"
EVALUATION = "evaluation.json"  # its presence means that the run has finished
THOUGHTS = "thoughts.json"
RESPONSES = "responses.json"

# Files of a report
REPORT = "report.html"
PLOTS = "plots"

# Files of an experiment, which also has a folder for each arm
SUMMARY = "summary.json"  # its presence means that the experiment has finished
PIPELINE = "pipeline.md"

# Files of a sweep, which also has a folder for each point
SLURM = "slurm"

# Everything that each kind of folder may contain, besides OWNER and LEASE.
WRITTEN = {
    "run": (
        *(CONFIG, HF, CHECKPOINTS, METRICS, TENSORBOARD, WARNINGS, DAMAGED_METRICS),
        *(DECLARED_METRICS, PROFILE, EVALUATION, THOUGHTS, RESPONSES, REPORT, PLOTS, LOGS),
    ),
    "experiment": (CONFIG, SUMMARY, PIPELINE, REPORT, PLOTS, LOGS),
    "sweep": (LOGS, SLURM, REPORT, PLOTS),
}
