"""Build a generator of responses from an opened model."""

from models.hf.fields import COUNT, Unsupported, checked
from models.layers.registry import check_layers
from models.sharding import batch_shards
from rlp.evaluation.generation.generator import Generator
from rlp.interop import huggingface
from rlp.run import prompts
from rlp.run.export_model import longest_text
from rlp.run.method import as_user_error
from rlp.run.opened_model import Opened
from rlp.runtime.errors import UserError

LONGEST = "max_position_embeddings"
TEXTS = 64  # generated at a time on every device
TOKENS = 2**16  # held at a time on every device; 3 GiB of caches with 135M parameters in float32


def build_generator(opened: Opened, texts: int = TEXTS, tokens: int = TOKENS) -> Generator:
    """Return a generator on the mesh of an opened model.

    Args:
      opened: The model.
      texts: The most responses that a device generates at a time.
      tokens: The most tokens of prompts and responses that a device holds at a time.

    Raises:
      UserError: If the layers of the model cannot be computed on the mesh, or its config.json has
        no valid context.
    """
    model, shards = opened.method.model, batch_shards(opened.mesh)
    as_user_error(lambda: check_layers(model, opened.mesh.shape["tensor"]))
    return Generator(
        model=model,
        params=opened.params,
        mesh=opened.mesh,
        decode=opened.method.tokenizer.decode,
        banned=prompts.unused_ids(opened),
        context=context(opened),
        texts=texts * shards,
        tokens=tokens * shards,
    )


def context(opened: Opened) -> int | None:
    """Return the most tokens of a text; None if there is no limit.

    It is that of the model's config.json. A run without one has the length of its longest training
    text, as its export would say: positions beyond it are ones that the network has never read.

    Raises:
      UserError: If the value in config.json is not a number of tokens.
    """
    if opened.files is None or not (opened.files / huggingface.CONFIG).is_file():
        return None if opened.step is None else longest_text(opened)
    longest = huggingface.read_config(opened.files).get(LONGEST)
    if longest is None:
        return None
    try:
        return checked(LONGEST, longest, COUNT)
    except Unsupported as error:
        raise UserError(f"{opened.files / huggingface.CONFIG}: {error}; correct it") from error
