"""A model in the Hugging Face format becomes checkpoint 0 of a run, which others start from."""

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
from rlp.run.opened_model import Opened, conversion_device, open_model
from rlp.runtime import run_folder
from rlp.runtime.atomic_files import refuse_existing, unfinished
from rlp.runtime.config_json import save_config
from rlp.runtime.errors import UserError
from rlp.tokenizers.folder_reader import add_tokens
from rlp.training.checkpoint import Checkpoints

MEAN = "mean"  # what rows of new tokens begin with, if not like those of another


def import_model(
    name: str, out: Path, default: ConfigDict, *, new_tokens: Sequence[str] = (), like: str = MEAN
) -> Opened:
    """Writes a model in the Hugging Face format as a run of no steps.

    Args:
      name: its folder, or its name on the hub.
      out: the folder to make; it appears whole or not at all.
      default: its config, but for the network.
      new_tokens: special tokens to add to its tokenizer.
      like: what their rows of the embedding (and of the logits' matrix) begin as: "mean" of the
        rows of all tokens, or the row of the token of this name.

    Returns:
      What opening `out` gives, under the name that the model came by.

    Raises:
      UserError: `out` exists, or the model cannot be used.
    """
    refuse_existing(out)
    start = starting.find(name)
    if start.config is not None or start.files is None:
        raise UserError(f"{name} is the folder of a run, no model in the Hugging Face format")
    try:
        with unfinished(out) as folder:
            starting.copy_files(start.files, folder)
            opened = open_model(name, default, conversion_device())
            # Refuses small files that an export could not be made of.
            small_files(opened.method, folder / run_folder.HF, True, opened.config.data)
            if new_tokens:
                opened = _with_tokens(opened, folder / run_folder.HF, new_tokens, like)
            save_config(opened.config, folder / run_folder.CONFIG)
            with Checkpoints(folder / run_folder.CHECKPOINTS, keep=1) as checkpoints:
                checkpoints.save(0, {"params": opened.params})
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error}); free it or name another") from error
    # What it was made from may go, or has gone.
    method = build_method(Config.of(opened.config), out / run_folder.HF)
    return dataclasses.replace(opened, method=method, step=0, files=out / run_folder.HF)


def _with_tokens(opened: Opened, files: Path, names: Sequence[str], like: str) -> Opened:
    """The model with special tokens added, to its tokenizer in `files` too."""
    tokenizer, before = opened.method.tokenizer, opened.method.model
    used = tokenizer.vocab_size
    source: Any = slice(0, used)
    if like != MEAN:
        ids = tokenizer.encode(like)
        if len(ids) != 1 or tokenizer.decode(ids) != like:  # a word may have become "unknown"
            raise UserError(f"{like!r} is not one token of the tokenizer; name one, or {MEAN!r}")
        source = slice(ids[0], ids[0] + 1)
    places = add_tokens(files, names)
    size = before.vocab_size
    if max(places) >= size:
        size = -(-(max(places) + 1) // 64) * 64
    rows = jnp.asarray(places)

    def grown(x: jax.Array, axis: int) -> jax.Array:
        """With the new rows, on `axis`."""
        x = jnp.moveaxis(x, axis, 0)
        begin = x[source].mean(axis=0, keepdims=True)
        x = jnp.pad(x, [(0, size - before.vocab_size)] + [(0, 0)] * (x.ndim - 1))
        return jnp.moveaxis(
            x.at[rows].set(jnp.broadcast_to(begin, (len(places), *x.shape[1:]))), 0, axis
        )

    params = dict(opened.params)
    params["embedding"] = grown(params["embedding"], 0)
    if "head" in params:
        params["head"] = {"kernel": grown(params["head"]["kernel"], 1)}
    opened.config.model.vocab_size = size
    method = build_method(Config.of(opened.config), files)
    return dataclasses.replace(opened, params=params, method=method, files=files)
