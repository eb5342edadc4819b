"""A small stand-in for a model, whose files and parameters differ in names, layout and stacking."""

import jax
import jax.numpy as jnp
import numpy as np

from models.hf import Tensor
from models.hf.family import TRANSPOSED
from models.sharding import make_mesh, parameter_shardings


def tensors(layers=3, width=8, ffn=16, vocab=24, tied=False):
    """Return the tensors of a model, grouped by layer as in real files."""
    made = [Tensor("model.embed_tokens.weight", (vocab, width), "embedding", None)]
    for i in range(layers):
        up, norm = f"model.layers.{i}.mlp.up_proj.weight", f"model.layers.{i}.norm.weight"
        made += [
            Tensor(up, (ffn, width), "blocks/ffn/up/kernel", i, TRANSPOSED),
            Tensor(norm, (width,), "blocks/ffn_norm/scale", i),
        ]
    made.append(Tensor("model.norm.weight", (width,), "norm/scale", None))
    head = Tensor("lm_head.weight", (vocab, width), "head/kernel", None, TRANSPOSED)
    if tied:
        head = Tensor(head.name, head.shape, "embedding", None, copy_of="model.embed_tokens.weight")
    return [*made, head]


def arrays(made, dtype=np.float32, seed=0):
    """Return random values that are exact in `dtype`, by tensor name, without tied copies."""
    rng = np.random.default_rng(seed)
    return {t.name: rng.standard_normal(t.shape).astype(dtype) for t in made if not t.copy_of}


def params(made, values):
    """Assemble our parameters on the host in a simple way."""
    stacks = {}
    for tensor in made:
        if not tensor.copy_of:
            x = tensor.ours(values[tensor.name].astype(np.float32))
            stacks.setdefault(tensor.path, []).append(x)
    tree = {}
    for path, parts in stacks.items():
        node = tree
        *folders, name = path.split("/")
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = np.stack(parts) if path.startswith("blocks") else parts[0]
    return tree


def shardings(tree, mesh=(1, 1, 1)):
    """Return the shardings of the parameters on a mesh of the first devices."""
    devices = jax.devices()[: int(np.prod(mesh))]
    return parameter_shardings(make_mesh(*mesh, devices=devices), tree)


def on_mesh(tree, mesh=(1, 1, 1)):
    return jax.tree.map(jax.device_put, tree, shardings(tree, mesh))


def assert_same_bits(tree, other):
    def same(x, y):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()

    jax.tree.map(same, tree, other)


BFLOAT16 = jnp.bfloat16
