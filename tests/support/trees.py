"""Run documents with branches both packed and as plain rows that repeat the prefix.

However a document and its branches are run (packed, all at once, slot by slot on caches), hidden
states must equal those of the plain row `trunk before the fork + live tokens of the branch`, and
gradients must equal those of such rows.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from models import backend
from models.cache import branch_bytes, trunk_bytes
from models.layers.protocol import BranchTokens, Cost
from models.layers.registry import kind_counts
from models.paths import by_name
from models.sharding import batch_sharding, make_mesh, parameter_shardings
from models.transformer import bind, shapes
from models.tree import (
    Branches,
    ForkPoints,
    Trunk,
    empty_branch_cache,
    extend,
    forward,
    forward_together,
    prefill,
)
from rlp.training import flops
from tests.support import tiny

B, T, N, W = 2, 20, 3, 5
CONFIG = tiny.model_config(vocab_size=40)


def random_tree(seed: int, vocab: int = 40):
    """Draw rows of several documents with padding, and branches with dead slots."""
    random = np.random.default_rng(seed)
    segment, position = np.zeros((B, T), np.int32), np.zeros((B, T), np.int32)
    fork, document = np.zeros((B, N), np.int32), np.zeros((B, N), np.int32)
    for row in range(B):
        lengths = random.integers(3, 7, 3)
        start = 0
        for number, length in enumerate(lengths, 1):
            segment[row, start : start + length] = number
            position[row, start : start + length] = np.arange(length)
            start += length
        for n in range(N):
            document[row, n] = random.integers(1, 4)
            fork[row, n] = random.integers(1, lengths[document[row, n] - 1] + 1)
    live = random.random((B, N, W)) < 0.7
    live[:, :, 0] = True
    tokens = random.integers(0, vocab, (B, T)).astype(np.int32)
    trunk = Trunk(tokens, segment, position, ForkPoints(position=fork, segment=document))
    branches = Branches(
        tokens=random.integers(0, vocab, (B, N, W)).astype(np.int32),
        position=(fork[:, :, None] + np.maximum(np.cumsum(live, axis=-1) - 1, 0)).astype(np.int32),
        live=live,
        segment=document,
        fork=fork,
    )
    return jax.tree.map(jnp.asarray, (trunk, branches))


def alone(trunk: Trunk, branches: Branches):
    """Return every branch as a plain row: tokens, lengths, and the indices of its live slots."""
    tokens = np.zeros((B * N, T), np.int32)
    length = np.zeros(B * N, np.int32)
    index = np.zeros((B * N, W), np.int32)
    trunk, branches = jax.tree.map(np.asarray, (trunk, branches))
    for r, (b, n) in enumerate(np.ndindex(B, N)):
        prefix = (trunk.segment[b] == branches.segment[b, n]) & (
            trunk.position[b] < branches.fork[b, n]
        )
        line = trunk.tokens[b, prefix].tolist()
        for slot in range(W):
            if branches.live[b, n, slot]:
                index[r, slot] = len(line)
                line.append(branches.tokens[b, n, slot])
        tokens[r, : len(line)], length[r] = line, len(line)
    return tokens, length, index


def run_plain(params, tokens, length, index, *, config=CONFIG):
    """Return the hidden states [B, N, W, D] of the branches, computed from plain rows."""
    at = jnp.broadcast_to(jnp.arange(T)[None, :], tokens.shape)
    rows = Trunk(tokens, (at < length[:, None]).astype(jnp.int32), at)
    hidden = forward(bind(config, params), rows)
    return jnp.take_along_axis(hidden, index[:, :, None], axis=1).reshape(B, N, W, -1)


def run_tree(model, trunk, branches):
    """Return the hidden states [B, N, W, D] of the branches, all slots at once on the cache."""
    _, cache = prefill(model, trunk)
    return extend(model, trunk, cache, branches)[0]


def run_packed(params, trunk, branches, *, config=CONFIG):
    return run_tree(bind(config, params), trunk, branches)


plain = tiny.jit(run_plain, static_argnames="config")
packed = tiny.jit(run_packed, static_argnames="config")


@functools.partial(tiny.jit, static_argnames=("config", "sizes"))
def cached(params, trunk, branches, *, sizes, config=CONFIG):
    """Return the hidden states of the branches by calls of `extend` with these numbers of slots."""
    model = bind(config, params)
    _, trunk_cache = prefill(model, trunk)
    cache = empty_branch_cache(model, trunk, trunk_cache, branches, W)
    parts, start = [], 0
    for size in sizes:
        hidden, cache = extend(model, trunk, trunk_cache, branches, cache, start, size)
        parts.append(hidden)
        start += size
    return jnp.concatenate(parts, axis=2)


def weighted(hidden, cotangent, live):
    return jnp.sum(jnp.where(live[..., None], hidden.astype(jnp.float32) * cotangent, 0.0))


@functools.partial(tiny.jit, static_argnames="config")
def packed_gradient(params, trunk, branches, cotangent, *, config=CONFIG):
    loss = lambda p: weighted(
        run_packed(p, trunk, branches, config=config), cotangent, branches.live
    )
    return jax.grad(loss)(params)


@functools.partial(tiny.jit, static_argnames="config")
def plain_gradient(params, rows, live, cotangent, *, config=CONFIG):
    return jax.grad(lambda p: weighted(run_plain(p, *rows, config=config), cotangent, live))(params)


def random_cotangent(seed: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (B, N, W, CONFIG.hidden_size))


@functools.partial(tiny.jit, static_argnames="config")
def rows_gradient(params, trunk, cotangent, *, config):
    """Return the hidden states [B, T, D] of the rows, and their gradient."""

    def loss(params):
        hidden = forward(bind(config, params), trunk)
        return weighted(hidden, cotangent, trunk.segment > 0), hidden

    gradient, hidden = jax.grad(loss, has_aux=True)(params)
    return hidden, gradient


@functools.partial(tiny.jit, static_argnames="config")
def together_gradient(params, trunk, branches, of_rows, of_branches, *, config):
    """Return the hidden states of `forward_together`, and their gradient."""

    def loss(params):
        hidden = forward_together(bind(config, params), trunk, branches)
        value = weighted(hidden[0], of_rows, trunk.segment > 0)
        return value + weighted(hidden[1], of_branches, branches.live), hidden

    gradient, hidden = jax.grad(loss, has_aux=True)(params)
    return hidden, gradient


def assert_one_pass_is_a_pass_each(config, params):
    """Compare `forward_together` with `forward` and `extend`: hidden states and gradient."""
    trunk, branches = random_tree(8)
    of_rows = jax.random.normal(jax.random.key(9), (B, T, config.hidden_size))
    of_branches = random_cotangent(8)
    hidden, gradient = together_gradient(
        params, trunk, branches, of_rows, of_branches, config=config
    )
    rows, through_rows = rows_gradient(params, trunk, of_rows, config=config)
    extended = packed(params, trunk, branches, config=config)
    through_branches = packed_gradient(params, trunk, branches, of_branches, config=config)
    reads = trunk.segment > 0, branches.live
    for x, y, read in zip(hidden, (rows, extended), reads, strict=True):
        np.testing.assert_allclose(x[read], y[read], rtol=1e-5, atol=1e-5)
    expected = jax.tree.map(jnp.add, through_rows, through_branches)
    assert tiny.relative_error(gradient, expected) < 1e-5


def assert_branches_are_plain_rows(config, params):
    """Compare branches on their trunk with rows that repeat the prefix: hidden states, gradient."""
    trunk, branches = random_tree(7)
    rows, live = alone(trunk, branches), np.asarray(branches.live)
    expected = np.asarray(plain(params, *rows, config=config))[live]
    hidden = np.asarray(packed(params, trunk, branches, config=config))[live]
    np.testing.assert_allclose(hidden, expected, rtol=1e-5, atol=1e-5)
    cotangent = random_cotangent(7)
    error = tiny.relative_error(
        packed_gradient(params, trunk, branches, cotangent, config=config),
        plain_gradient(params, rows, branches.live, cotangent, config=config),
    )
    assert error < 1e-5


def assert_it_decodes_as_it_scores(config, params, sizes):
    """Compare slots that run these numbers at a time on the caches with all of them at once."""
    trunk, branches = random_tree(2)
    inputs, live = (params, trunk, branches), np.asarray(branches.live)
    hidden = np.asarray(cached(*inputs, sizes=sizes, config=config))
    expected = np.asarray(packed(*inputs, config=config))
    np.testing.assert_allclose(hidden[live], expected[live], rtol=1e-5, atol=1e-5)


def assert_documents_leak_no_gradient(config):
    """The gradient of a document's loss with respect to the one before it is exactly zero."""
    trunk, _ = random_tree(4)
    ids = jnp.arange(B * T, dtype=jnp.int32).reshape(B, T)
    trunk = dataclasses.replace(trunk, tokens=ids)
    config = dataclasses.replace(config, vocab_size=B * T, tie_embeddings=True)
    second = (trunk.segment == 2)[..., None]
    loss = lambda p: jnp.where(second, forward(bind(config, p), trunk), 0.0).sum()
    gradient = tiny.jit(jax.grad(loss))(tiny.params(config))["embedding"]
    read = np.any(np.asarray(gradient) != 0, axis=-1)
    assert np.array_equal(read, np.asarray(trunk.segment == 2).ravel())


def assert_caches_have_declared_shapes(config):
    """Compare the bytes of the caches with those that the kinds declare."""
    trunk, branches = random_tree(0)

    def caches(params):
        model = bind(config, params)
        _, cache = prefill(model, trunk)
        return cache, empty_branch_cache(model, trunk, cache, branches, W)

    size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    of_trunk, of_branches = map(size, jax.eval_shape(caches, shapes(config)))
    assert of_trunk == sum(trunk_bytes(config, B, T, N).values())
    assert of_branches == sum(branch_bytes(config, B, N, W).values())


def assert_flops_are_counted(config, monkeypatch):
    """Compare the FLOPs of rows with those of the program, in one chunk of a recurrence."""
    monkeypatch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, scan_chunk=T))
    trunk = dataclasses.replace(random_tree(0)[0], forks=None)
    loss = lambda p, trunk: forward(bind(config, p), trunk).sum()
    work = flops.on_rows(B, T)
    for run, count in (
        (loss, flops.forward_flops(config, work)),
        (jax.value_and_grad(loss), flops.training_flops(config, work)),
    ):
        compiled = jax.jit(run).lower(shapes(config), trunk).cost_analysis()["flops"]
        assert 1 <= compiled / count < 1.2  # `count` leaves out elementwise operations
    for kind in kind_counts(config):
        assert kind.cost(config, BranchTokens(0, range(0), T, W)) == Cost()


def assert_a_mesh_changes_nothing(config, params, kernel):
    """Compare the gradient on four devices with that on one; `tensor` splits the kernel's columns.

    Args:
      config: config of the network.
      params: its parameters.
      kernel: path of a kernel in the parameters of the layers.
    """
    trunk, branches = random_tree(6)
    loss = lambda p, *x: weighted(run_packed(p, *x, config=config), random_cotangent(6), x[1].live)
    expected = tiny.jit(jax.grad(loss))(params, trunk, branches)
    mesh = make_mesh(1, 2, 2, jax.devices()[:4])
    placed = parameter_shardings(mesh, shapes(config))
    with jax.set_mesh(mesh):
        inputs = jax.device_put((trunk, branches), batch_sharding(mesh))
        gradient = tiny.jit(jax.grad(loss))(jax.device_put(params, placed), *inputs)
    assert tiny.relative_error(gradient, expected) < 1e-5
    split = by_name(gradient["blocks"])[kernel].sharding.spec
    assert split == jax.sharding.PartitionSpec(None, "fsdp", "tensor")
