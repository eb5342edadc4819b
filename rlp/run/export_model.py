"""A run, or a Hugging Face model, becomes a folder that transformers and vLLM load."""

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from models import hf
from models.transformer import Params, count_parameters
from rlp.interop import huggingface
from rlp.interop import init_from as starting
from rlp.run.model_files import check_tokenizer, config_ids, small_files
from rlp.run.opened_model import Opened
from rlp.runtime.errors import UserError
from rlp.runtime.progress import progress

LIBRARIES = ("jax", "flax", "orbax-checkpoint", "safetensors", "transformers")


def export_model(opened: Opened, out: Path, dtype: str, shard_bytes: int) -> hf.Family:
    """Writes a model in the Hugging Face format, with its tokenizer, whole or not at all.

    Args:
      opened: the model.
      out: the folder to make.
      dtype: of the weights.
      shard_bytes: most bytes of weights in a file.

    Raises:
      UserError: no family of models has such a network, or `out` exists or cannot be written.
    """
    files = exported_files(opened)
    family, config = _their_config(opened, dtype, files)
    check_tokenizer(opened.name, opened.method.tokenizer, files, config)
    tensors = hf.tensors(family, opened.method.model)
    record = {
        "checkpoint": opened.name,
        "step": opened.step,
        "parameters": count_parameters(opened.method.model),
        "config": opened.config.to_dict(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }

    def watch(written: Sequence[hf.Tensor]) -> Iterator[hf.Tensor]:
        with progress(len(written), 0, f"writing {out.name}", "tensor") as bar:
            for tensor in written:
                yield tensor
                bar.update(1)

    huggingface.write_folder(
        out,
        opened.params,
        tensors,
        config,
        dtype=dtype,
        files=files,
        record=record,
        shard_bytes=shard_bytes,
        watch=watch,
    )
    return family


def exported_files(opened: Opened) -> dict[str, Path | str]:
    """The small files of the export: name to content, or to a file to copy.

    Raises:
      UserError: the tokenizer cannot be made to put `data.bos` before a text.
    """
    known = starting.same_tokenizer(opened.config, opened.files)
    return small_files(opened.method, opened.files, known, opened.config.data)


def _their_config(
    opened: Opened, dtype: str, files: Mapping[str, Path | str]
) -> tuple[hf.Family, hf.Json]:
    """Family and config.json: the one that the model came with, where it still tells the truth."""
    model = opened.method.model
    given = {}
    if opened.files and (opened.files / huggingface.CONFIG).is_file():
        given = huggingface.read_config(opened.files)
    try:
        family = hf.family_of(given) if given else hf.family_for(model)
        fields = hf.replaced(given, model) if given else hf.write_config(family, model)
    except hf.Unsupported as error:
        raise UserError(f"{opened.name} cannot be exported: {error}") from error
    if not given:
        fields["max_position_embeddings"] = _longest(opened)
    known = starting.same_tokenizer(opened.config, opened.files)
    fields |= config_ids(opened.method, given, known, files, opened.config.data)
    fields.pop("dtype", None)
    return family, fields | {"torch_dtype": dtype}  # old readers know this name, new ones both


def _longest(opened: Opened) -> int:
    """Tokens of the longest text that the run has met: prompt, document, thought, target, tags."""
    rlp, words = opened.method.settings, opened.method.vocabulary
    tags = len(words.think_open) + len(words.think_close)
    document = opened.config.data.sequence_length
    return len(rlp.prompt) + document + tags + rlp.thought_length + rlp.horizon


def round_trip(params: Params, dtype: str) -> Params:
    """The parameters as they are read back from an export."""
    return jax.tree.map(lambda x: x.astype(dtype).astype(jnp.float32), params)
