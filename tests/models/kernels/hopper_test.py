"""The kernels for Hopper GPUs: interpreted against dense attention, and lowered and compiled for an
H200 without one."""

import dataclasses
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams
from jax.sharding import AbstractDevice, AbstractMesh

from models.kernels.attention import attention
from models.kernels.hopper import HopperKernels, hopper_kernels
from models.kernels.visits import RangeMask
from rlp.capacity import compilers
from tests.support import environment, interpreter, tiny
from tests.support.forest import dense_mask
from tests.support.paths import ROOT

RESULTS = "out", "dq", "dk", "dv", "own dk", "own dv"


@dataclasses.dataclass(frozen=True)
class Tree:
    """A trunk with branches: queries, keys and values of both, masks, and an output gradient."""

    q: jax.Array
    sources: tuple
    masks: tuple
    do: jax.Array


def tree(
    rows=1,
    heads=1,
    trunk=200,
    branches=4,
    slots=37,
    repeat=2,
    head_dim=64,
    dtype=jnp.bfloat16,
    whole=False,
):
    """The first branch forks at the end of the trunk, the second at its beginning, and the third is
    empty; a fifth of all slots are dead, and the trunk's last seven tokens are padding. If `whole`,
    no slot is dead and all see the first 128 tokens of the trunk."""
    random = np.random.default_rng(0)
    fork = random.integers(128 if whole else 0, trunk + 1, (rows, branches, 1))
    live = (random.random((rows, branches, slots)) < 0.8) | whole
    if not whole:
        fork[:, 0], fork[:, 1], live[:, 2] = trunk, 0, False
    position = fork + np.cumsum(live, axis=2) - 1
    number = np.where(live, np.arange(1, branches + 1)[:, None], 0)
    last = np.minimum(np.broadcast_to(fork, live.shape) - 1, position)
    slot = np.broadcast_to(np.arange(trunk), (rows, trunk))
    integers = lambda x: jnp.asarray(x.reshape(rows, -1), jnp.int32)
    of_queries = lambda x: jnp.repeat(integers(x), repeat, axis=1)
    zero, of_trunk, own = of_queries(0 * position), (slot < trunk - 7, slot), (number, position)
    masks = (
        RangeMask(of_queries(live), zero, of_queries(last), *map(integers, of_trunk), 1),
        RangeMask(of_queries(number), zero, of_queries(position), *map(integers, own), branches),
    )
    draw = lambda n: jnp.asarray(random.normal(size=(rows, heads, n, head_dim)), dtype)
    n = branches * slots
    sources = (draw(trunk), draw(trunk)), (draw(n), draw(n))
    return Tree(draw(n * repeat), sources, masks, draw(n * repeat))


SCALE = 0.2


def dense(t):
    """Attention and its gradients in float64, from the same inputs."""
    numbers = lambda x: np.asarray(x, np.float64)
    q, do = numbers(t.q), numbers(t.do)
    key, value = (
        np.concatenate([numbers(source[n]) for source in t.sources], axis=2) for n in range(2)
    )
    mask = np.concatenate([dense_mask(x) for x in t.masks], axis=2)[:, None]
    scores = np.where(mask, q @ np.swapaxes(key, 2, 3) * SCALE, -np.inf)
    weights = np.exp(scores - np.maximum(scores.max(-1, keepdims=True), -1e30))
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)
    out = weights @ value
    flip = lambda x: np.swapaxes(x, 2, 3)
    delta = (out * do).sum(-1, keepdims=True)
    ds = SCALE * weights * (do @ flip(value) - delta)
    cut = [t.sources[0][0].shape[2]]
    dk, dv = (np.split(x, cut, axis=2) for x in (flip(ds) @ q, flip(weights) @ do))
    return [out, ds @ key, *(x[n] for n in range(len(t.sources)) for x in (dk, dv))]


def forward(t, kernels):
    worklists = kernels.worklists(t.masks, t.q.shape[1])
    return attention(t.q, t.sources, jnp.int32(0), worklists, SCALE, kernels)


def forward_and_backward(t, kernels):
    run = lambda q, sources: forward(dataclasses.replace(t, q=q, sources=sources), kernels)
    out, vjp = jax.vjp(run, t.q, t.sources)
    return [out, *jax.tree.leaves(vjp(t.do))]


def interpreted(head_dim, **fields):
    """Kernels in interpret mode: memory starts as NaN, and unordered copies are found as races."""
    return dataclasses.replace(
        hopper_kernels(head_dim, InterpretGPUParams(detect_races=True)), **fields
    )


def program(run, t, kernels):
    """Compile `run` for all trees of this shape; each call asserts that there are no races."""
    step = lambda *arrays: run(Tree(*arrays), kernels)
    compiled = tiny.jit(step).lower(t.q, t.sources, t.masks, t.do).compile()

    def compute(t):
        with interpreter.races() as found:
            results = jax.block_until_ready(compiled(t.q, t.sources, t.masks, t.do))
        assert len(found) == {forward: 1, forward_and_backward: 2 + len(t.sources)}[run]
        assert all(kernel.writes and not kernel.races_found for kernel in found)
        return results

    return compute


def check(results, expected, dtype):
    """P and dS are rounded to the dtype once before they are multiplied, results once afterwards;
    sums are float32."""
    for name, x, y in zip(RESULTS, results, expected, strict=False):
        assert x.shape == y.shape, name
        worst = np.abs(np.asarray(x, np.float64) - y).max()
        assert worst <= 2 * float(jnp.finfo(dtype).eps) * np.abs(y).max(), name


def test_forward_is_dense_attention():
    t = tree(branches=2, slots=64, repeat=1, whole=True)  # one full pair of blocks, two partial
    check([program(forward, t, interpreted(64))(t)], dense(t), jnp.bfloat16)


def check_gradients(t, results):
    check(results, dense(t), t.q.dtype)
    for range_mask, gradients in zip(t.masks, (results[2:4], results[4:]), strict=False):
        unseen = ~dense_mask(range_mask).any(1)
        assert unseen.any()
        for gradient in gradients:
            assert not np.moveaxis(np.asarray(gradient, np.float32), 1, 2)[unseen].any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "fields"),
    [
        ({}, {"dkv_block_q": 64}),
        ({"rows": 2, "heads": 2, "trunk": 70, "slots": 16, "repeat": 1}, {}),
        ({"head_dim": 128, "branches": 5, "slots": 21}, {}),
        ({"dtype": jnp.float16, "branches": 3}, {"stages": 1, "forward_block_kv": 64}),
        ({"trunk": 130, "branches": 65, "slots": 2}, {"stages": 3, "dq_block_kv": 64}),
    ],
)
def test_results_and_gradients_are_those_of_dense_attention(sizes, fields):
    t = tree(**sizes)
    check_gradients(t, program(forward_and_backward, t, interpreted(t.q.shape[3], **fields))(t))


@pytest.mark.slow
def test_fully_visible_blocks_have_no_mask_and_every_run_gives_the_same_bits():
    t = tree(branches=3, slots=64, whole=True)
    t = dataclasses.replace(t, sources=t.sources[:1], masks=t.masks[:1])
    starts = interpreted(64).worklists(t.masks, 1).dkv[0].starts
    assert starts[1] == 6  # all six query blocks see the whole first key block
    compute = program(forward_and_backward, t, interpreted(64))
    first, second = compute(t), compute(t)
    check_gradients(t, first)
    for x, y in zip(first, second, strict=True):
        assert np.array_equal(x, y)


def lowered(t, kernels, run):
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="cuda")
    mesh = AbstractMesh((1,), ("x",), abstract_device=device)
    arrays = t.q, t.sources, t.masks
    step = lambda *arrays: run(Tree(*arrays, t.do), kernels)
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.jit(step).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize(
    ("head_dim", "run", "kernels"),
    [(64, forward_and_backward, 4), (128, forward_and_backward, 4), (256, forward, 1)],
)
def test_they_lower_for_an_h200(head_dim, run, kernels):
    text = lowered(tree(head_dim=head_dim), hopper_kernels(head_dim), run)
    assert len(re.findall(r"custom_call @mosaic_gpu", text)) == kernels


@pytest.mark.parametrize(
    ("sizes", "run", "message"),
    [
        ({"dtype": jnp.float32}, forward, "bfloat16 or float16, not float32"),
        ({"head_dim": 32}, forward, "head_dim=32"),
        ({"head_dim": 256}, forward_and_backward, "head_dim=256"),
    ],
)
def test_unsupported_dtypes_and_heads_are_refused(sizes, run, message):
    t = tree(**sizes)
    with pytest.raises(ValueError, match=message):
        lowered(t, hopper_kernels(t.q.shape[3]), run)


def test_a_block_that_the_registers_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="at most 128 with these block sizes"):
        lowered(tree(head_dim=256), HopperKernels(forward_block_kv=128), forward)


# Compiles the forward kernel with head_dim 256 for an H200; the test reads the notes of ptxas. The
# kernels that `models.attention` offers are compiled in
# tests/benchmarks/attention/compiled_test.py.
COMPILED = """
from rlp.capacity import chips, compilers
topology = chips.parse_topology("h200:1x1")
compilers.prepare(topology)
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from models.kernels.attention import attention
from models.kernels.hopper import hopper_kernels
from models.kernels.visits import RangeMask
mesh = Mesh(np.array(compilers.devices(topology)), ("x",))
place = NamedSharding(mesh, PartitionSpec())
struct = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
vectors = lambda n: struct((2, 4, n, 256), jnp.bfloat16)
integers = lambda n: struct((2, n), jnp.int32)
q, lengths, groups = vectors(1000), (500, 600), (1, 10)
sources = tuple((vectors(n), vectors(n)) for n in lengths)
masks = tuple(
    RangeMask(*[integers(1000)] * 3, *[integers(n)] * 2, g) for n, g in zip(lengths, groups)
)
kernels = hopper_kernels(256)
def step(q, sources, masks):
    return attention(q, sources, jnp.int32(0), kernels.worklists(masks, 4), 0.1, kernels)
with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    jax.jit(step).lower(q, sources, masks).compile()
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not compilers.installed("cuda"), reason="the GPU compiler is missing; run `make compilers`"
)
def test_large_heads_compile_for_an_h200_and_stay_in_registers(tmp_path):
    dump = {"MOSAIC_GPU_DUMP_PTXAS": "1", "MOSAIC_GPU_DUMP_TO": str(tmp_path)}
    words = [sys.executable, "-c", COMPILED]
    ran = subprocess.run(words, cwd=ROOT, env=environment.of_a_user() | dump,
                         capture_output=True, text=True, timeout=600)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    (note,) = [path.read_text() for path in tmp_path.glob("*.ptxas")]
    assert "sm_90a" in note
    stored = re.findall(r"(\d+) bytes spill stores", note)
    assert max(map(int, stored)) <= 24, note  # at loop boundaries; no matrix is spilled
