"""Time this project's attention and others on trees of synthetic documents.

    python -m benchmarks.attention --docs 2 --trunk 2048 --forks 4 --thoughts 4 --slots 2048 \\
        --heads 16 --kv_heads 8 --head_dim 128 --dtype bfloat16
    python -m benchmarks.attention --forks 0                      # a causal trunk
    python -m benchmarks.attention --check                        # compare with `reference`
    python -m benchmarks.attention --bounds                       # lower bounds of the time
    python -m benchmarks.attention --passes decode --over trunk --values 64,128,256,512

All implementations take turns on the same device. Useful FLOPs are those of the visible (query,
key) pairs alone: for each element of a head, 4 forward and 10 backward (dq, dk, dv and two products
that are recomputed). `backward` is the VJP alone, `whole` is forward and VJP. For `decode`, the
measure is the bytes that must move. Prints a JSON line for each workload, and a table at the end.
With --check the line contains the errors relative to `reference`, and the exit status is 1 if one
is too large.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Sequence

from benchmarks import command, fields
from benchmarks.attention import tables as report
from benchmarks.attention.workload import PASSES, AttentionSizes
from rlp.runtime.errors import UserError

PORTABLE = ("default", "reference", "xla")  # run on a CPU; other implementations are interpreted
# Peers, and the backends on which they run by default (--peers).
PEERS = {
    "xla": ("cpu", "gpu", "tpu"),
    "cudnn": ("gpu",),
    "splash": ("tpu",),
    "flex": ("gpu",),
    "sdpa_cudnn": ("gpu",),
    "sdpa_flash": ("gpu",),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to run on every workload: see the flags of the same names."""

    implementations: Sequence[str]
    peers: Sequence[str]
    passes: Sequence[str]
    rounds: int
    sample_s: float
    threads: int


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--implementations",
        default="default",
        help="names of models.attention",
    )
    parser.add_argument("--peers", default="default", help=f"some of {', '.join(PEERS)}; or none")
    parser.add_argument("--passes", default="all", help=f"some of {', '.join(PASSES)}")
    parser.add_argument("--rounds", type=int, default=7, help="samples of each implementation")
    parser.add_argument("--sample_s", type=float, default=0.2, help="seconds of a sample, roughly")
    parser.add_argument("--threads", type=int, default=0, help="CPUs to use; 0 = all")
    parser.add_argument("--check", action="store_true", help="only compare with `reference`")
    parser.add_argument("--bounds", action="store_true", help="only print lower bounds")
    parser.add_argument("--over", choices=fields.counts(AttentionSizes), help="flag to vary")
    parser.add_argument("--values", help="values of the flag --over, ascending")
    fields.add_flags(parser, AttentionSizes)
    flags = parser.parse_args(arguments)
    sizes = AttentionSizes(**fields.values(flags, AttentionSizes))
    if (flags.over is None) != (flags.values is None):
        raise UserError("--over and --values go together: set both or neither")
    if flags.rounds < 1 or not 0 < flags.sample_s < 1000:
        raise UserError(
            f"--rounds={flags.rounds}, --sample_s={flags.sample_s}: both must be above 0, and "
            "--sample_s below 1000"
        )
    if flags.threads < 0:
        raise UserError(f"--threads={flags.threads}; it must be at least 0")
    workloads = fields.varied(sizes, flags.over, flags.values) if flags.over else [sizes]
    passes = _passes(flags.passes, workloads)
    named_peers = _peers(flags.peers)
    if flags.bounds:
        print(report.bounds(sizes, passes))
        return 0

    if flags.threads:  # XLA starts one thread for each allowed CPU when it first computes
        os.sched_setaffinity(0, command.cpus(flags.threads))

    import jax  # slow; only after the command line has been checked

    implementations = _implementations(flags.implementations, timed=not flags.check)
    backend = jax.default_backend()
    peers = [name for name, on in PEERS.items() if backend in on]
    peers = peers if named_peers is None else named_peers
    plan = Plan(implementations, peers, passes, flags.rounds, flags.sample_s, flags.threads)
    if flags.check:
        return _check(workloads, plan)
    return _measure(workloads, plan, flags.over)


def _measure(workloads: Sequence[AttentionSizes], plan: Plan, over: str | None) -> int:
    from benchmarks.attention import peers, timing
    from benchmarks.attention.turns import alternate

    machine, measured = timing.machine(), []
    failed = False
    for sizes in workloads:
        rows: list[report.Row] = []
        device = machine | timing.matmul(sizes.dtype)
        with peers.contenders(sizes, plan.implementations, plan.peers) as contenders:
            for step in plan.passes:
                rows += alternate(contenders, step, plan.rounds, plan.sample_s)
        report.rate(rows, sizes, device)
        options = {name: getattr(plan, name) for name in ("rounds", "sample_s", "threads")}
        settings = dataclasses.asdict(sizes) | options
        print(json.dumps(device | settings | {"rows": rows}), flush=True)
        measured.append(rows)
        failed |= any("refused" in row for row in rows if row["ours"])
    if over:
        print(report.sweep(over, [getattr(sizes, over) for sizes in workloads], measured))
    else:
        print(report.table(measured[0]))
    return int(failed)


def _check(workloads: Sequence[AttentionSizes], plan: Plan) -> int:
    from benchmarks.attention import check

    complaints = []
    for sizes in workloads:
        errors = check.errors(sizes, plan.implementations, plan.peers, plan.passes)
        print(json.dumps(dataclasses.asdict(sizes) | {"errors": errors}), flush=True)
        complaints += check.complaints(errors, sizes.dtype)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


def _passes(text: str, workloads: Sequence[AttentionSizes]) -> list[str]:
    trunk_alone = any(not sizes.forks for sizes in workloads)
    if text == "all":
        return [step for step in PASSES if step != "decode" or not trunk_alone]
    passes = _names("passes", text, PASSES)
    if trunk_alone and "decode" in passes:
        raise UserError("--passes=decode needs branches, but --forks=0; set --forks above 0")
    return passes


def _peers(text: str) -> list[str] | None:
    """Return the named peers; None for the default ones of the backend."""
    if text in ("default", "none"):
        return [] if text == "none" else None
    return _names("peers", text, PEERS)


def _implementations(text: str, timed: bool) -> list[str]:
    import jax

    from models.attention import IMPLEMENTATIONS

    names = _names("implementations", text, ["default", *IMPLEMENTATIONS])
    interpreted = [name for name in names if name not in PORTABLE]
    if timed and interpreted and jax.default_backend() == "cpu":
        raise UserError(
            f"--implementations={interpreted[0]} is for another device; on a CPU it could only be "
            "interpreted, and its time would be meaningless; add --check, or leave it out"
        )
    return names


def _names(flag: str, text: str, known: Iterable[str]) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise UserError(f"--{flag}={text}: {name!r} is not one of {', '.join(known)}")
    return names


if __name__ == "__main__":
    command.run(main)
