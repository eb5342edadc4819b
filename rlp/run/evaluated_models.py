"""Open the models of an evaluation, one at a time, onto a mesh of all devices."""

import functools
import hashlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from configs import default
from models.sharding import make_mesh
from models.transformer import Params
from rlp.evaluation.options.option_scores import OptionScorer
from rlp.evaluation.runner.model import EvaluatedModel
from rlp.run import prompts
from rlp.run.method import as_user_error
from rlp.run.opened_model import Opened, open_model
from rlp.run.text_generation import build_generator, context


def openers(
    models: Mapping[str, str], fsdp: int = 1, tensor: int = 1
) -> Mapping[str, Callable[[], EvaluatedModel]]:
    """Return a function for each model that opens it onto a mesh of all devices.

    Args:
      models: name → source.
      fsdp, tensor: sizes of these axes of the mesh; the rest is `data`.

    Raises:
      UserError: If the sizes do not divide the number of devices.
    """
    mesh = as_user_error(lambda: make_mesh(-1, fsdp, tensor))
    open_named = functools.partial(open_on_mesh, mesh=mesh)
    return {name: functools.partial(open_named, name, source) for name, source in models.items()}


def open_on_mesh(name: str, source: str, mesh: Mesh) -> EvaluatedModel:
    """Open a model onto a mesh.

    Args:
      name: its name in tables.
      source: as `rlp.run.opened_model.open_model` takes it.
      mesh: with all axes of `models.sharding`.

    Raises:
      UserError: As `open_model` does.
    """
    opened = open_model(source, default.get_config(), mesh)
    identity = {"step": opened.step, "parameters": digest(opened.params)}
    return evaluated_model(name, opened, identity)


def evaluated_model(
    name: str, opened: Opened, identity: Mapping[str, str | int | None]
) -> EvaluatedModel:
    """Return an opened model as benchmarks are posed to it.

    Args:
      name: its name in tables.
      opened: the model.
      identity: what tells its parameters from those of other models.

    Raises:
      UserError: As `build_generator` does.
    """
    method, longest = opened.method, context(opened)
    return EvaluatedModel(
        name=name,
        identity=identity,
        tokenizer=method.tokenizer,
        template=method.template,
        ends=prompts.stop_ids(opened),
        generator=build_generator(opened),
        scorer=OptionScorer(method, opened.params, opened.mesh, longest),
        longest=longest,
    )


def digest(params: Params) -> str:
    """Return a hash of parameters, which does not depend on where they are.

    Each array is summed as integers on the devices, with weights that depend on the place of a
    number, so that only one integer per array is sent to the host.
    """
    sums = jax.device_get(_sums(params))
    text = repr(
        [(jax.tree_util.keystr(path), int(x)) for path, x in jax.tree.leaves_with_path(sums)]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@jax.jit
def _sums(params: Params) -> Params:
    """Return a weighted sum of the bits of each array, uint32, which wraps around."""

    def one(x: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
        total = bits
        for axis, size in enumerate(x.shape):
            weights = jnp.arange(size, dtype=jnp.uint32) * np.uint32(2654435761) + np.uint32(axis)
            shape = [1] * x.ndim
            shape[axis] = size
            total = total * (2 * weights.reshape(shape) + 1)
        return total.sum(dtype=jnp.uint32)

    return jax.tree.map(one, params)
