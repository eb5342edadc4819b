"""Time this project and other implementations in turn on one workload.

Every round runs each implementation once, one at a time, on the same CPUs; the order rotates, to
spread drifts of the machine over all of them.
"""

import json
import shlex
import statistics
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import command, fields, runs
from benchmarks.network import NetworkSizes
from rlp.runtime.errors import UserError

Lines = list[list[dict[str, Any]]]  # for every implementation, the lines of its rounds


def compare(
    arguments: list[str],
    description: str | None,
    kind: type[NetworkSizes],
    times: Mapping[str, str],
) -> int:
    """Run a program that compares implementations, and return its exit status.

    Args:
      arguments: the command line.
      description: what --help prints above the flags.
      kind: the sizes of the workload.
      times: name of a number of a JSON line -> heading of its column; `step_s` is one of them.
    """
    parser = command.Parser(description)
    parser.add_argument("--peer", action="append", default=[], help="command line; repeatable")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each implementation")
    parser.add_argument("--out", help="file to which every JSON line is appended")
    fields.add_flags(parser, kind)
    # A bare "--" only separates the flags of the workload for the reader.
    flags = parser.parse_args([word for word in arguments if word != "--"])
    sizes = kind(**fields.values(flags, kind))
    command.cpus(sizes.threads)
    if flags.rounds < 1:
        raise UserError(f"--rounds={flags.rounds}; it must be at least 1")
    commands = [sizes.command()]
    commands += [[*_words(peer), *sizes.peer_arguments()] for peer in flags.peer]
    names = ["this project", *(f"peer {peer!r}" for peer in flags.peer)]
    out = Path(flags.out) if flags.out else None
    try:
        lines = alternate(commands, names, flags.rounds, sizes.threads, times, out)
    except runs.RunFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    print(table(lines, times))
    return 0


def alternate(
    commands: Sequence[Sequence[str]],
    names: Sequence[str],
    rounds: int,
    threads: int,
    times: Collection[str],
    out: Path | None = None,
) -> Lines:
    """Run every command once per round; each round starts with another command.

    Args:
      commands: command lines of the implementations.
      names: their names in errors.
      rounds: runs of each.
      threads: number of CPUs to which they are pinned.
      times: names of the numbers that a line must contain.
      out: file to which every line is appended as it arrives.

    Raises:
      RunFailed: If a command prints no line; nothing is run after it.
    """
    lines: Lines = [[] for _ in commands]
    for number in range(rounds):
        for turn in range(len(commands)):
            which = (number + turn) % len(commands)
            line = runs.run_line(commands[which], names[which], threads, list(times))
            lines[which].append(line)
            if out:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"round": number + 1, **line}) + "\n")
            print(
                f"round {number + 1}/{rounds}: {_label(line)} {line['step_s']:.4g} s a step",
                file=sys.stderr,
            )
    return lines


def table(lines: Lines, times: Mapping[str, str]) -> str:
    """Return a Markdown table of medians, ranges, and ratios to the first implementation.

    Args:
      lines: of every implementation.
      times: name of a number of the lines -> heading of its column.
    """
    medians = [_over_rounds(rounds, times, statistics.median) for rounds in lines]
    rows = []
    for rounds, median in zip(lines, medians, strict=True):
        low, high = (_over_rounds(rounds, times, f) for f in (min, max))
        cells = [f"{median[t]:.4g} ({low[t]:.4g} to {high[t]:.4g})" for t in times]
        rows.append([_label(rounds[0]), *cells])
    ours = _label(lines[0][0])
    for rounds, median in zip(lines[1:], medians[1:], strict=True):
        ratios = [f"{median[t] / medians[0][t]:.2f}×" for t in times]
        rows.append([f"{_label(rounds[0])} / {ours}", *ratios])
    return runs.markdown(["implementation", *times.values()], rows)


def _over_rounds(rounds: list[dict], times: Collection[str], summary: Callable) -> dict[str, float]:
    return {time: summary(line[time] for line in rounds) for time in times}


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
