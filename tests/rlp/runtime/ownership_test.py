"""A run, an experiment and a sweep never change files that they did not write."""

import json
import os
import shutil
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import default
from rlp.interop import init_from
from rlp.run import experiment, loop, resume
from rlp.runtime import atomic_files, disk_errors, ownership, run_folder
from rlp.runtime.errors import UserError
from rlp.training.trainers import NextTokenTrainer
from tests.support import folders, runs
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device")

SHORT = {"steps": 2, "evaluation.every": 0, "checkpoint.every": 1}


def everything(folder: Path) -> dict:
    """Return everything below a folder: folders, contents of files, and targets of links."""
    content = lambda path: (
        os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
    )
    return {str(path.relative_to(folder)): content(path) for path in folder.rglob("*")}


def config(*changes):
    return runs.config(runs.COMPASS, SHORT, *changes)


def refused(action, folder, *words):
    """Check that `action` raises one line with these words and changes nothing in `folder`."""
    before = everything(folder)
    with pytest.raises(UserError) as caught:
        action()
    assert everything(folder) == before
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("transformers")
    return folders.write(tmp_path_factory.mktemp("theirs") / "model", 3)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return runs.text_file(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, one_device):  # noqa: F811
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    loop.train(config(), workdir)
    return workdir


def put_file(path):
    path.write_text("mine")


def put_folder(path):
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def put_link(path):
    put_folder(path.parent / "elsewhere")
    path.symlink_to("elsewhere")


def put_dangling_link(path):
    path.symlink_to("nowhere")


PUTS = [put_file, put_folder, put_link, put_dangling_link]


# Files of others that a run would overwrite.


def test_the_names_are_all_that_a_run_writes(finished):
    written = {path.name for path in finished.iterdir()}
    others = {"hf", "responses.json", "logs", "profile"}
    others |= {"metrics.damaged.jsonl", "metrics.declared.json"}
    assert written == {*run_folder.WRITTEN["run"], run_folder.OWNER} - others


@pytest.mark.parametrize("put", PUTS)
@pytest.mark.parametrize("name", [*run_folder.WRITTEN["run"], run_folder.OWNER])
def test_a_new_run_refuses_a_folder_with_one_of_its_names(name, put, tmp_path):
    put(tmp_path / name)
    refused(lambda: loop.train(config(), tmp_path), tmp_path, str(tmp_path), name)
    (tmp_path / "link").symlink_to(tmp_path)
    refused(lambda: loop.train(config(), tmp_path / "link"), tmp_path, name)


@pytest.mark.parametrize("content", ['{"owner": "me"}', '{"owner": "run"}', "[]", "{", "\0"])
def test_a_record_of_another_program_is_not_taken_for_ours(content, tmp_path):
    (tmp_path / "owner.json").write_text(content)
    refused(lambda: loop.train(config(), tmp_path), tmp_path, "owner.json")


@pytest.mark.parametrize("put", PUTS)
@pytest.mark.parametrize("name", [*run_folder.WRITTEN["experiment"], run_folder.OWNER, "arm"])
def test_a_new_experiment_refuses_a_folder_with_one_of_its_names(name, put, tmp_path):
    run_config = config()
    run_config.arms = ConfigDict({"first": {}, "arm": {"init_from": "first"}})
    path, message = tmp_path / name, name
    if name == "arm":
        path.mkdir()
        path, message = path / "checkpoints", "arm contains checkpoints"
    put(path)
    refused(lambda: experiment.run(run_config, tmp_path), tmp_path, message)


def test_an_arm_is_not_called_like_a_folder_of_its_experiment(tmp_path):
    run_config = config()
    run_config.arms = ConfigDict({"plots": {}})
    message = "the arm name 'plots' is reserved"
    refused(lambda: experiment.run(run_config, tmp_path), tmp_path, message)


def test_the_folder_of_a_run_is_not_that_of_an_experiment(finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    run_config = config()
    run_config.arms = ConfigDict({"a": {}})
    refused(lambda: experiment.run(run_config, workdir), workdir, "belongs to another run")


@pytest.mark.parametrize("way", ["name", "absolute", "dots", "link", "folder link"])
def test_the_model_that_a_run_starts_from_survives_in_every_spelling(
    way, model, text, tmp_path, monkeypatch
):
    """The model is in the run directory, under the name of the copy that the run would make."""
    workdir = tmp_path / "w"
    shutil.copytree(model, workdir / "hf")
    (tmp_path / "to_model").symlink_to(workdir / "hf")
    (tmp_path / "to_folder").symlink_to(workdir)
    monkeypatch.chdir(workdir)
    source, target = {
        "name": ("hf", workdir),
        "absolute": (str(workdir / "hf"), Path()),
        "dots": ("../w/hf", workdir),
        "link": (str(tmp_path / "to_model"), workdir),
        "folder link": ("hf", tmp_path / "to_folder"),
    }[way]
    run_config = runs.config(runs.TEXT, text, SHORT, {"init_from": source})
    refused(lambda: loop.train(run_config, target), tmp_path, "hf")
    refused(lambda: loop.train(run_config, "hf"), tmp_path, "config.json")


# Files of others that are left alone.


def test_other_files_are_left_alone_also_in_nested_folders(model, text, tmp_path):
    source = shutil.copytree(model, tmp_path / "w" / "models" / "mine")
    (tmp_path / "w" / "notes.txt").write_text("mine")
    (tmp_path / "w" / "plots").mkdir()  # an empty folder counts as missing
    (tmp_path / "link").symlink_to(source)
    before = everything(tmp_path)
    run_config = runs.config(runs.TEXT, text, SHORT, {"init_from": str(tmp_path / "link")})
    inside = source / "runs" / "first"
    for workdir in (tmp_path / "w", inside):  # a parent of the model's folder, and a folder in it
        loop.train(run_config, workdir)
        assert folders.below(workdir / "hf").keys() >= {"config.json", "tokenizer.json"}
    after = everything(tmp_path)
    assert before == {name: after[name] for name in before}
    made = {Path(name).parts[1] for name in after.keys() - before.keys()}
    assert made - {"models"} <= {*run_folder.WRITTEN["run"], run_folder.OWNER}


def test_files_that_a_run_did_not_make_are_not_its_own(finished, model, tmp_path):
    """A user puts a model, such as an export, into the directory of a run without `hf`."""
    workdir = shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(model, workdir / "hf")
    mine = everything(workdir / "hf")
    assert init_from.find(str(workdir)).files is None
    more = config({"steps": 3})
    assert init_from.files_for(more, workdir) is None
    assert loop.train(more, workdir, allow_config_change=True, report=False)["step"] == 3
    assert everything(workdir / "hf") == mine
    shutil.rmtree(workdir / "checkpoints")  # without checkpoints it may start from another model
    other = config({"init_from": str(model), "data.kind": "text"})
    refused(
        lambda: loop.train(other, workdir, allow_config_change=True), workdir, "hf is in the way"
    )


@pytest.mark.parametrize("change", ["more", "folder", "link"])
def test_a_copy_that_is_no_longer_the_run_s_is_not_replaced(change, model, tmp_path):
    workdir, copy = tmp_path / "run", tmp_path / "run" / "hf"
    init_from.copy_files(model, workdir)
    if change == "more":
        put_file(copy / "model.safetensors")
    elif change == "folder":
        put_folder(copy / "notes")
    else:
        copy.rename(tmp_path / "elsewhere")
        copy.symlink_to(tmp_path / "elsewhere")
    other = folders.write(tmp_path / "other", hidden_size=16)
    for files in (other, None):
        refused(lambda files=files: init_from.copy_files(files, workdir), workdir, "in the way")


def test_a_copy_replaces_the_one_before_only_when_it_is_whole(model, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    init_from.copy_files(model, workdir)
    before = everything(workdir)
    other = folders.write(tmp_path / "other", hidden_size=16)
    copy, calls = shutil.copyfile, []

    def fails(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", fails)
        with pytest.raises(OSError, match="No space left"):
            init_from.copy_files(other, workdir)
    assert everything(workdir) == before
    init_from.copy_files(other, workdir)
    assert (workdir / "hf/config.json").read_bytes() == (other / "config.json").read_bytes()


def test_a_link_to_an_empty_folder_may_be_where_checkpoints_go(tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "large")
    loop.train(config(), tmp_path / "run", report=False)
    assert runs.steps(tmp_path / "run") == [1, 2]
    assert (tmp_path / "large" / "2").is_dir()


# A folder that belongs to the run.


@pytest.mark.parametrize(
    ("moment", "files"),
    [
        ((ownership, "claim", 1), True),
        ((ownership, "claim", -1), False),
        ((resume, "save_config", 1), True),
    ],
    ids=["before its record", "after its record", "before its config"],
)
def test_killed_while_it_begins_a_run_begins_again(moment, files, model, text, tmp_path):
    source = {"init_from": str(model)} if files else {}
    run_config = runs.config(runs.TEXT, text, SHORT, source)
    with crash_at(*moment), pytest.raises(Crash):
        loop.train(run_config, tmp_path / "run", report=False)
    assert not (tmp_path / "run" / "config.json").exists()
    loop.train(run_config, tmp_path / "run", report=False)
    loop.train(run_config, tmp_path / "whole", report=False)
    assert runs.outcome(tmp_path / "run") == runs.outcome(tmp_path / "whole")
    assert (tmp_path / "run" / "hf").exists() == files


def test_a_run_of_which_only_config_and_checkpoints_were_copied_resumes(finished, tmp_path):
    workdir, run_config = tmp_path / "run", config({"steps": 4})
    with crash_at(NextTokenTrainer, "step", 4), pytest.raises(Crash):
        loop.train(run_config, tmp_path / "whole", report=False)
    shutil.copytree(tmp_path / "whole" / "checkpoints", workdir / "checkpoints")
    shutil.copy(tmp_path / "whole" / "config.json", workdir)
    assert loop.train(run_config, workdir, report=False)["step"] == 4
    assert ownership.made_files(workdir) is False


def test_a_copy_of_another_program_s_checkpoints_is_refused(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished / "checkpoints", workdir / "checkpoints")
    (workdir / "config.json").write_text('{"model_type": "llama", "data": 1}')
    refused(lambda: loop.train(config(), workdir), workdir, "config.json", "checkpoints")


def test_a_run_whose_tokenizer_is_gone_says_so(model, text, tmp_path):
    run_config = runs.config(runs.TEXT, text, SHORT, {"init_from": str(model)})
    with crash_at(NextTokenTrainer, "step", 2), pytest.raises(Crash):
        loop.train(run_config, tmp_path, report=False)
    shutil.rmtree(tmp_path / "hf")
    refused(
        lambda: loop.train(run_config, tmp_path),
        tmp_path,
        "hf, which has the tokenizer of this run, is missing",
    )
    refused(
        lambda: init_from.find(str(tmp_path)),
        tmp_path,
        "hf, which has the tokenizer of this run, is missing",
    )


@pytest.mark.parametrize("content", ["", "{}"])
def test_a_damaged_evaluation_is_made_again_from_the_last_checkpoint(finished, tmp_path, content):
    workdir = shutil.copytree(finished, tmp_path / "run")
    (workdir / "evaluation.json").write_text(content)
    if content != "{}":
        run_config = config({"match": f"{workdir}:flops"})
        refused(
            lambda: loop.train(run_config, tmp_path / "x"), tmp_path, "evaluation.json cannot be"
        )
    made = runs.timeless(loop.train(config(), workdir))
    assert made == runs.timeless(json.loads((finished / "evaluation.json").read_text()))
    assert runs.outcome(workdir) == runs.outcome(finished)


def test_a_damaged_evaluation_without_a_checkpoint_is_named(finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints")
    (workdir / "evaluation.json").write_text("{")
    refused(lambda: loop.train(config(), workdir), workdir, "evaluation.json cannot be read")


# Folders that cannot be written.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "file is a file; give a folder"),
        ("file/x", "file is a file; name another folder"),
        ("file/x/y", "file is a file; name another folder"),
        ("dangling", "is a link to nowhere, which does not exist"),
        ("dangling/x", "is a link to nowhere, which does not exist"),
        ("x" * 300, "File name too long; choose a shorter name"),
        (f"a/{'x' * 300}/b", "File name too long; choose a shorter name"),
        ("loop/x", "Too many levels of symbolic links"),
    ],
)
def test_a_folder_that_cannot_be_made_is_refused_at_once(name, message, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setattr(loop.memory_check, "build", None)
    monkeypatch.setattr(experiment.memory_check, "build", None)
    refused(lambda: loop.train(config(), tmp_path / name), tmp_path, message)
    run_config = config()
    run_config.arms = ConfigDict({"a": {}})
    refused(lambda: experiment.run(run_config, tmp_path / name), tmp_path, message)


def test_a_folder_that_may_not_be_written_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_errors.os, "access", lambda path, mode: Path(path) != tmp_path)
    for workdir in (tmp_path, tmp_path / "a" / "b"):
        refused(lambda w=workdir: loop.train(config(), w), tmp_path, "Permission denied")


def test_after_a_full_disk_the_same_command_resumes(tmp_path, monkeypatch):
    """The disk is full at each of the files of a run in turn."""
    write = atomic_files.write_whole
    names = ["owner.json", "config.json", "warnings.json", "thoughts.json", "evaluation.json"]
    for name in names:

        def full(path, content, name=name):
            if path.name == name:
                raise OSError(28, "No space left on device")
            return write(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(atomic_files, "write_whole", full)
            with pytest.raises(UserError, match="written: No space left on device; free some"):
                loop.train(config(), tmp_path / "run", report=False)
        assert not (tmp_path / "run" / name).exists()
    loop.train(config(), tmp_path / "run", report=False)
    loop.train(config(), tmp_path / "whole", report=False)
    assert runs.outcome(tmp_path / "run") == runs.outcome(tmp_path / "whole")


def test_other_errors_are_not_reported_as_disk_errors(tmp_path):
    for error in (ValueError("no"), RuntimeError("no"), KeyError("no"), UserError("no")):
        with pytest.raises(type(error), match="^'?no'?$"), disk_errors.writing(tmp_path):
            raise error
    text = "OUT_OF_RANGE: Failed writing: to file 26: File too large [os_error_code='27']"
    with (
        pytest.raises(UserError, match="File too large; raise the limit"),
        disk_errors.writing(tmp_path),
    ):
        raise ValueError(text)


def test_a_model_s_config_is_not_a_run_s(model, tmp_path):
    """A run may start from that folder, but not in it."""
    assert init_from.find(str(model)).config is None
    workdir = shutil.copytree(model, tmp_path / "model")
    assert json.loads((workdir / "config.json").read_text())["model_type"] == "qwen3"
    run_config = default.get_config()
    run_config.init_from = str(workdir)
    refused(lambda: loop.train(run_config, workdir), workdir, "config.json, which this run has not")


@pytest.mark.parametrize("inside", ["checkpoints/9", "plots/run", "hf"])
def test_a_run_among_the_files_of_another_is_refused(inside, tmp_path):
    ownership.claim(tmp_path / "run", "run")
    with pytest.raises(UserError, match="is among the files of the run in"):
        ownership.check(tmp_path / "run" / inside, "run")
    ownership.check(tmp_path / "run" / "mine", "run")  # not a name that a run uses
