"""Training from Python: the same runs as from the command line, inside a user's process."""

import _thread
import os
import signal
import threading

import pytest

import rlp
from rlp.run import loop
from rlp.run.from_python import StepMetrics
from rlp.runtime.config_json import load_config
from tests.support import easy_verifiers, runs
from tests.support.runs import one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device")

TINY = runs.flat_config(runs.COMPASS, {"objective": "rlp", "evaluation.every": 0})


def tiny(**changes):
    return rlp.config("configs/default.py", **TINY | changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a run, its folder, and the metrics passed to `on_step`."""
    folder, steps = tmp_path_factory.mktemp("python") / "run", []
    return rlp.train(tiny(), workdir=folder, on_step=steps.append), folder, steps


def test_a_config_has_the_fields_that_are_given():
    made = rlp.config("configs/text.py:rlp", steps=20, **{"rlp.group_size": 4})
    assert (made.objective, made.steps, made.rlp.group_size) == ("rlp", 20, 4)
    assert rlp.config(made, steps=3).steps == 3
    assert made.steps == 20


def test_a_config_refuses_as_the_command_line_does():
    with pytest.raises(rlp.UserError, match="did you mean rlp.group_size") as caught:
        rlp.config("configs/text.py", **{"rlp.groop_size": 4})
    assert caught.value.field == "rlp.groop_size"
    with pytest.raises(rlp.UserError, match="steps must be an integer"):
        rlp.config("configs/text.py", steps="many")
    with pytest.raises(rlp.UserError, match="rlp.group_size"):
        rlp.config("configs/text.py", **{"rlp.group_size": [4]})


def test_objects_are_recorded_by_their_names():
    verifier = {"data.problems.verifier": easy_verifiers.ANYTHING}
    made = rlp.config("configs/rlvr.py", **verifier)
    assert made.data.problems.verifier == "tests.support.easy_verifiers:ANYTHING"
    with pytest.raises(rlp.UserError, match="objective is a lambda"):
        rlp.config("configs/text.py", objective=lambda outcome: 0.0)


def test_a_run_is_that_of_the_command_line(trained, tmp_path):
    run, folder, steps = trained
    loop.train(tiny(), tmp_path / "run")
    left_out = {"report.html", "plots"}  # only the command line writes them by default
    names = lambda at: {path.name for path in at.iterdir()} - left_out
    assert names(folder) == names(tmp_path / "run")
    assert runs.outcome(folder) == runs.outcome(tmp_path / "run")
    assert [step["step"] for step in steps] == list(range(1, 8))
    assert run.metrics[-1]["loss"] == steps[-1]["loss"]


def test_a_step_is_printed_as_one_line():
    assert str(StepMetrics(step=3, loss=1.25, seconds_data=1.0)) == "step 3: loss 1.25"
    thoughts = StepMetrics(step=3, loss=1e-9, reward_mean=0.5, closed_fraction=1.0)
    assert str(thoughts) == "step 3: reward_mean 0.5, closed_fraction 1"


def test_the_folder_has_to_be_named():
    with pytest.raises(rlp.UserError, match="workdir is missing; name the run folder"):
        rlp.train(tiny())


def test_documents_may_be_files_or_code(tmp_path, monkeypatch):
    text = runs.flat_config(runs.TEXT, {"steps": 1, "evaluation.every": 0})
    plain = rlp.config("configs/default.py", **text)
    file = runs.text_file(tmp_path)["data.train"]
    (tmp_path / "my_documents.py").write_text(
        f"import json\nTEXTS = [json.loads(line)['text'] for line in open({file!r})]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import my_documents

    by_path = rlp.train(plain, data=file, workdir=tmp_path / "files")
    by_code = rlp.train(plain, data=my_documents.TEXTS, workdir=tmp_path / "code")
    assert by_code.config.data.kind == "my_documents:TEXTS"
    assert by_path.metrics["loss"] == by_code.metrics["loss"]
    with pytest.raises(rlp.UserError, match="data is an object of type list that is not a"):
        rlp.train(plain, data=["a text"], workdir=tmp_path / "none")
    my_documents.TEXTS[0] = "another text"
    more = rlp.config(plain, steps=2)
    with pytest.raises(rlp.UserError, match="contains a run with a different config"):
        rlp.train(more, data=my_documents.TEXTS, workdir=tmp_path / "code")
    assert not (tmp_path / "none").exists()


def test_an_experiment_gives_its_arms(tmp_path):
    made = tiny(steps=1, objective="next_token")
    with made.unlocked():
        made.arms = {"second": {"init_from": "first"}, "first": {}}
    steps = []
    experiment = rlp.train(made, workdir=tmp_path / "two", on_step=steps.append)
    assert list(experiment.arms) == ["first", "second"]  # in the order in which they ran
    assert len(steps) == 2
    assert experiment["second"].metrics[-1]["loss"] == steps[-1]["loss"]
    assert experiment.evaluation["first"]["step"] == 1
    assert "second" in repr(experiment)
    assert "<table>" in experiment._repr_html_()
    assert not (tmp_path / "two" / "report.html").exists()
    with pytest.raises(rlp.UserError, match="contains an experiment; open it with rlp.Experiment"):
        rlp.Run(tmp_path / "two")


def test_ctrl_c_saves_and_the_same_call_resumes(tmp_path, trained):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    seen = []

    def interrupt(metrics):
        seen.append(signal.getsignal(signal.SIGTERM))
        if metrics["step"] == 3:
            _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt, match="the state is saved in .*stopped"):
        rlp.train(tiny(), workdir=tmp_path / "stopped", on_step=interrupt)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert set(seen) == {handlers[1]}  # also while steps ran
    run = rlp.Run(tmp_path / "stopped")
    assert not run.finished
    assert len(run.metrics) == 3
    assert "stopped after 3 steps" in repr(run)
    with pytest.raises(rlp.UserError, match="has not finished"):
        _ = run.evaluation
    resumed = rlp.train(tiny(), workdir=tmp_path / "stopped")
    assert resumed.metrics["loss"] == trained[0].metrics["loss"]


def test_training_works_in_another_thread(tmp_path):
    done = []
    work = lambda: done.append(rlp.train(tiny(steps=1), workdir=tmp_path / "run"))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done[0].finished


def test_a_run_shows_itself(trained, capsys):
    run, folder, _ = trained
    assert capsys.readouterr().out == ""
    assert "Accuracy greedy thinking" in repr(run)
    assert "<table>" in run._repr_html_()
    assert repr(run.metrics).endswith(f"last steps of 7; {len(run.metrics.names)} metrics in total")
    shown = run.metrics._repr_html_()
    assert "data:image/png;base64," in shown
    assert "<th" in shown
    assert "information gain" in repr(run.evaluation)
    assert run.evaluation["step"] == 7
    assert run.config == load_config(folder / "config.json")
    assert [warning["name"] for warning in run.warnings] == [
        warning["name"] for warning in runs.outcome(folder)["warnings"]
    ]


def test_metrics_are_rows_and_columns(trained):
    metrics = trained[0].metrics
    assert len(metrics) == 7
    assert metrics["step"] == [row["step"] for row in metrics]
    assert metrics[-1]["step"] == 7
    assert [row["step"] for row in metrics[2:4]] == [3, 4]
    with pytest.raises(KeyError, match="no step has the metric 'losss'; use one of step"):
        metrics["losss"]


def test_the_thought_browser_and_the_report_are_pages_inside_of_the_notebook(trained):
    run, folder, _ = trained
    browser = run.thoughts._repr_html_()
    assert browser.startswith('<iframe srcdoc="<!doctype html>')
    assert browser.count('"') == 2 * browser.count('="')  # quotes in the page are escaped
    assert "browser" in repr(run.thoughts)
    report = run.report()
    assert (folder / "report.html").is_file()
    assert str(os.fspath(folder / "report.html")) in repr(report)
