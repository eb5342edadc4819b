"""The inverse of triangular matrices."""

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST


@jax.custom_vjp
def unit_inverse(lower: jax.Array) -> jax.Array:
    """Return the inverse of 1 + lower, for strictly lower triangular matrices [..., Q, Q].

    The inverses of two diagonal blocks and the block between them give that of a block of twice the
    size, so log2(Q) products invert the whole. Like substitution, and unlike the series of powers,
    this is stable: if all entries are one, those of the powers are binomial coefficients.
    """
    (*lead, size, _) = lower.shape
    whole = 1 << (size - 1).bit_length()
    more = [(0, whole - size)] * 2
    lower = jnp.pad(lower, [(0, 0)] * len(lead) + more)
    inverse = jnp.ones((*lead, whole, 1, 1), lower.dtype)  # of all diagonal blocks
    while (block := inverse.shape[-1]) < whole:
        pairs = whole // (2 * block)
        below = lower.reshape(*lead, pairs, 2, block, pairs, 2, block)[..., 1, :, :, 0, :]
        own = jnp.eye(pairs, dtype=bool).reshape((1,) * len(lead) + (pairs, 1, pairs, 1))
        between = jnp.where(own, below, 0).sum(axis=-2)  # [..., pairs, block, block]
        first, second = inverse[..., 0::2, :, :], inverse[..., 1::2, :, :]
        corner = -_product(_product(second, between), first)
        rows = [jnp.concatenate(x, axis=-1) for x in ((first, first * 0), (corner, second))]
        inverse = jnp.concatenate(rows, axis=-2)
    return inverse[..., 0, :size, :size]


def unit_inverse_flops(size: int) -> int:
    """Return the FLOPs of `unit_inverse` of one matrix [size, size]."""
    whole = 1 << (size - 1).bit_length()
    return 2 * whole * (whole**2 - 1) // 3  # pairs of blocks b: whole / 2b, each 4 b^3


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=HIGHEST)


def _forward(lower: jax.Array) -> tuple[jax.Array, jax.Array]:
    inverse = unit_inverse(lower)
    return inverse, inverse


def _backward(inverse: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    across = jnp.swapaxes(inverse, -1, -2)
    return (-_product(_product(across, cotangent), across),)


unit_inverse.defvjp(_forward, _backward)
