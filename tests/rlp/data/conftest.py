"""Fixtures that several modules of this folder use."""

import fsspec
import pytest

from rlp.tokenizers.load import load_tokenizer
from rlp.tokenizers.tokenizer import Tokenizer
from tests.support import folders
from tests.support.pairs import TEMPLATE


@pytest.fixture(scope="module")
def chatty(tmp_path_factory) -> Tokenizer:
    """Bytes as a Hugging Face folder with a chat template of its own."""
    folder = tmp_path_factory.mktemp("chatty")
    for name, content in (folders.byte_files() | {"chat_template.jinja": TEMPLATE}).items():
        (folder / name).write_text(content)
    return load_tokenizer(str(folder))


@pytest.fixture
def bucket():
    """Puts files into fsspec's memory; they are gone after the test."""
    memory = fsspec.filesystem("memory")
    yield lambda path, name: memory.put(str(path), f"/bucket/{name}")
    memory.rm("/bucket", recursive=True)
