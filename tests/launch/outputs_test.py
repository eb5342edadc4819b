"""Outputs of the programs: invalid paths are refused at once, and existing files are kept."""

import json
import re
import shutil

import pytest

from launch import program
from rlp.runtime.errors import UserError
from tests.support import folders, runs
from tests.support.paths import ROOT

SOME = """
from configs import default

def get_config():
    config = default.get_config()
    config.update_from_flattened_dict({fields!r})
    return config

def sweep():
    yield {{"seed": 1}}
    yield {{"seed": 2}}
"""


def everything(folder):
    return {str(p): p.is_file() and p.read_bytes() for p in folder.rglob("*")}


def is_one_line(result, message):
    status, shown, said = result
    assert status == 2, result
    assert shown == ""
    (line,) = said.splitlines()
    assert re.match("error: " + message, line), line


CONFIG = "--config=some.py"
# The command of each program, and its output flag.
PROGRAMS = {
    "train": (["launch.train", CONFIG], "workdir"),
    "sweep": (["launch.sweep", CONFIG], "workdir"),
    "pipeline": (["launch.pipeline", CONFIG], "workdir"),
    "import": (["launch.import_hf", "--hf=model"], "out"),
    "export": (["launch.export_hf", "--checkpoint=model"], "out"),
    "tiny": (["launch.tiny_hf"], "out"),
    "measure": (["launch.measure", "--checkpoint=model", "--text=some.txt"], "out"),
    "report": (["launch.report", "model"], "out"),
    "table": (["launch.report", "model"], "markdown"),
    "contamination": (["launch.contamination", "--text=some.py", "--tasks=some.py"], "out"),
}
NO_PLACES = {
    "": "is empty; set it to a path to write to",
    " ": "is empty; set it to a path to write to",
    "gs://bucket/x": "=gs://bucket/x: .* mount the bucket",
    "S3://bucket/x": "=S3://bucket/x: .* mount the bucket",
    "file:///tmp/x": "=file:///tmp/x: .* mount the bucket",
}
TAKEN = {
    "export over a file": (
        ["launch.export_hf", "--checkpoint=model", "--out=some.py"],
        "some.py exists already",
    ),
    "export below a file": (
        ["launch.export_hf", "--checkpoint=model", "--out=some.py/x"],
        "some.py/x cannot be written, because .*some.py is a file",
    ),
    "import below a file": (
        ["launch.import_hf", "--hf=model", "--out=some.py/x"],
        "some.py/x cannot be written, because .*some.py is a file",
    ),
    "import over its source": (
        ["launch.import_hf", "--hf=model", "--out=model"],
        "model exists already",
    ),
    "import through a link": (["launch.import_hf", "--hf=model", "--out=link"], "link exists"),
    "measure over a model": (
        ["launch.measure", "--checkpoint=model", "--text=some.txt", "--out=model"],
        "model exists already",
    ),
    "a long name": (["launch.tiny_hf", f"--out={'x' * 300}"], "x+ cannot be .*File name too long"),
    "train below a file": (
        ["launch.train", CONFIG, "--workdir=some.py/x"],
        "some.py/x cannot be written, because .*some.py is a file",
    ),
    "train in a model": (
        ["launch.train", CONFIG, "--workdir=model", "--config.init_from=model"],
        "model contains config.json, which this run has not written and would overwrite; use an",
    ),
    "a sweep below a file": (
        ["launch.sweep", CONFIG, "--workdir=some.py/x"],
        "some.py/x cannot be written, because .*some.py is a file",
    ),
    "contamination over a file": (
        ["launch.contamination", "--text=some.py", "--tasks=some.py", "--out=some.py"],
        "some.py exists already and is not what would be written there",
    ),
    "logs": (
        ["launch.sweep", CONFIG, "--workdir=sweep"],
        "sweep contains logs, which this sweep has not written",
    ),
    "a point": (
        ["launch.sweep", CONFIG, "--workdir=points", "--launcher=print"],
        "points/unchanged,seed=2: points/unchanged,seed=2 contains evaluation.json, which this run",
    ),
}

DEEP = '{"a": ' * 100_000 + "1" + "}" * 100_000
# Inputs: files of a model or a run, by folder.
DAMAGED = {
    "a file elsewhere": (
        ["launch.import_hf", "--hf=elsewhere", "--out=new"],
        "elsewhere/model.safetensors.index.json names the file '../model/model.safetensors', which",
    ),
    "a nested config": (
        ["launch.import_hf", "--hf=nested", "--out=new"],
        "nested/config.json cannot be read: it is not JSON .its values are nested",
    ),
    "a nested tokenizer": (
        ["launch.import_hf", "--hf=tokenizer", "--out=new"],
        "tokenizer tokenizer: cannot be read: ",
    ),
    "a nested config of a run": (
        ["launch.report", "nested", "--out=page.html"],
        "nested/config.json: not valid JSON .its values are nested",
    ),
    "a run of a nested config": (
        ["launch.train", CONFIG, "--workdir=of", "--config.init_from=nested"],
        "nested/config.json cannot be read: it is not JSON .its values are nested",
    ),
}


def damage(folder):
    """Make the folders of DAMAGED from a model."""
    for name in ("elsewhere", "nested", "tokenizer"):
        shutil.copytree(folder / "model", folder / name)
    (folder / "nested" / "config.json").write_text(DEEP)
    (folder / "tokenizer" / "tokenizer.json").write_text(DEEP)
    named = dict.fromkeys(folders.tensors(folder / "model"), "../model/model.safetensors")
    (folder / "elsewhere" / "model.safetensors").unlink()
    index = folder / "elsewhere" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": named}))


@pytest.fixture(scope="module")
def refused(programs, tmp_path_factory):
    """The result of each command; no command may change any file."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("outputs")
    folders.write(folder / "model")
    (folder / "some.py").write_text(SOME.format(fields=runs.flat_config(runs.COMPASS)))
    (folder / "link").symlink_to("nowhere")
    for path in ("sweep/logs/mine.log", "points/unchanged,seed=2/evaluation.json"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text("mine")
    damage(folder)
    before = everything(folder)
    lines = {
        name: [*words, f"--{flag}=gs://bucket/x"] for name, (words, flag) in PROGRAMS.items()
    } | {name: words for name, (words, _) in (TAKEN | DAMAGED).items()}
    ran = {name: programs.run(words, folder) for name, words in lines.items()}
    assert everything(folder) == before
    return ran


@pytest.mark.parametrize("place", NO_PLACES)
def test_what_is_no_place_to_write_to_is_refused(place):
    with pytest.raises(UserError, match=f"^--out.*{NO_PLACES[place]}"):
        program.check_output("out", place)
    program.check_output("out", "a folder")


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_asks_that_of_where_it_writes(name, refused):
    is_one_line(refused[name], f"--{PROGRAMS[name][1]}=gs://bucket/x: ")


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_in_the_way_is_named_and_kept(name, refused):
    is_one_line(refused[name], TAKEN[name][1])


@pytest.mark.parametrize("name", DAMAGED)
def test_what_cannot_be_read_is_named_and_nothing_is_written(name, refused):
    status, shown, said = refused[name]
    lines = [line for line in said.splitlines() if "tensor/s]" not in line]  # skip the progress bar
    is_one_line((status, shown, "\n".join(lines)), DAMAGED[name][1])


@pytest.mark.slow
def test_a_disk_that_is_full_while_saving_is_one_line_and_the_same_command_goes_on(
    programs, tmp_path
):
    folder = tmp_path / "here"
    folder.mkdir()
    size = {"model.vocab_size": 2048, "steps": 3, "evaluation.every": 0, "checkpoint.every": 1}
    fields = runs.flat_config(runs.TEXT, runs.text_file(folder), size)
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    words = ["launch.train", f"--config={ROOT}/configs/default.py", "--workdir=run", *flags]
    status, _, said = programs.run(
        words, folder, file_limit=100_000
    )  # a kernel takes 262,144 bytes
    assert status == 2
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.match(
        r"error: .*run/checkpoints cannot be written: File too large; .* \(ulimit -f\), or name "
        "another disk, then run the same command again",
        errors[0],
    )
    assert runs.steps(folder / "run") == []
    status, _, said = programs.run(words, folder)
    assert status == 0, said
    assert [line["step"] for line in runs.metrics(folder / "run")] == [1, 2, 3]
