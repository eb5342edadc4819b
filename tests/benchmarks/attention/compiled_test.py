"""The attention kernels compile ahead of time for TPUs and GPUs."""

import subprocess
import sys

import pytest

from rlp.capacity import compilers
from tests.support import environment
from tests.support.paths import ROOT


def needs(platform):
    name = compilers.MODULES[platform]
    return pytest.mark.skipif(
        not compilers.installed(platform), reason=f"{name} is missing; run `make compilers`"
    )


def table(*flags):
    """Run the program and return the rows of its table as dictionaries."""
    words = [sys.executable, "-m", "benchmarks.attention.compiled", *flags]
    ran = subprocess.run(
        words,
        cwd=ROOT,
        env=environment.of_a_user(),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    header, _, *rows = (
        [cell.strip() for cell in line.strip("| ").split("|")] for line in ran.stdout.splitlines()
    )
    return [dict(zip(header, row, strict=True)) for row in rows]


@needs("tpu")
@pytest.mark.parametrize(
    ("topology", "sizes"),
    [
        ("v5e:2x2", "128"),
        pytest.param("v5p:2x2x1", "64", marks=pytest.mark.slow),
        pytest.param("v6e:2x2", "256", marks=pytest.mark.slow),
    ],
)
def test_for_tpus(topology, sizes):
    rows = table("--topology", topology, "--head_dims", sizes)
    kernels = ["attention_dkv", "attention_dkv", "attention_dq", "attention_forward"]
    for size in sizes.split(","):
        of = lambda name, size=size: sorted(
            row["kernel"] for row in rows if (row["head size"], row["pass"]) == (size, name)
        )
        assert of("training") == kernels
        assert of("decoding") == kernels[-1:]


@needs("cuda")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("implementation", "dtype", "sizes", "most_spilled"),
    [
        ("pallas_gpu", "bfloat16", "64", 64),
        ("pallas_gpu", "float32", "256", 640),
        ("pallas_hopper", "bfloat16", "128", 24),  # at loop boundaries; no matrix is spilled
    ],
)
def test_for_gpus(implementation, dtype, sizes, most_spilled):
    flags = {"implementation": implementation, "dtypes": dtype, "head_dims": sizes}
    rows = table("--topology=h200:1x1", *(f"--{name}={value}" for name, value in flags.items()))
    assert len(rows) == 5 * len(sizes.split(","))
    for row in rows:
        assert 0 < int(row["shared KiB"]) <= 227
        assert int(row["spilled B"]) <= most_spilled, row
        assert (int(row["wgmma"]) + int(row["mma"]) > 0) == (dtype == "bfloat16"), row


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dtypes", "float8"], "float8 is not one of"),
        (["--head_dims", "big"], "use integers"),
        (["--topology", "v5e:2"], "v5e needs 2 sizes"),
    ],
)
def test_bad_input_is_refused_in_one_line(flags, message):
    words = [sys.executable, "-m", "benchmarks.attention.compiled", *flags]
    ran = subprocess.run(
        words, cwd=ROOT, env=environment.of_a_user(), capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert message in ran.stderr
