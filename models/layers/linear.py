"""Linear maps. Parameters are float32 and are cast to the dtype of the input."""

import jax
import jax.numpy as jnp
from flax import nnx

from models.products import product, transposed

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
