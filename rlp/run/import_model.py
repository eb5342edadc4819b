"""Import a model in the Hugging Face format as checkpoint 0 of a run, for use as `init_from`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs.default import Config
from rlp.interop import init_from as starting
from rlp.run.method import build_method
from rlp.run.model_files import small_files
from rlp.run.opened_model import Opened, conversion_mesh, open_model
from rlp.runtime import run_folder
from rlp.runtime.atomic_files import refuse_existing, unfinished
from rlp.runtime.config_json import save_config
from rlp.runtime.errors import UserError
from rlp.tokenizers.folder_reader import add_tokens
from rlp.training.checkpoint import Checkpoints

MEAN = "mean"  # initialize new embedding rows with the mean of the existing rows


def import_model(
    name: str, out: Path, default: ConfigDict, *, new_tokens: Sequence[str] = (), like: str = MEAN
) -> Opened:
    """Write a model in the Hugging Face format as a run with 0 steps.

    Args:
      name: The folder of the model, or its name on the hub.
      out: The folder to create, atomically.
      default: The config of the run, except for the architecture.
      new_tokens: Special tokens to add to the tokenizer.
      like: How to initialize their rows of the embedding (and of the output projection): "mean" of
        the rows of all tokens, or the row of the token with this text.

    Returns:
      The opened model, with `name` as its name.

    Raises:
      UserError: If `out` exists, or the model cannot be used.
    """
    refuse_existing(out)
    start = starting.find(name)
    if start.config is not None or start.files is None:
        raise UserError(f"{name} is a run folder, not a model in the Hugging Face format")
    try:
        with unfinished(out) as folder:
            starting.copy_files(start.files, folder)
            opened = open_model(name, default, conversion_mesh())
            # Raises if the tokenizer files could not be exported.
            small_files(opened.method, folder / run_folder.HF, True, opened.config.data)
            if new_tokens:
                opened = _with_tokens(opened, folder / run_folder.HF, new_tokens, like)
            save_config(opened.config, folder / run_folder.CONFIG)
            with Checkpoints(folder / run_folder.CHECKPOINTS, keep=1) as checkpoints:
                checkpoints.save(0, {"params": opened.params})
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error}); free it or name another") from error
    # Open the copied files: the original ones may be deleted.
    method = build_method(Config.of(opened.config), out / run_folder.HF)
    return dataclasses.replace(opened, method=method, step=0, files=out / run_folder.HF)


def _with_tokens(opened: Opened, files: Path, names: Sequence[str], like: str) -> Opened:
    """Return the model with special tokens added, and add them to its tokenizer in `files`."""
    tokenizer, before = opened.method.tokenizer, opened.method.model
    used = tokenizer.vocab_size
    source: Any = slice(0, used)
    if like != MEAN:
        ids = tokenizer.encode(like)
        if len(ids) != 1 or tokenizer.decode(ids) != like:  # may have become the unknown token
            raise UserError(
                f"{like!r} is not a single token of the tokenizer; name one, or {MEAN!r}"
            )
        source = slice(ids[0], ids[0] + 1)
    new_ids = add_tokens(files, names)
    size = before.vocab_size
    if max(new_ids) >= size:
        size = -(-(max(new_ids) + 1) // 64) * 64
    rows = jnp.asarray(new_ids)

    def extended(x: jax.Array, axis: int) -> jax.Array:
        """Add the new rows along `axis`."""
        x = jnp.moveaxis(x, axis, 0)
        initial = x[source].mean(axis=0, keepdims=True)
        x = jnp.pad(x, [(0, size - before.vocab_size)] + [(0, 0)] * (x.ndim - 1))
        return jnp.moveaxis(
            x.at[rows].set(jnp.broadcast_to(initial, (len(new_ids), *x.shape[1:]))), 0, axis
        )

    params = dict(opened.params)
    params["embedding"] = extended(params["embedding"], 0)
    if "head" in params:
        params["head"] = {"kernel": extended(params["head"]["kernel"], 1)}
    opened.config.model.vocab_size = size
    method = build_method(Config.of(opened.config), files)
    return dataclasses.replace(opened, params=params, method=method, files=files)
