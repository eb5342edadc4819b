"""Fixtures for several test modules of this folder."""

import fsspec
import pytest

from rlp.tokenizers.load import load_tokenizer
from rlp.tokenizers.tokenizer import Tokenizer
from tests.support import folders
from tests.support.pairs import TEMPLATE


@pytest.fixture(scope="module")
def chatty(tmp_path_factory) -> Tokenizer:
    """A byte tokenizer from a Hugging Face folder that contains a chat template."""
    folder = tmp_path_factory.mktemp("chatty")
    for name, content in (folders.byte_files() | {"chat_template.jinja": TEMPLATE}).items():
        (folder / name).write_text(content)
    return load_tokenizer(str(folder))


@pytest.fixture
def bucket():
    """Copy files to fsspec's memory file system; they are removed after the test."""
    memory = fsspec.filesystem("memory")
    yield lambda path, name: memory.put(str(path), f"/bucket/{name}")
    memory.rm("/bucket", recursive=True)
