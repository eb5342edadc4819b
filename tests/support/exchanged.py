"""Import and open models of transformers, and compare logits."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from models import hf
from models.transformer import bind
from models.tree import Trunk, forward
from rlp.interop.huggingface import verify
from rlp.run import import_model, opened_model
from tests.support import folders, tiny
from tests.support import hf as theirs

CPU = opened_model.conversion_mesh()

ROWS, USED = theirs.BASE["vocab_size"], len(folders.WORDS)
GB = 10**9


def opened(name: Path | str) -> opened_model.Opened:
    return opened_model.open_model(str(name), default.get_config(), CPU)


def imported(folder: Path, out: Path, **options) -> opened_model.Opened:
    return import_model.import_model(str(folder), out, default.get_config(), **options)


def loaded(folder: Path):
    """Load a folder with transformers in float32."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()


@tiny.jit
def all_logits(model, trunk: Trunk) -> jax.Array:
    return model.logits(forward(model, trunk))


def our_logits(model, params, tokens: np.ndarray) -> np.ndarray:
    position = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None], tokens.shape)
    trunk = Trunk(jnp.asarray(tokens, jnp.int32), jnp.ones_like(position), position)
    return np.asarray(all_logits(bind(model, params), trunk))


def assert_same_logits(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.std(expected) > 0.5
    assert np.abs(found - expected).max() <= 1e-5 * (expected.max() - expected.min())


def without_dtype(config: hf.Json) -> hf.Json:
    return {name: x for name, x in config.items() if name not in ("dtype", "torch_dtype")}


def compared(ours: opened_model.Opened, folder: Path, tokens: int) -> list[verify.Comparison]:
    """Compare the continuations of a prompt of three tokens by transformers and by our model."""
    prompt = verify.Prompt("w7 w30", [1, 7, 30])
    theirs_now = verify.TransformersModel(folder)
    return verify.compare(
        theirs_now, ours.method.model, ours.params, [prompt], tokens, theirs_now.ends
    )


def two_names(count: int) -> list[str]:
    return [f"<|{i}|>" for i in range(count)]
