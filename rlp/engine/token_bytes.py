"""Tokens compared by their bytes: whether a predicted token is the text that follows."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rlp.data.batch import Array

LONGEST = 64  # bytes of a token that are compared; a longer token matches itself alone


@flax.struct.dataclass
class TokenBytes:
    """The bytes of all V tokens."""

    text: Array  # [V, M] uint8, zeros behind the end
    length: Array  # [V] int32; 0 for a token that stands for no text, or a longer one than M


def token_table(texts: Sequence[bytes], rows: int) -> TokenBytes:
    """The table of tokens 0, 1, … of an embedding with `rows` rows."""
    kept = [text if len(text) <= LONGEST else b"" for text in texts]
    kept += [b""] * (rows - len(kept))
    table = np.zeros((rows, max(1, *map(len, kept))), np.uint8)
    for row, text in zip(table, kept, strict=True):
        row[: len(text)] = np.frombuffer(text, np.uint8)
    return TokenBytes(table, np.array(list(map(len, kept)), np.int32))


def matches(predicted: jax.Array, target: jax.Array, table: TokenBytes) -> jax.Array:
    """Whether a predicted token is what follows, byte for byte, up to the end of one of its tokens.

    RPT's rule (arXiv 2506.08007) for a prediction of one token: text can be cut into tokens in
    several ways, and another first token than the document's own is right if its bytes are those of
    the document's first one, two, … tokens.

    Args:
      predicted: [...] ids.
      target: [..., H] ids, the tokens that follow; of as many axes, and one.
      table: bytes of the tokens.
    """
    table = jax.tree.map(jnp.asarray, table)
    most = table.text.shape[1]
    place = jnp.arange(most).reshape((1,) * predicted.ndim + (most,))
    ends = jnp.cumsum(table.length[target], axis=-1)  # [..., H]
    known = jnp.cumprod(table.length[target] > 0, axis=-1) > 0
    token = (ends[..., None, :] <= place[..., None]).sum(axis=-1)  # [..., M], whose byte
    token = jnp.minimum(token, target.shape[-1] - 1)
    begin = jnp.take_along_axis(ends - table.length[target], token, axis=-1)
    inside = jnp.clip(place - begin, 0, most - 1)
    text = table.text[jnp.take_along_axis(target, token, axis=-1), inside]
    length = table.length[predicted][..., None]
    same = (text == table.text[predicted]) | (place >= length)
    whole = ((ends == length) & known & (length > 0)).any(axis=-1)
    return (predicted == target[..., 0]) | (same.all(axis=-1) & whole)
