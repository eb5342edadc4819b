"""`python -m launch.compile` as a process, for chips that are not here."""

import re
import subprocess
import sys

import pytest

from rlp.capacity import compilers
from rlp.capacity.chips import parse_topology
from rlp.runtime.errors import UserError
from tests.support import environment
from tests.support.paths import ROOT


def compile_step(*flags, seconds=3600):
    """Run the program; return (exit status, stdout, stderr)."""
    words = [sys.executable, "-m", "launch.compile", *flags]
    ran = subprocess.run(
        words, cwd=ROOT, env=environment.of_a_user(), capture_output=True, text=True,
        timeout=seconds,
    )  # fmt: skip
    return ran.returncode, ran.stdout, ran.stderr


def needs(platform):
    name = compilers.MODULES[platform]
    return pytest.mark.skipif(
        not compilers.installed(platform), reason=f"no {name}: `make compilers` installs it"
    )


def config(name, **fields):
    given = {"data.eos": ""} | {key.replace("__", "."): value for key, value in fields.items()}
    return [f"--config=configs/{name}", *(f"--config.{key}={x}" for key, x in given.items())]


def test_sharding_is_shown_without_a_compiler():
    status, out, _ = compile_step(
        *config("qwen3_1p7b_rlp.py", mesh__tensor=4), "--topology=v5p:4x4x4", "--show_sharding"
    )
    assert status == 0
    assert out.startswith("mesh data 1 × fsdp 16 × tensor 4\n")
    embedding = 151_936 * 2048 * 4 // 64
    assert re.search(rf"embedding +151936×2048 +\(tensor, fsdp\) +{embedding:,}\n", out)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--topology is missing"),
        (["--topology=v5p:4x4"], "v5p needs 3 sizes"),
        (["--topology=v5p:2x2x1", "--show_sharding", "--config.mesh.fsdp=3"], "mesh.fsdp=3"),
    ],
)
def test_bad_input_is_refused_in_one_line(flags, said):
    status, _, err = compile_step(*config("text.py"), *flags)
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_several_runs_are_refused():
    status, _, err = compile_step("--config=configs/demo.py", "--topology=v5e:2x2")
    assert (status, err.count("\n")) == (2, 1)
    assert "arms" in err


def test_a_compiler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(compilers.MODULES, "tpu", "libtpu_of_nobody")
    with pytest.raises(
        UserError, match=r"libtpu_of_nobody\) is not installed; run `make compilers`"
    ):
        compilers.prepare(parse_topology("v5e:2x2"), {})


SMALL = {
    "model__hidden_size": 128, "model__num_layers": 2, "model__num_heads": 2,
    "model__num_kv_heads": 2, "model__ffn_size": 256, "model__compute_dtype": "bfloat16",
    "data__sequence_length": 128, "batch_size": 8, "mesh__data": 1, "mesh__fsdp": -1,
}  # fmt: skip


# Looks words up in a table that is split both ways, for rows that are split.
UNWILLING = """
import sys
from rlp.capacity import chips, compilers
topology = chips.parse_topology(sys.argv[1])
compilers.prepare(topology)
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from models.sharding import batch_sharding, constrain, make_mesh
from rlp.capacity import programs
mesh = make_mesh(2, 2, 2, devices=compilers.devices(topology))
split = NamedSharding(mesh, PartitionSpec("tensor", "fsdp"))
table = jax.ShapeDtypeStruct((24, 32), jnp.float32, sharding=split)
tokens = jax.ShapeDtypeStruct((8, 12), jnp.int32, sharding=batch_sharding(mesh))
step = programs.CompiledStep()
look_up = jax.jit(lambda table, tokens: constrain(table[tokens], "rows"))
with programs.tracing_for(mesh, topology.chip.platform):
    programs.Compiler(mesh, step, lambda line: None).stage("x", "update", look_up, table, tokens)
print(*step.stages[0].remarks, sep="\\n")
"""


@pytest.mark.parametrize(
    "topology",
    [pytest.param("v5e:2x4", marks=needs("tpu")), pytest.param("h200:1x8", marks=needs("cuda"))],
)
def test_what_is_rematerialised_against_the_compilers_will_is_found(topology):
    words = [sys.executable, "-c", UNWILLING, topology]
    ran = subprocess.run(
        words,
        cwd=ROOT,
        env=environment.of_a_user(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("Involuntary full rematerialization of ")
    assert ran.stdout.count("\n") == 1


@needs("tpu")
def test_a_small_step_for_four_tpus():
    status, out, err = compile_step(*config("text.py", **SMALL), "--topology=v5e:2x2")
    assert status == 0, err
    assert re.search(r"\nfits: peak \d+\.\d\d of 15\.75 GiB\n$", out)
    assert re.search(r"\n  update  all-gather +\d", out)
    assert "Involuntary full rematerialization" not in out


# The recipe's own settings, chips and rollout batches, at a smaller size.
SMALL_RECIPE = SMALL | {
    "batch_size": 256, "model__vocab_size": 512, "data__sequence_length": 256,
    "rlp__thought_length": 32, "rlp__group_size": 8, "rlp__max_branches_in_flight": 1024,
    "rlp__update_micro_batch": 1024,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("topology", "fields"),
    [
        pytest.param("v5p:4x4x4", config("qwen3_1p7b_rlp.py", **SMALL_RECIPE), marks=needs("tpu")),
        pytest.param(
            "h200:2x2",
            config("text.py:rlp", **SMALL, rlp__max_branches_in_flight=64, mesh__tensor=2),
            marks=needs("cuda"),
        ),
    ],
    ids=["v5p", "h200"],
)
def test_a_small_step_of_rlp(topology, fields):
    status, out, err = compile_step(*fields, f"--topology={topology}")
    assert status == 0, err
    for stage in ("gather", "read", "no_think", "rollout", "evidence", "join", "update", "finish"):
        assert re.search(rf"\n  {stage} +\d+ ", out), stage
    assert re.search(r"\nfits: peak \d+\.\d\d of \d+\.\d\d GiB\n$", out)
    assert "Involuntary full rematerialization" not in out


@needs("tpu")
@pytest.mark.slow
def test_what_does_not_fit_exits_with_one():
    big = {"batch_size": 4096, "data__sequence_length": 2048, "model__hidden_size": 2048}
    status, out, err = compile_step(*config("text.py", **SMALL | big), "--topology=v5e:2x2")
    assert status == 1, err
    assert re.match(
        r"does not fit: peak [\d.,]+ of 15\.75 GiB in update; lower batch_size, set model\.remat "
        r"to 'block', raise mesh\.fsdp or mesh\.tensor, or use more chips$",
        out.splitlines()[-1],
    )
