"""The names of files in a run directory are defined in one module, and never change."""

import ast

from rlp.runtime import run_folder
from tests.support.paths import ROOT

# Modules for formats that have a config.json of their own.
THEIRS = (
    "rlp/interop/huggingface/folder.py",
    "rlp/interop/gguf/folder.py",
    "rlp/tokenizers/folder_reader.py",
)


def literals(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def test_no_other_module_spells_them():
    names = {name for name in vars(run_folder).values() if isinstance(name, str) and "." in name}
    names = {name for name in names if len(name) < 30} | {run_folder.CHECKPOINTS}
    assert {"config.json", "metrics.jsonl", "owner.json", "report.html"} < names
    files = [
        path for room in ("rlp", "launch", "benchmarks") for path in (ROOT / room).rglob("*.py")
    ]
    names_in = {str(path.relative_to(ROOT)): literals(path) & names for path in files}
    modules = {file for file, words in names_in.items() if words and file not in THEIRS}
    assert modules == {"rlp/runtime/run_folder.py"}


def test_the_names_do_not_change():
    run = """config.json hf checkpoints metrics.jsonl tensorboard warnings.json
        metrics.damaged.jsonl metrics.declared.json profile evaluation.json thoughts.json
        responses.json report.html plots logs"""
    experiment = "config.json summary.json pipeline.md report.html plots logs"
    written = {"run": run, "experiment": experiment, "sweep": "logs slurm report.html plots"}
    for kind, names in run_folder.WRITTEN.items():
        assert names == tuple(written[kind].split())
