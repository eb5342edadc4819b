"""Time this project and other implementations in turn on one workload.

    python -m benchmarks.step.compare --peer "python peer.py --fast" --peer "python other.py" \\
        --rounds 5 -- --docs 4 --group 16 --threads 1

A peer is a command line that accepts the flags of the workload (with dashes: --kv-heads) and prints
a JSON line with `impl` and the seconds of a step. Every round runs each implementation once, one at
a time, on the same CPUs; the order rotates, to spread drifts of the machine over all of them.
Prints medians over the rounds with their range, and each peer's time relative to this project's.
"""

import json
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.step import runs, workload
from rlp.runtime.errors import UserError

# Name in a JSON line -> heading; seconds of a step.
TIMES = {
    "rollout_s": "rollout s",
    "score_s": "score s",
    "update_s": "update s",
    "step_s": "step s",
    "cpu_s": "core-seconds",
}
Lines = list[list[dict[str, Any]]]  # for every implementation, the lines of its rounds


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    parser = command.Parser(__doc__)
    parser.add_argument("--peer", action="append", default=[], help="command line; repeatable")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each implementation")
    parser.add_argument("--out", help="file to which every JSON line is appended")
    workload.add_flags(parser)
    # A bare "--" only separates the flags of the workload for the reader.
    flags = parser.parse_args([word for word in arguments if word != "--"])
    sizes = workload.from_flags(flags)
    command.cpus(sizes.threads)
    if flags.rounds < 1:
        raise UserError(f"--rounds={flags.rounds}; it must be at least 1")
    commands = [runs.product(sizes)]
    commands += [[*_words(peer), *sizes.peer_arguments()] for peer in flags.peer]
    names = ["this project", *(f"peer {peer!r}" for peer in flags.peer)]
    out = Path(flags.out) if flags.out else None
    try:
        lines = alternate(commands, names, flags.rounds, sizes.threads, out)
    except runs.RunFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    print(table(lines))
    return 0


def alternate(
    commands: Sequence[Sequence[str]],
    names: Sequence[str],
    rounds: int,
    threads: int,
    out: Path | None = None,
) -> Lines:
    """Run every command once per round; each round starts with another command.

    Args:
      commands: command lines of the implementations.
      names: their names in errors.
      rounds: runs of each.
      threads: number of CPUs to which they are pinned.
      out: file to which every line is appended as it arrives.

    Raises:
      RunFailed: If a command prints no line; nothing is run after it.
    """
    lines: Lines = [[] for _ in commands]
    for number in range(rounds):
        for turn in range(len(commands)):
            which = (number + turn) % len(commands)
            line = runs.run_line(commands[which], names[which], threads, list(TIMES))
            lines[which].append(line)
            if out:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"round": number + 1, **line}) + "\n")
            print(
                f"round {number + 1}/{rounds}: {_label(line)} {line['step_s']:.4g} s a step",
                file=sys.stderr,
            )
    return lines


def table(lines: Lines) -> str:
    """Return a Markdown table of medians, ranges, and ratios to the first implementation."""
    medians = [_over_rounds(rounds, statistics.median) for rounds in lines]
    rows = []
    for rounds, median in zip(lines, medians, strict=True):
        low, high = _over_rounds(rounds, min), _over_rounds(rounds, max)
        cells = [f"{median[t]:.4g} ({low[t]:.4g} to {high[t]:.4g})" for t in TIMES]
        rows.append([_label(rounds[0]), *cells])
    ours = _label(lines[0][0])
    for rounds, median in zip(lines[1:], medians[1:], strict=True):
        ratios = [f"{median[t] / medians[0][t]:.2f}×" for t in TIMES]
        rows.append([f"{_label(rounds[0])} / {ours}", *ratios])
    return runs.markdown(["implementation", *TIMES.values()], rows)


def _over_rounds(rounds: list[dict], summary: Callable) -> dict[str, float]:
    return {time: summary(line[time] for line in rounds) for time in TIMES}


def _label(line: dict[str, Any]) -> str:
    return str(line.get("impl", "unnamed"))


def _words(peer: str) -> list[str]:
    try:
        words = shlex.split(peer)
    except ValueError as error:
        raise UserError(f"--peer={peer!r} is not a command line: {error}") from error
    if not words:
        raise UserError("--peer is empty; set it to a command line")
    return words


if __name__ == "__main__":
    command.run(main)
