"""Export a run to the Hugging Face format, which transformers and vLLM can load."""

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
    """Write a model and its tokenizer in the Hugging Face format, atomically.

    Args:
      opened: The model.
      out: The folder to create.
      dtype: The dtype of the weights.
      shard_bytes: The most bytes of weights per file.

    Returns:
      The model family of the export.

    Raises:
      UserError: If no Hugging Face model family has this architecture, or if `out` exists or cannot
        be written.
    """
    files = exported_files(opened)
    family, config = _hf_config(opened, dtype, files)
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
    """Return the small files of the export: name -> content, or a file to copy.

    Raises:
      UserError: If the tokenizer files cannot express `data.bos`.
    """
    known = starting.same_tokenizer(opened.config, opened.files)
    return small_files(opened.method, opened.files, known, opened.config.data)


def _hf_config(
    opened: Opened, dtype: str, files: Mapping[str, Path | str]
) -> tuple[hf.Family, hf.Json]:
    """Return the family and config.json: the original config.json, updated where it is outdated."""
    model = opened.method.model
    original = {}
    if opened.files and (opened.files / huggingface.CONFIG).is_file():
        original = huggingface.read_config(opened.files)
    try:
        family = hf.family_of(original) if original else hf.family_for(model)
        fields = hf.replaced(original, model) if original else hf.write_config(family, model)
    except hf.Unsupported as error:
        raise UserError(f"{opened.name} cannot be exported: {error}") from error
    if not original:
        fields["max_position_embeddings"] = longest_text(opened)
    known = starting.same_tokenizer(opened.config, opened.files)
    fields |= config_ids(opened.method, original, known, files, opened.config.data)
    fields.pop("dtype", None)
    return family, fields | {"torch_dtype": dtype}  # old versions of transformers need this name


def longest_text(opened: Opened) -> int:
    """Return the length of the longest training text: prompt, document, thought, target, tags."""
    rlp, words = opened.method.settings, opened.method.vocabulary
    tags = len(words.think_open) + len(words.think_close)
    document = opened.config.data.sequence_length
    return len(rlp.prompt) + document + tags + rlp.thought_length + rlp.horizon


def round_trip(params: Params, dtype: str) -> Params:
    """Return the parameters as they are after an export and a reload: rounded to `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype).astype(jnp.float32), params)
