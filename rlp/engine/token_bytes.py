"""Compare tokens by their bytes: does a predicted token match the text that follows?"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rlp.data.batch import Array

LONGEST = 64  # bytes; a longer token matches only itself


@flax.struct.dataclass
class TokenBytes:
    """The bytes of all V tokens."""

    text: Array  # [V, M] uint8, padded with zeros
    length: Array  # [V] int32; 0 for a token without text, or with more than M bytes


def token_table(texts: Sequence[bytes], rows: int) -> TokenBytes:
    """Return the table of tokens 0, 1, … of an embedding with `rows` rows."""
    compared = [text if len(text) <= LONGEST else b"" for text in texts]
    compared += [b""] * (rows - len(compared))
    table = np.zeros((rows, max(1, *map(len, compared))), np.uint8)
    for row, text in zip(table, compared, strict=True):
        row[: len(text)] = np.frombuffer(text, np.uint8)
    return TokenBytes(table, np.array(list(map(len, compared)), np.int32))


def matches(
    predicted: jax.Array, target: jax.Array, present: jax.Array, table: TokenBytes
) -> jax.Array:
    """Return whether predicted tokens match the text that follows, byte for byte, [...] bool.

    This is the rule of RPT (arXiv 2506.08007) for a prediction of one token. The same text can be
    tokenized in several ways, so a token matches if its bytes are those of the first one, two, …
    tokens of the target.

    Args:
      predicted: [...] int32 ids.
      target: [..., H] int32 ids, the tokens that follow.
      present: [..., H] bool, those that the document has.
      table: bytes of the tokens.
    """
    table = jax.tree.map(jnp.asarray, table)
    most = table.text.shape[1]
    index = jnp.arange(most).reshape((1,) * predicted.ndim + (most,))  # of a byte
    size = table.length[target]
    ends = jnp.cumsum(size, axis=-1)  # [..., H]
    known = jnp.cumprod((size > 0) & present, axis=-1) > 0
    token = (ends[..., None, :] <= index[..., None]).sum(axis=-1)  # [..., M], token of each byte
    token = jnp.minimum(token, target.shape[-1] - 1)
    begin = jnp.take_along_axis(ends - size, token, axis=-1)
    inside = jnp.clip(index - begin, 0, most - 1)
    text = table.text[jnp.take_along_axis(target, token, axis=-1), inside]
    length = table.length[predicted][..., None]
    same = (text == table.text[predicted]) | (index >= length)
    whole = ((ends == length) & known & (length > 0)).any(axis=-1)
    return (predicted == target[..., 0]) | (same.all(axis=-1) & whole)
