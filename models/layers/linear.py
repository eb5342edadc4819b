"""Linear maps. Parameters are float32 and are cast to the dtype of the input."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint

from models.backend import choices
from models.sharding import on_a_mesh

INIT_STDDEV = 0.02


class Linear(nnx.Module):
    """x @ kernel + bias, with kernel [inputs, outputs] and an optional bias [outputs]."""

    def __init__(self, inputs: int, outputs: int, key: jax.Array, *, bias: bool = False):
        self.kernel = nnx.Param(INIT_STDDEV * jax.random.normal(key, (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = multiply(x, self.kernel[...].astype(x.dtype))
        if self.bias is None:
            return y
        return y + self.bias[...].astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


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


def _has_float32_product(x: jax.Array) -> bool:
    return choices().float32_products and x.dtype == jnp.bfloat16


@jax.custom_vjp
def multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Compute x [..., inputs] @ kernel [inputs, outputs]."""
    return product(x, kernel)


def _multiply_backward(residuals: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    return product(cotangent, kernel.T), kernel_gradient(x, cotangent)


multiply.defvjp(lambda x, kernel: (product(x, kernel), (x, kernel)), _multiply_backward)


def kernel_gradient(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """Return the gradient of a kernel, x^T @ cotangent over all tokens, [inputs, outputs].

    It is one product of two matrices with the longer side last; otherwise XLA's CPU backend
    contracts the token axes of [B, S, D] one by one.
    """
    x, cotangent = (y.reshape(-1, y.shape[-1]) for y in (x, cotangent))
    if x.shape[-1] > cotangent.shape[-1]:
        return product(transposed(cotangent), x).T
    return product(transposed(x), cotangent)
