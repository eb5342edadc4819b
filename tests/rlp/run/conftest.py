"""Finished runs and model folders that the tests of this folder share."""

import copy
import json
from pathlib import Path

import pytest

from rlp.data.compass import CompassProblems, CompassStream
from rlp.data.text_stream import TextStream
from rlp.metrics import warning_rules
from rlp.metrics.watch import Rule
from rlp.run import loop
from rlp.training.trainers import AnswerTrainer, NextTokenTrainer, RLPTrainer
from tests.support import folders, runs
from tests.support import hf as theirs
from tests.support.chats import OLD, ids_of, model

KINDS = {
    "next_token": (NextTokenTrainer, TextStream, runs.TEXT),
    "rlp": (RLPTrainer, CompassStream, runs.COMPASS | {"objective": "rlp"}),
    "rlp on text": (RLPTrainer, TextStream, runs.TEXT_RLP),
    "rlvr": (AnswerTrainer, CompassProblems, runs.COMPASS_RLVR),
}


@pytest.fixture(scope="module")
def early_warnings():
    """Make every run warn at steps 2 and 4, with the exact losses of the steps as the message."""
    judge = lambda past, settings: repr(past.values("loss"))
    rules = [Rule(f"{last} losses", ("loss",), judge, 1, last) for last in (1, 3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warning_rules, "RULES", rules)
        yield


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """Config fields for sixteen short documents."""
    return runs.text_file(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Return the folder of a config's uninterrupted run, cached; needs `early_warnings`."""
    made = {}

    def finish(config):
        key = json.dumps(config.to_dict())
        if key not in made:
            made[key] = tmp_path_factory.mktemp("run") / "whole"
            loop.train(config, made[key], report=False)
        return made[key]

    return finish


@pytest.fixture
def kind(request, text):
    """Return (trainer, stream, config) for one of KINDS."""
    trainer, stream, changes = KINDS[request.param]
    return trainer, stream, runs.config(changes, text if stream is TextStream else {})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the folder of a model of `tests.support.hf`, saved by transformers and cached."""
    made: dict[tuple[str, str], Path] = {}

    def save(name: str, dtype: str = "float32") -> Path:
        if (name, dtype) not in made:
            torch = pytest.importorskip("torch")
            folder = tmp_path_factory.mktemp("theirs") / name
            copy.deepcopy(theirs.their_model(name)).to(getattr(torch, dtype)).save_pretrained(
                folder
            )
            for file, content in folders.word_files().items():
                (folder / file).write_text(content)
            (folder / "generation_config.json").write_text(json.dumps(folders.GENERATION))
            made[name, dtype] = folder
        return made[name, dtype]

    return save


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return model(tmp_path_factory.mktemp("base") / "model", **{"chat_template.jinja": OLD})


@pytest.fixture(scope="module")
def number(base):
    return ids_of(base)
