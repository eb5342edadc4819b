"""Collectives counted in compiled programs whose traffic is known by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from rlp.capacity.hlo import collectives


@functools.cache
def mesh():
    devices = np.array(jax.devices()[:8]).reshape(2, 4)
    return jax.sharding.Mesh(devices, ("a", "b"), axis_types=(AxisType.Auto,) * 2)


def struct(shape, *spec):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh(), P(*spec)))


def compiled(f, *arguments, out=()):
    """Return the HLO text of a program on 8 devices."""
    program = jax.jit(f, out_shardings=NamedSharding(mesh(), P(*out)))
    return program.lower(*arguments).compile().as_text()


def by_kind(text, steps=1):
    """Return (count, sent bytes) by kind, of a program on 8 devices."""
    table = {}
    for one in collectives(text, 8, steps):
        count, sent = table.get(one.kind, (0, 0))
        table[one.kind] = (count + one.count, sent + one.sent)
    return table


# A product of [16, 32] and [32, 8] whose inner dimension four devices share: each sends 2 · 3/4 of
# the 16 · 8 floats of the sum.
LEFT, RIGHT = struct((16, 32), None, "b"), struct((32, 8), "b")
PRODUCT = 2 * 3 / 4 * 16 * 8 * 4


def product(x, y):
    return x @ y


def test_a_sum_over_four_of_eight_devices():
    text = compiled(product, LEFT, RIGHT)
    assert by_kind(text) == {"all-reduce": (1, PRODUCT)}
    (only,) = collectives(text, 8)
    assert sorted(map(sorted, only.groups.tolist())) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_gather_over_two_of_eight_devices():
    text = compiled(lambda x: x + 1, struct((8, 6), "a"))
    assert by_kind(text) == {"all-gather": (1, 8 * 6 * 4 / 2)}


def test_what_moves_nothing_has_no_collectives():
    assert by_kind(compiled(lambda x: x + 1, struct((8, 6), "a"), out=("a",))) == {}


def scanned(turns):
    def run(x, y):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ y @ x), None), x, length=turns)[0]

    return compiled(run, struct((8, 8), None, "b"), struct((8, 8), "b"), out=(None, "b"))


def test_a_loop_counts_as_often_as_it_turns():
    once, often = by_kind(scanned(1)), by_kind(scanned(5))
    assert once
    assert often == {kind: (5 * count, 5 * sent) for kind, (count, sent) in once.items()}


def decoding(x, y, loops=1):
    """Several loops whose trip count depends on data, with one all-reduce per iteration."""

    def running(state):
        number, x = state
        return (number < 9) & (x[0, 0] < 5)

    def turn(state):
        number, x = state
        return number + 1, jnp.tanh(x + jax.lax.with_sharding_constraint(x @ y, whole).sum())

    whole = NamedSharding(mesh(), P())
    state = (0, x)
    for _ in range(loops):
        state = jax.lax.while_loop(running, turn, state)
    return state[1]


@pytest.mark.parametrize("loops", [1, 2])
def test_a_loop_that_depends_on_data_takes_the_steps_it_is_given_once(loops):
    run = functools.partial(decoding, loops=loops)
    text = compiled(run, struct((8, 32), None, "b"), struct((32, 8), "b"), out=(None, "b"))
    none, one, seven = (by_kind(text, steps)["all-reduce"] for steps in (0, 1, 7))
    assert one[0] > none[0]
    for i in (0, 1):
        assert seven[i] - none[i] == pytest.approx(7 * (one[i] - none[i]))


# ---- forms that XLA:CPU does not emit

TPU = """
%wide.condition (p: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(6)
  %p = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT, metadata={op_name="x"}
}

%fused.1 (p: bf16[4,8]) -> (bf16[4,8], bf16[16,8], u32[]) {
  %p.1 = bf16[4,8]{1,0} parameter(0)
  %ag.1 = bf16[16,8]{0,1:T(8,128)(2,1)} all-gather(%p.1), channel_id=3, replica_groups=mesh['x'=4] {'x'}, dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %c.1 = (bf16[4,8]{1,0}, bf16[16,8]{1,0}, u32[]{:S(2)}) custom-call(%p.1, %ag.1)
}

%async_collective_fusion.2 (p: bf16[4,8]) -> bf16[16,8] {
  %p.2 = bf16[4,8]{1,0} parameter(0)
  ROOT %ag.2 = bf16[16,8]{0,1:T(8,128)(2,1)} all-gather(%p.2), channel_id=3, replica_groups=mesh['x'=4] {'x'}, dimensions={0}, frontend_attributes={chain_id="0"}
}

%all-reduce-scatter.3 (p: f32[16]) -> f32[4] {
  %p.3 = f32[16]{0} parameter(0)
  %ar.3 = f32[16]{0:T(128)} all-reduce(%p.3), channel_id=4, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %slice.3 = f32[4]{0:T(128)} dynamic-slice(%ar.3, %i.3), dynamic_slice_sizes={4}
}

%wide.body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p.4 = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  %async-collective-start = (bf16[4,8]{1,0}, bf16[16,8]{1,0}, u32[]{:S(2)}) fusion(%x), kind=kCustom, calls=%fused.1
  %work = bf16[16,8]{1,0} fusion(%y), kind=kCustom, calls=%async_collective_fusion.2
  %sum = f32[4]{0:T(128)} fusion(%z), kind=kCustom, calls=%all-reduce-scatter.3
  ROOT %t = (s32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%i.4, %r.4)
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0:T(128)} parameter(0)
  %start = (s32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%zero, %a)
  %loop = (s32[]{:T(128)}, /*index=1*/f32[8]{0:T(128)}) while(%start), condition=%wide.condition, body=%wide.body
  %send = (f32[8]{0}, f32[8]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%a), channel_id=1, source_target_pairs={{0,1},{1,2},{2,3}}
  %sent = f32[8]{0} collective-permute-done(%send)
  ROOT %out = f32[8]{0:T(128)} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


def test_the_forms_of_a_program_for_tpus():
    """A loop with a constant, an all-gather in three fusions, a fused reduce-scatter."""
    assert by_kind(TPU) == {
        "all-gather": (6, 6 * 3 / 4 * 16 * 8 * 2),
        "reduce-scatter": (6, 6 * 3 / 4 * 16 * 4),
        "collective-permute": (1, 8 * 4),
    }


def test_a_limit_that_comes_from_outside_of_the_loop():
    carried = TPU.replace("constant(6)", "get-tuple-element(%p), index=1").replace(
        "tuple(%zero, %a)", "tuple(%zero, %turns)"
    )
    carried = carried.replace("  %start =", "  %turns = s32[] constant(2)\n  %start =")
    assert by_kind(carried)["all-gather"][0] == 2


GPU = """
ENTRY %main (a: f32[8]) -> f32[8] {
  %a = bf16[2,4]{1,0} parameter(0)
  %g = (bf16[2,4]{1,0}, bf16[8,4]{1,0}) all-gather-start(%a), channel_id=1, replica_groups=GROUPS, dimensions={0}
  %gd = bf16[8,4]{1,0} all-gather-done(%g)
  %r = ((bf16[8,4]{1,0}, f32[8]{0}), (bf16[2,4]{1,0}, f32[2]{0})) reduce-scatter-start(%gd, %b), channel_id=2, replica_groups=GROUPS, to_apply=%add
  %rd = (bf16[2,4]{1,0}, f32[2]{0}) reduce-scatter-done(%r)
  ROOT %s = f32[8]{0} copy(%c)
}
"""  # noqa: E501


@pytest.mark.parametrize(
    ("form", "groups"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("[2,4]<=[8]", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("[2,4]<=[4,2]T(1,0)", [[0, 2, 4, 6], [1, 3, 5, 7]]),
        ("mesh['x'=2,'y'=4] {'y'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("mesh['x'=4,'y'=2] {'x'}", [[0, 2, 4, 6], [1, 3, 5, 7]]),
        (
            "mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'x'}",
            [[0, 1, 2, 3], [4, 5, 6, 7]],
        ),
        ("mesh['x'=8] {'x':(1)4}", [[0, 2, 4, 6], [1, 3, 5, 7]]),
        ("mesh['x'=8] {'x':(2)4}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_groups_are_read_in_every_form(form, groups):
    text = GPU.replace("GROUPS", form)
    assert by_kind(text) == {
        "all-gather": (1, 3 / 4 * 8 * 4 * 2),
        "reduce-scatter": (1, 3 * (2 * 4 * 2 + 2 * 4)),
    }
    for one in collectives(text, 8):
        assert sorted(map(sorted, one.groups.tolist())) == groups
        assert one.crosses(lambda device: device // 4) == (groups[0] != [0, 1, 2, 3])


def test_groups_in_another_form_are_refused():
    with pytest.raises(ValueError, match="unknown form"):
        collectives(GPU.replace("GROUPS", "<everyone>"), 8)
