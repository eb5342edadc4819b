"""A tiny model behind the server of `rlp.run.serve`, in a thread on a free port."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import jax

from models.sharding import make_mesh
from rlp.evaluation.runner.model import EvaluatedModel
from rlp.run import evaluated_models, serve
from rlp.serving.installed import app_and_server
from tests.support import folders

CHAT = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
NAME = "tiny"
CONTEXT = 192


def write(folder: Path) -> Path:
    """Write a model with one token per byte and a chat template to `hf` in a folder."""
    files = folders.byte_files() | {"chat_template.jinja": CHAT}
    return folders.write(folder / "hf", files=files, vocab_size=264)


def tiny_model(folder: Path) -> EvaluatedModel:
    """Write this model, and open it."""
    source = write(folder)
    mesh = make_mesh(devices=jax.devices()[:1])
    model = evaluated_models.open_on_mesh(NAME, str(source), mesh)
    return dataclasses.replace(model, longest=CONTEXT)


@dataclasses.dataclass(frozen=True)
class Served:
    """A model that is served at a URL."""

    url: str
    model: EvaluatedModel
    serving: serve.Serving


@contextlib.contextmanager
def served(model: EvaluatedModel, **settings) -> Iterator[Served]:
    """Serve a model until the end of the context."""
    ready = threading.Event()
    serving = serve.Serving(model, serve.Settings(**settings), ready.set)
    with contextlib.closing(app_and_server()[1].listening_socket("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=serving.run, args=(bound,))
        thread.start()
        assert ready.wait(60)
        try:
            yield Served(f"http://127.0.0.1:{bound.getsockname()[1]}", model, serving)
        finally:
            serving.end()
            thread.join(60)
            assert not thread.is_alive()
