"""Fixtures that several modules of this folder use."""

import copy
import json
from pathlib import Path

import pytest

from tests.support import folders
from tests.support import hf as theirs
from tests.support.chats import OLD, ids_of, model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(name, dtype) -> the folder of a model of `tests.support.hf`, saved by transformers once."""
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
