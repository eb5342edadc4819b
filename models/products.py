"""Products of matrices in the form that suits the backend (`models.backend`)."""

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from models.backend import choices
from models.sharding import on_a_mesh


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute a [..., inputs] @ b [inputs, outputs] in their dtype, in the form that suits the
    backend (`Choices.float32_products`)."""
    result = jnp.float32 if _has_float32_product(a) else None
    return jnp.matmul(a, b, preferred_element_type=result).astype(a.dtype)


def transposed(x: jax.Array) -> jax.Array:
    """Return x [..., N, M] as the first operand [..., M, N] of a product, stored as suits the
    backend (`Choices.float32_products`)."""
    swapped = jnp.swapaxes(x, -1, -2)
    if not _has_float32_product(x) or on_a_mesh():  # the partitioner would gather x
        return swapped
    return with_layout_constraint(swapped, Layout(tuple(range(x.ndim))))  # row by row


def operands(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the operands of a product with a float32 result, in the dtype that suits the backend
    (`Choices.float32_operands`)."""
    return _operand(a), _operand(b)


def _operand(x: jax.Array) -> jax.Array:
    if x.dtype != jnp.bfloat16 or not choices().float32_operands:
        return x
    # XLA may leave out a conversion to bfloat16 that one back follows, but not this rounding.
    return jax.lax.reduce_precision(x.astype(jnp.float32), exponent_bits=8, mantissa_bits=7)


def _has_float32_product(x: jax.Array) -> bool:
    return choices().float32_products and x.dtype == jnp.bfloat16
