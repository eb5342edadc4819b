"""bfloat16 arrays that are written in parts, kept as bits.

XLA's CPU backend computes a write into a part of a bfloat16 array in float32: it converts the whole
array, writes the part and converts everything back. An array of integers is written in place. So
where the backend asks for it (`Choices.bfloat16_as_bits`), such arrays are held as uint16. No other
array of a network has this dtype.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp

from models.backend import choices


def as_bits(x: jax.Array) -> jax.Array:
    """Return the bits of a bfloat16 array as uint16, if that suits the backend; else x."""
    if x.dtype != jnp.bfloat16 or not choices().bfloat16_as_bits:
        return x
    return jax.lax.bitcast_convert_type(x, jnp.uint16)


def from_bits(x: jax.Array) -> jax.Array:
    """Return the bfloat16 array of its bits; an array that is not uint16 is returned as it is."""
    return x if x.dtype != jnp.uint16 else jax.lax.bitcast_convert_type(x, jnp.bfloat16)


def saving_bits(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function of arrays, whose bfloat16 values for the backward pass are saved as
    bits. In a scan, these values are written one by one into a stack of all repeats."""

    def run(*args: Any) -> Any:
        # What the function has closed over may belong to a trace that has ended when the gradient
        # is taken, so it becomes an argument.
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        outputs = _saving_bits(traced.jaxpr)(traced.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return run


def _saving_bits(jaxpr: jax.extend.core.Jaxpr) -> Callable[[list[Any], list[Any]], list[Any]]:
    """Return the function of constants and arguments that evaluates a jaxpr."""

    @jax.custom_vjp
    def call(consts: list[Any], args: list[Any]) -> list[Any]:
        return jax.core.eval_jaxpr(jaxpr, consts, *args)

    def forward(consts: list[Any], args: list[Any]) -> tuple[list[Any], Any]:
        out, backward = jax.vjp(functools.partial(jax.core.eval_jaxpr, jaxpr), consts, *args)
        return out, jax.tree.map(as_bits, backward)

    def backward(saved: Any, slope: list[Any]) -> tuple[list[Any], list[Any]]:
        consts, *args = jax.tree.map(from_bits, saved)(slope)
        return consts, args

    call.defvjp(forward, backward)
    return call
