"""Times the product's attention beside others on trees of made-up documents.

    python -m benchmarks.attention --docs 2 --trunk 2048 --forks 4 --thoughts 4 --slots 2048 \\
        --heads 16 --kv_heads 8 --head_dim 128 --dtype bfloat16
    python -m benchmarks.attention --forks 0                      # a causal trunk
    python -m benchmarks.attention --check                        # equality with `reference`
    python -m benchmarks.attention --bounds                       # what no chip can beat
    python -m benchmarks.attention --passes decode --over trunk --values 64,128,256,512

All take turns on the same device. Useful FLOPs are those of the visible (query, key) pairs alone:
for each number of a head 4 forward and 10 backward (dq, dk, dv and two products again). `backward`
is the VJP alone, `whole` is forward and VJP. A decode step is judged by the bytes that must move.
Prints a JSON line for each workload, and a table at the end. With --check the line holds the errors
relative to `reference`, and the exit status is 1 if one is too large.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Sequence

from benchmarks import command
from benchmarks.attention import tables as report
from benchmarks.attention.workload import PASSES, AttentionSizes
from benchmarks.step import fields
from rlp.runtime.errors import UserError

PORTABLE = ("default", "reference", "xla")  # what a CPU runs as it is; kernels are interpreted
# Peers, and the backends on which they run unless --peers says otherwise.
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
    """What is run on every workload."""

    implementations: Sequence[str]
    peers: Sequence[str]
    passes: Sequence[str]
    rounds: int
    sample_s: float
    threads: int


def main(arguments: list[str]) -> int:
    """Runs the program; returns its exit status."""
    parser = command.Parser(__doc__)
    parser.add_argument("--implementations", default="default", help="names of models.attention")
    parser.add_argument("--peers", default="default", help=f"some of {', '.join(PEERS)}; or none")
    parser.add_argument("--passes", default="all", help=f"some of {', '.join(PASSES)}")
    parser.add_argument("--rounds", type=int, default=7, help="samples of each")
    parser.add_argument("--sample_s", type=float, default=0.2, help="seconds of a sample, about")
    parser.add_argument("--threads", type=int, default=0, help="CPUs to use; 0 = all")
    parser.add_argument("--check", action="store_true", help="compare with `reference` alone")
    parser.add_argument("--bounds", action="store_true", help="print what no chip can beat, alone")
    parser.add_argument("--over", choices=fields.counts(AttentionSizes), help="flag to vary")
    parser.add_argument("--values", help="its values, ascending")
    fields.add_flags(parser, AttentionSizes)
    flags = parser.parse_args(arguments)
    sizes = AttentionSizes(**fields.values(flags, AttentionSizes))
    if (flags.over is None) != (flags.values is None):
        raise UserError("--over and --values go together")
    if flags.rounds < 1 or not 0 < flags.sample_s < 1000:
        raise UserError(f"--rounds={flags.rounds}, --sample_s={flags.sample_s}: both above 0")
    if flags.threads < 0:
        raise UserError(f"--threads={flags.threads} is below 0")
    each = fields.varied(sizes, flags.over, flags.values) if flags.over else [sizes]
    passes = _passes(flags.passes, each)
    asked = _peers(flags.peers)
    if flags.bounds:
        print(report.bounds(sizes, passes))
        return 0

    if flags.threads:  # XLA makes as many as it may use CPUs, when it first computes
        os.sched_setaffinity(0, command.cpus(flags.threads))

    import jax  # only when the command line has proved right

    implementations = _implementations(flags.implementations, timed=not flags.check)
    backend = jax.default_backend()
    peers = [name for name, on in PEERS.items() if backend in on] if asked is None else asked
    plan = Plan(implementations, peers, passes, flags.rounds, flags.sample_s, flags.threads)
    if flags.check:
        return _check(each, plan)
    return _measure(each, plan, flags.over)


def _measure(each: Sequence[AttentionSizes], plan: Plan, over: str | None) -> int:
    from benchmarks.attention import peers, timing
    from benchmarks.attention.turns import alternate

    machine, measured = timing.machine(), []
    failed = False
    for sizes in each:
        rows: list[report.Row] = []
        reached = machine | timing.matmul(sizes.dtype)
        with peers.contenders(sizes, plan.implementations, plan.peers) as every:
            for step in plan.passes:
                rows += alternate(every, step, plan.rounds, plan.sample_s)
        report.rate(rows, sizes, reached)
        turns = {name: getattr(plan, name) for name in ("rounds", "sample_s", "threads")}
        given = dataclasses.asdict(sizes) | turns
        print(json.dumps(reached | given | {"rows": rows}), flush=True)
        measured.append(rows)
        failed |= any("refused" in row for row in rows if row["ours"])
    if over:
        print(report.sweep(over, [getattr(sizes, over) for sizes in each], measured))
    else:
        print(report.table(measured[0]))
    return int(failed)


def _check(each: Sequence[AttentionSizes], plan: Plan) -> int:
    from benchmarks.attention import check

    wrong = []
    for sizes in each:
        errors = check.errors(sizes, plan.implementations, plan.peers, plan.passes)
        print(json.dumps(dataclasses.asdict(sizes) | {"errors": errors}), flush=True)
        wrong += check.complaints(errors, sizes.dtype)
    for complaint in wrong:
        print(complaint, file=sys.stderr)
    return 1 if wrong else 0


def _passes(text: str, each: Sequence[AttentionSizes]) -> list[str]:
    trunk_alone = any(not sizes.forks for sizes in each)
    if text == "all":
        return [step for step in PASSES if step != "decode" or not trunk_alone]
    found = _words("passes", text, PASSES)
    if trunk_alone and "decode" in found:
        raise UserError("--passes=decode needs branches, but --forks=0")
    return found


def _peers(text: str) -> list[str] | None:
    """None for those of the backend."""
    if text in ("default", "none"):
        return [] if text == "none" else None
    return _words("peers", text, PEERS)


def _implementations(text: str, timed: bool) -> list[str]:
    import jax

    from models.attention import IMPLEMENTATIONS

    found = _words("implementations", text, ["default", *IMPLEMENTATIONS])
    interpreted = [name for name in found if name not in PORTABLE]
    if timed and interpreted and jax.default_backend() == "cpu":
        raise UserError(
            f"--implementations={interpreted[0]} is for another device; on a CPU it could only be "
            "interpreted, which says nothing about time"
        )
    return found


def _words(flag: str, text: str, known: Iterable[str]) -> list[str]:
    words = text.split(",")
    for word in words:
        if word not in known:
            raise UserError(f"--{flag}={text}: {word!r} is none of {', '.join(known)}")
    return words


if __name__ == "__main__":
    command.run(main)
