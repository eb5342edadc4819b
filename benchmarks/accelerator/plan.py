"""What is measured on an accelerator, as command lines of the other benchmarks.

Does not import jax.
"""

import dataclasses
import sys

SMOLLM2 = "--hidden=576 --layers=30 --heads=9 --kv_heads=3 --head_dim=64 --ffn=1536 --vocab=49152"
QWEN3 = "--hidden=2048 --layers=28 --heads=16 --kv_heads=8 --head_dim=128 --ffn=6144 --vocab=151936"
# 1.2 billion parameters: 12 layers of Mamba-2, 3 of attention, 12 feed-forwards.
HYBRID = (
    "--pattern=M-M-M-M*- --hidden=2048 --layers=27 --heads=16 --kv_heads=8 --head_dim=128 "
    "--ffn=6144 --vocab=131072"
)
# Attention of one layer of Qwen3-1.7B, with the lengths of the paper.
LAYER = "--trunk=2048 --slots=2048 --thoughts=16 --heads=16 --kv_heads=8 --head_dim=128"
TINY_NETWORK = "--hidden=32 --layers=1 --heads=2 --kv_heads=1 --head_dim=16 --ffn=48 --vocab=64"
TINY_HYBRID = f"--pattern=M- {TINY_NETWORK} --layers=2"
TINY_LAYER = "--trunk=64 --slots=16 --thoughts=2 --heads=2 --kv_heads=1 --head_dim=16"

# Backend of JAX -> implementations of attention, and peers for rows of documents. A library's
# kernels have no mask for branches that could be compared at these lengths.
ATTENTION = {
    "gpu": ("pallas_hopper,pallas_gpu,xla", "cudnn"),
    "tpu": ("pallas_tpu,xla", "splash"),
    "cpu": ("default,xla", "none"),
}
# Program -> numbers that its JSON line must contain.
NEEDED = {
    "benchmarks.attention": ("matmul_tflop_per_s", "copy_gb_per_s"),
    "benchmarks.step": ("step_s", "rollout_s", "score_s", "update_s"),
    "benchmarks.next_token": ("step_s",),
    "benchmarks.recurrence": ("forward_s", "gradient_s", "decode_s"),
}
HYBRID_STEP = "RLP, a hybrid of 1.2 billion parameters"
# Exit statuses of a program with a result, if not only 0: with 1, one implementation refused.
STATUSES = {"benchmarks.attention": (0, 1)}


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One run of a benchmark.

    Attributes:
      name: in the table.
      program: module of the benchmark.
      sizes: its flags.
      limit_s: seconds after which it is stopped, compilation included.
    """

    name: str
    program: str
    sizes: str
    limit_s: float

    def arguments(self, threads: int) -> list[str]:
        """Return the module and its flags, for a machine with `threads` CPUs."""
        return [self.program, *self.sizes.split(), "--dtype=bfloat16", f"--threads={threads}"]

    def command(self, threads: int) -> list[str]:
        """Return the command line that this interpreter runs."""
        return [sys.executable, "-m", *self.arguments(threads)]


def measurements(backend: str) -> list[Measurement]:
    """Return the measurements for a backend of JAX, the most important ones first.

    Those for the CPU have tiny sizes and show only that the program works.
    """
    if backend == "cpu":
        return _measurements(
            backend,
            layer=f"{TINY_LAYER} --rounds=1 --sample_s=0.001",
            docs=("--docs=1", "--docs=1", "--docs=1"),
            steps={
                "a tiny network": (
                    f"--docs=2 --group=2 --prefix=8 --thought=4 --horizon=2 {TINY_NETWORK}",
                    f"--rows=2 --length=8 {TINY_NETWORK}",
                )
            },
            hybrid=f"--docs=2 --group=2 --prefix=8 --thought=4 --horizon=2 {TINY_HYBRID}",
        )
    return _measurements(
        backend,
        layer=f"{LAYER} --rounds=5 --sample_s=0.1",
        docs=("--docs=2", "--docs=16", "--docs=8"),
        steps={
            "SmolLM2-135M": (
                f"--docs=32 --group=8 --prefix=1024 --thought=256 --remat=block {SMOLLM2}",
                f"--rows=32 --length=1024 {SMOLLM2}",
            ),
            "Qwen3-1.7B": (
                f"--docs=8 --group=16 --prefix=2048 --thought=512 --remat=block {QWEN3}",
                f"--rows=8 --length=2048 --remat=block {QWEN3}",
            ),
        },
        hybrid=f"--docs=8 --group=16 --prefix=2048 --thought=512 --remat=block {HYBRID}",
    )


def _measurements(
    backend: str,
    layer: str,
    docs: tuple[str, str, str],
    steps: dict[str, tuple[str, str]],
    hybrid: str,
) -> list[Measurement]:
    """Return the measurements with some sizes.

    Args:
      backend: of JAX.
      layer: flags of attention.
      docs: of attention of branches, while decoding, and of rows.
      steps: name of a network -> flags of its RLP step and of its next-token step.
      hybrid: flags of the RLP step of a hybrid.
    """
    update, decode, rows = docs
    kernels, peers = ATTENTION[backend]
    kernels = f"--implementations={kernels} {layer}"
    branches = f"{kernels} --peers=none --forks=1"

    def attention(name: str, sizes: str) -> Measurement:
        return Measurement(f"attention {name}", "benchmarks.attention", sizes, limit_s=120)

    timing = "--warmup=1 --steps=3"
    ours = [
        measurement
        for network, (rlp, next_token) in steps.items()
        for measurement in (
            Measurement(f"RLP, {network}", "benchmarks.step", f"{rlp} {timing}", 180),
            Measurement(
                f"next token, {network}", "benchmarks.next_token", f"{next_token} {timing}", 120
            ),
        )
    ]
    return [
        attention("of branches", f"{branches} {update} --passes=forward,backward,whole"),
        attention("while decoding", f"{branches} {decode} --passes=decode"),
        *ours,
        Measurement(HYBRID_STEP, "benchmarks.step", f"{hybrid} {timing}", 180),
        Measurement("recurrence of the hybrid", "benchmarks.recurrence", f"{hybrid} {timing}", 90),
        attention("of rows", f"{kernels} --peers={peers} --forks=0 {rows}"),
    ]
