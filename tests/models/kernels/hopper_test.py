"""The kernels for Hopper GPUs: interpreted against dense attention, lowered and compiled for an
H200 that is not here."""

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
from models.kernels.hopper import HopperKernels, sized
from models.kernels.visits import Sight
from rlp.capacity import compilers
from tests.support import environment, interpreter, tiny
from tests.support.forest import seen_by
from tests.support.paths import ROOT

RESULTS = "mixed", "dq", "dkey", "dvalue", "own dkey", "own dvalue"


@dataclasses.dataclass(frozen=True)
class Tree:
    """A trunk with branches: queries, keys and values of both, who sees whom, a cotangent."""

    q: jax.Array
    sources: tuple
    sights: tuple
    cotangent: jax.Array


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
    """The first branch leaves at the end of the trunk, the second at its beginning, the third is
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
    sights = (
        Sight(of_queries(live), zero, of_queries(last), *map(integers, of_trunk), 1),
        Sight(of_queries(number), zero, of_queries(position), *map(integers, own), branches),
    )
    draw = lambda n: jnp.asarray(random.normal(size=(rows, heads, n, head_dim)), dtype)
    n = branches * slots
    sources = (draw(trunk), draw(trunk)), (draw(n), draw(n))
    return Tree(draw(n * repeat), sources, sights, draw(n * repeat))


SCALE = 0.2


def dense(t):
    """Attention and its gradients in float64, from the same inputs."""
    numbers = lambda x: np.asarray(x, np.float64)
    q, cotangent = numbers(t.q), numbers(t.cotangent)
    key, value = (
        np.concatenate([numbers(source[n]) for source in t.sources], axis=2) for n in range(2)
    )
    mask = np.concatenate([seen_by(sight) for sight in t.sights], axis=2)[:, None]
    scores = np.where(mask, q @ np.swapaxes(key, 2, 3) * SCALE, -np.inf)
    weights = np.exp(scores - np.maximum(scores.max(-1, keepdims=True), -1e30))
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)
    mixed = weights @ value
    flip = lambda x: np.swapaxes(x, 2, 3)
    delta = (mixed * cotangent).sum(-1, keepdims=True)
    slopes = SCALE * weights * (cotangent @ flip(value) - delta)
    cut = [t.sources[0][0].shape[2]]
    of_keys = [np.split(x, cut, axis=2) for x in (flip(slopes) @ q, flip(weights) @ cotangent)]
    halves = [half[n] for n in range(len(t.sources)) for half in of_keys]
    return [mixed, slopes @ key, *halves]


def forward(t, kernels):
    worklists = kernels.worklists(t.sights, t.q.shape[1])
    return attention(t.q, t.sources, jnp.int32(0), worklists, SCALE, kernels)


def all_of(t, kernels):
    run = lambda q, sources: forward(dataclasses.replace(t, q=q, sources=sources), kernels)
    mixed, back = jax.vjp(run, t.q, t.sources)
    return [mixed, *jax.tree.leaves(back(t.cotangent))]


def interpreted(head_dim, **fields):
    """What is not written is not a number; a copy that no barrier orders is a race."""
    return dataclasses.replace(sized(head_dim, InterpretGPUParams(detect_races=True)), **fields)


def program(run, t, kernels):
    """`run` with the kernels, for all trees of this shape; what it finds must be free of races."""
    step = lambda q, sources, sights, cotangent: run(Tree(q, sources, sights, cotangent), kernels)
    compiled = tiny.jit(step).lower(t.q, t.sources, t.sights, t.cotangent).compile()

    def compute(t):
        with interpreter.races() as found:
            results = jax.block_until_ready(compiled(t.q, t.sources, t.sights, t.cotangent))
        assert len(found) == {forward: 1, all_of: 2 + len(t.sources)}[run]
        assert all(kernel.writes and not kernel.races_found for kernel in found)
        return results

    return compute


def check(found, expected, dtype):
    """Weights and slopes are rounded to the dtype once before they are multiplied, results once
    after; sums have float32."""
    for name, x, y in zip(RESULTS, found, expected, strict=False):
        assert x.shape == y.shape, name
        worst = np.abs(np.asarray(x, np.float64) - y).max()
        assert worst <= 2 * float(jnp.finfo(dtype).eps) * np.abs(y).max(), name


def test_forward_is_dense_attention():
    t = tree(branches=2, slots=64, repeat=1, whole=True)  # a block seen whole, and two in part
    check([program(forward, t, interpreted(64))(t)], dense(t), jnp.bfloat16)


def check_gradients(t, found):
    check(found, dense(t), t.q.dtype)
    for sight, slopes in zip(t.sights, (found[2:4], found[4:]), strict=False):
        unseen = ~seen_by(sight).any(1)
        assert unseen.any()
        for slope in slopes:
            assert not np.moveaxis(np.asarray(slope, np.float32), 1, 2)[unseen].any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({}, {"dkeys_block": 64}),
        ({"rows": 2, "heads": 2, "trunk": 70, "slots": 16, "repeat": 1}, {}),
        ({"head_dim": 128, "branches": 5, "slots": 21}, {}),
        ({"dtype": jnp.float16, "branches": 3}, {"stages": 1, "forward_block": 64}),
        ({"trunk": 130, "branches": 65, "slots": 2}, {"stages": 3, "dq_block": 64}),
    ],
)
def test_results_and_gradients_are_those_of_dense_attention(given, fields):
    t = tree(**given)
    check_gradients(t, program(all_of, t, interpreted(t.q.shape[3], **fields))(t))


@pytest.mark.slow
def test_blocks_that_are_seen_whole_have_no_mask_and_every_run_gives_the_same_bits():
    t = tree(branches=3, slots=64, whole=True)
    t = dataclasses.replace(t, sources=t.sources[:1], sights=t.sights[:1])
    starts = interpreted(64).worklists(t.sights, 1).dkeys[0].starts
    assert starts[1] == 6  # the first block of keys meets all blocks of queries, whole
    compute = program(all_of, t, interpreted(64))
    first, second = compute(t), compute(t)
    check_gradients(t, first)
    for x, y in zip(first, second, strict=True):
        assert np.array_equal(x, y)


def lowered(t, kernels, run):
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="cuda")
    mesh = AbstractMesh((1,), ("x",), abstract_device=device)
    arrays, rest = (t.q, t.sources, t.sights), t.cotangent
    step = lambda q, sources, sights: run(Tree(q, sources, sights, rest), kernels)
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.jit(step).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize(
    ("head_dim", "run", "kernels"), [(64, all_of, 4), (128, all_of, 4), (256, forward, 1)]
)
def test_they_lower_for_an_h200(head_dim, run, kernels):
    text = lowered(tree(head_dim=head_dim), sized(head_dim), run)
    assert len(re.findall(r"custom_call @mosaic_gpu", text)) == kernels


@pytest.mark.parametrize(
    ("given", "run", "said"),
    [
        ({"dtype": jnp.float32}, forward, "not float32"),
        ({"head_dim": 32}, forward, "a head of 32"),
        ({"head_dim": 256}, all_of, "a head of 256"),
    ],
)
def test_what_they_do_not_serve_is_refused(given, run, said):
    t = tree(**given)
    with pytest.raises(ValueError, match=said):
        lowered(t, sized(t.q.shape[3]), run)


def test_a_block_that_the_registers_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="here 128 do"):
        lowered(tree(head_dim=256), HopperKernels(forward_block=128), forward)


# Compiles the forward kernel with heads of 256 for an H200; the compiler's notes are read. What
# `models.attention` offers is compiled in tests/benchmarks/attention/compiled_test.py.
COMPILED = """
from rlp.capacity import chips, compilers
topology = chips.parse_topology("h200:1x1")
compilers.prepare(topology)
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from models.kernels.attention import attention
from models.kernels.hopper import sized
from models.kernels.visits import Sight
mesh = Mesh(np.array(compilers.devices(topology)), ("x",))
place = NamedSharding(mesh, PartitionSpec())
struct = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
vectors = lambda n: struct((2, 4, n, 256), jnp.bfloat16)
integers = lambda n: struct((2, n), jnp.int32)
q, lengths, groups = vectors(1000), (500, 600), (1, 10)
sources = tuple((vectors(n), vectors(n)) for n in lengths)
sights = tuple(Sight(*[integers(1000)] * 3, *[integers(n)] * 2, g) for n, g in zip(lengths, groups))
kernels = sized(256)
def step(q, sources, sights):
    return attention(q, sources, jnp.int32(0), kernels.worklists(sights, 4), 0.1, kernels)
with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    jax.jit(step).lower(q, sources, sights).compile()
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not compilers.installed("cuda"), reason="no compiler for GPUs: `make compilers` installs it"
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
    assert max(map(int, stored)) <= 24, note  # where loops begin and end, and no matrix
