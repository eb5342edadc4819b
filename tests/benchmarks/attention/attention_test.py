"""The attention benchmark: workload, counts, peers, timing, and invalid command lines."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import fields
from benchmarks.attention import __main__, check, splash, timing, torch, turns, workload
from benchmarks.attention import contenders as case
from benchmarks.attention import tables as report
from benchmarks.attention.peers import TorchPeer, TorchProcess, contenders
from benchmarks.attention.workload import PASSES, AttentionSizes
from benchmarks.difference import relative_error
from benchmarks.measure import compilations
from models.mask import visible
from rlp.runtime.errors import UserError

TREE = AttentionSizes(
    docs=2, trunk=24, forks=3, thoughts=2, slots=16, dead=0.3,
    heads=4, kv_heads=2, head_dim=8,
)  # fmt: skip
TRUNK = dataclasses.replace(TREE, forks=0)
END = dataclasses.replace(TREE, fork_places="end", dead=0.0, written=16, seed=1)


@pytest.fixture(autouse=True)
def _machine_rates(monkeypatch):
    """Fake rates of the machine, because measuring them takes a second."""
    monkeypatch.setattr(timing, "machine", lambda: {"copy_gb_per_s": 30.0})
    monkeypatch.setattr(timing, "matmul", lambda dtype: {"matmul_tflop_per_s": 0.2})


def mask(sizes: AttentionSizes, decode: bool) -> np.ndarray:
    query, key = map(case.coordinates, workload.packed_coordinates(sizes, decode))
    return np.asarray(visible(query, key))


@pytest.mark.parametrize("sizes", [TREE, TRUNK, END])
def test_pairs_are_counted_as_the_rule_sees_them(sizes):
    assert sizes.pairs(decode=False) == mask(sizes, False).sum()
    assert sizes.flops("backward") == 10 * mask(sizes, False).sum() * sizes.heads * sizes.head_dim


@pytest.mark.parametrize("sizes", [TREE, END, dataclasses.replace(TREE, written=1)])
def test_decoding_moves_the_visible_keys(sizes):
    seen = mask(sizes, True)
    assert sizes.pairs(decode=True) == seen.sum()
    keys, queries = seen.any(axis=1).sum(), sizes.docs * sizes.branches
    numbers = 2 * keys * sizes.kv_heads + 2 * queries * sizes.heads
    assert sizes.decode_bytes() == 4 * numbers * sizes.head_dim
    half = dataclasses.replace(sizes, dtype="bfloat16")
    assert 2 * half.decode_bytes() == sizes.decode_bytes()


def test_dead_slots_have_the_requested_share():
    sizes = dataclasses.replace(TREE, docs=64, slots=64, dead=0.2)
    dead = 1 - sizes.live.mean()
    assert 0.17 < dead < 0.23
    assert sizes.live[..., 0].all()
    assert sizes.live[..., -8:].all()
    assert len({*sizes.live.sum(-1).ravel()}) > 10


def test_forks_are_anywhere_or_at_the_end():
    many = dataclasses.replace(TREE, docs=100)
    assert {*many.fork.ravel()} == {*range(1, 25)}
    assert (many.fork[:, ::2] == many.fork[:, 1::2]).all()  # the thoughts of a fork
    assert (END.fork == END.trunk).all()


def test_a_causal_trunk_has_equal_useful_work():
    large = dataclasses.replace(TREE, trunk=1024, slots=512)
    trunk = workload.causal(large)
    assert trunk.trunk % 128 == 0
    assert 0.9 < trunk.flops("forward") / large.flops("forward") < 1.1
    assert workload.causal(TRUNK) == TRUNK


@pytest.mark.parametrize("sizes", [TREE, TRUNK])
def test_all_contenders_compute_the_same(sizes, capsys):
    """The contenders of a CPU, through the program, with gradients."""
    words = fields.arguments(sizes)
    assert __main__.main(["--check", "--implementations=xla", *words]) == 0
    errors = json.loads(capsys.readouterr().out)["errors"]
    ours, *peers = errors
    assert ours == "models.attention xla"
    inputs = ["query", "key", "value", *(["own_key", "own_value"] if sizes.forks else [])]
    names = {f"gradient of {name}" for name in inputs} | {"forward"}
    assert set(errors[ours]) == names | ({"decode"} if sizes.forks else set())
    compared = [error for peer in peers for error in errors[peer].values()]
    assert sum(isinstance(error, float) for error in compared) == (3 if sizes.forks else 1)


def test_a_wrong_result_is_found(monkeypatch, capsys):
    right = jax.nn.dot_product_attention
    wrong = lambda *args, **kwargs: right(*args, **kwargs) * 1.001
    monkeypatch.setattr(jax.nn, "dot_product_attention", wrong)
    assert __main__.main(["--check", "--passes=decode", *fields.arguments(TREE)]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("jax.nn xla, dense mask: decode is off by 0.001")
    assert "a copy of the trunk per branch: decode" in second


def test_nan_and_our_refusals_are_found():
    refused = {"forward": "refused: too old"}
    errors = {"a": {"forward": float("nan"), "decode": 0.0}, "b": refused}
    nan, ours = check.complaints(errors | {f"{case.OURS} c": refused}, "float32")
    assert nan.startswith("a: forward is off by nan")
    assert ours == "models.attention c: forward: refused: too old"


@pytest.mark.parametrize("sizes", [TREE, END, TRUNK])
def test_flex_attention_has_the_same_block_mask(sizes):
    """On a CPU, without compilation."""
    peers = torch.Peers(sizes, pytest.importorskip("torch"), "cpu")
    for decode in (False, True) if sizes.forks else (False,):
        step = "decode" if decode else "forward"
        expected = case.product(sizes, "reference").output(step)
        live = workload.query_coordinates(sizes, decode).segment.reshape(sizes.docs, -1) > 0
        assert relative_error(peers.output("flex", step)[live], expected[live]) < 1e-6


def test_sdpa_runs_the_causal_trunk():
    peers = torch.Peers(TRUNK, pytest.importorskip("torch"), "cpu")
    expected = case.product(TRUNK, "reference").output("forward")
    assert relative_error(peers.output("sdpa_flash", "forward"), expected) < 1e-6


def test_without_torch_or_its_device_the_peer_is_refused_with_the_reason():
    with TorchProcess(TREE) as process:
        peer = TorchPeer(process, "flex", TREE)
        (row,) = turns.alternate([peer], "forward", rounds=1, seconds=0.01)
    has_torch = importlib.util.find_spec("torch") is not None
    assert ("finds no CUDA device" if has_torch else "cannot be imported") in row["refused"]
    assert process.process.returncode == 0


SPLASH = AttentionSizes(
    docs=2, trunk=128, forks=2, thoughts=1, slots=64, dead=0.2, heads=2, kv_heads=1, head_dim=128
)


@pytest.mark.parametrize("sizes", [SPLASH, dataclasses.replace(SPLASH, forks=0)])
def test_splash_attention_has_the_same_mask(sizes):
    make = splash.tree if sizes.forks else splash.causal
    expected = case.product(sizes, "reference").output("forward")
    live = workload.query_coordinates(sizes, False).segment.reshape(sizes.docs, -1) > 0
    output = make(sizes, interpret=True).output("forward")
    assert relative_error(output[live], expected[live]) < 2e-6


@pytest.mark.parametrize("make", [splash.tree, splash.causal])
def test_splash_attention_lowers_for_tpus(make):
    peer = make(dataclasses.replace(SPLASH, docs=1, dtype="bfloat16"))
    traced = peer._whole.trace(*peer.inputs(False))
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("@tpu_custom_call") == 2  # forward, and one backward kernel


def test_nothing_is_compiled_in_a_sample_and_all_peers_are_sampled_in_turn(monkeypatch):
    order = []
    sample = timing.Jitted.sample

    def recorded(self, step):
        order.append(self.name)
        with compilations() as compiled:
            seconds = sample(self, step)
        assert compiled == []
        return seconds

    monkeypatch.setattr(timing.Jitted, "sample", recorded)
    with contenders(TREE, ["xla"], ["xla"]) as all_contenders:
        for step in PASSES:
            order.clear()
            rows = turns.alternate(all_contenders, step, rounds=3, seconds=0.001)
            names = [row["impl"] for row in rows]
            assert len(names) == 3
            a, b, c = names
            assert order == [a, b, c, b, c, a, c, a, b]
            for row in rows:
                assert len(row["seconds"]) == 3
                assert min(row["seconds"]) > 0


def contender(attend) -> timing.Jitted:
    x = {"query": jnp.ones((2, 3))}
    return timing.Jitted("made up", attend, lambda _: (x, (), x["query"]), lambda _: 10)


@pytest.mark.parametrize(
    ("step", "forward", "backward"),
    [("forward", 1, 0), ("backward", 0, 1), ("whole", 1, 1), ("decode", 1, 0)],
)
def test_a_pass_runs_what_its_name_says(step, forward, backward):
    """A sample runs exactly its calls; `backward` also runs one untimed forward pass."""
    ran = []

    @jax.custom_vjp
    def attend(query):
        jax.debug.callback(lambda: ran.append("forward"))
        return query * 2

    def attend_vjp(_, cotangent):
        jax.debug.callback(lambda: ran.append("backward"))
        return (cotangent * 2,)

    attend.defvjp(lambda query: (attend(query), ()), attend_vjp)
    fake = contender(lambda x, _: attend(x["query"]))
    fake.calls[step] = 5
    fake.sample(step)
    jax.effects_barrier()
    untimed = step == "backward"  # the forward pass that computes the residuals
    assert ran.count("forward") == 5 * forward + untimed
    assert ran.count("backward") == 5 * backward


def test_an_unsupported_implementation_is_named_with_the_reason(monkeypatch, capsys):
    def refuse(*_):
        raise NotImplementedError("head_dim=8 is not supported\nand more")

    monkeypatch.setitem(case.attention.__globals__, "xla_attention", refuse)
    words = ["--implementations=reference,xla", "--peers=none", "--passes=forward", "--rounds=1"]
    assert __main__.main([*words, "--sample_s=0.001", *fields.arguments(TREE)]) == 1
    line, *table = capsys.readouterr().out.splitlines()
    refused = json.loads(line)["rows"][1]
    assert refused["refused"] == "head_dim=8 is not supported"
    assert "models.attention xla | refused: head_dim=8 is not supported" in table[-1]


def test_rates_and_ratios_are_those_of_useful_work():
    row = lambda **more: {"impl": "a", "ours": False, "pass": "decode", **more}
    pairs = TREE.pairs(decode=True)
    rows = [
        row(pairs=pairs, seconds=[1e-6, 4e-6, 2e-6]),
        row(pairs=2 * pairs, seconds=[4e-6, 4e-6, 9e-6]),  # the ratios by round are 2, 0.5 and 2.25
        row(refused="no"),
    ]
    report.rate(rows, TREE, {"matmul_tflop_per_s": 1.0, "copy_gb_per_s": 1000.0})
    ours, peer, _ = rows
    flops = 4 * pairs * 4 * 8
    assert ours["useful_tflop_per_s"] == pytest.approx(flops / 2e-6 / 1e12)
    assert ours["share_of_matmul"] == pytest.approx(flops / 2e-6 / 1e12)
    assert ours["share_of_copy"] == pytest.approx(TREE.decode_bytes() / 2e-6 / 1e12)
    assert (ours["first_over_this"], peer["first_over_this"]) == pytest.approx((1, 2))
    *_, first, second, third = report.table(rows).splitlines()
    assert "| 0.002 (0.001 to 0.004) |" in first
    assert second.endswith("| 2.00× |")
    assert "| refused: no |" in third


def test_bounds_are_those_of_data_sheets(capsys):
    sizes = ["--docs=1", "--trunk=1000", "--forks=0", "--heads=4", "--kv_heads=2", "--head_dim=64"]
    assert __main__.main(["--bounds", "--passes=whole", "--dtype=bfloat16", *sizes]) == 0
    _, _, h200, *_ = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in h200.strip("|").split("|")]
    assert cells[:5] == ["whole", "5.005e+05", "0.001794", "0.00464", "h200"]
    flops = 14 * 500500 * 4 * 64
    # Forward and backward: 1000 tokens of 4 query heads, 6 and 6 times, and of 2 key heads.
    moved = 2 * 64 * 1000 * (6 * 4 + 6 * 2) + 2 * 4 * 1000 * 4
    exponentials = 2 * 500500 * 4 / (16 * 132 * 1.83e9)
    expected = [flops / 989e12, moved / 4800e9, exponentials]
    assert [float(cell) for cell in cells[5:]] == pytest.approx([1e3 * x for x in expected], 1e-3)


def test_a_sweep_prints_a_row_for_each_value(capsys):
    words = ["--over=trunk", "--values=8,16", "--passes=decode", "--implementations=xla,reference"]
    quick = ["--peers=none", "--rounds=1", "--sample_s=0.001"]
    assert __main__.main([*words, *quick, *fields.arguments(TREE)[2:]]) == 0
    first, second, *table = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["trunk"] for line in (first, second)] == [8, 16]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    implementations = ["models.attention xla", "models.attention reference"]
    assert cells[0] == ["trunk", *(f"decode: {name}, ms" for name in implementations)]
    assert [row[0] for row in cells[2:]] == ["8", "16"]
    assert all(float(cell) > 0 for row in cells[2:] for cell in row[1:])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--heads=3 --kv_heads=2", "--heads=3 is not a multiple of --kv_heads=2"),
        ("--written=65", "--written=65 is more than --slots=64"),
        ("--dead=0.5", "--dead=0.5; it must be at least 0 and at most 0.4"),
        ("--docs=0", "--docs=0; it must be at least 1"),
        ("--passes=sideways", "'sideways' is not one of forward, backward, whole, decode"),
        ("--forks=0 --passes=decode", "--passes=decode needs branches"),
        ("--implementations=fast", "'fast' is not one of default, reference, xla"),
        ("--peers=xla,none", "'none' is not one of xla, cudnn"),
        ("--over=trunk", "--over and --values go together"),
        ("--values=1,2", "--over and --values go together"),
        ("--over=dead --values=1", "argument --over"),
        ("--over=trunk --values=2,1", "must ascend"),
        ("--rounds=0", "--rounds=0"),
        ("--threads=100000", "--threads=100000, but this process may use"),
        ("--check --trunk=100000", "--check needs"),
    ],
)
def test_a_bad_command_line_is_refused(flags, message):
    with pytest.raises(UserError) as error:
        __main__.main(flags.split())
    assert message in str(error.value)


def test_kernels_of_other_devices_are_not_timed_on_a_cpu():
    with pytest.raises(UserError, match="could only be interpreted"):
        __main__.main(["--implementations=pallas_tpu"])
