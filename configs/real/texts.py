"""The texts of a unit: problems that are disjoint between warm start, RL, development and test.

    warm.jsonl         documents of the warm start, two thirds of them with thoughts
    rl.jsonl           documents without thoughts, for RLP, its controls and CPT
    replay.jsonl       these, and documents of the warm start: 30% of all
    development.jsonl  documents on which settings are chosen
    test.jsonl         documents of the final measures
    problems/          the problems of rl.jsonl and test.jsonl, for RLVR and accuracy: columns `problem`, `answer`
"""

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from configs.real.problems import Problem

THOUGHTS = 2 / 3  # share of the documents of the warm start that have thoughts
REPLAY = 0.3  # share of documents of the warm start in replay.jsonl


@dataclass(frozen=True)
class Sizes:
    """The number of problems of each part."""

    warm: int
    rl: int
    development: int
    test: int


@dataclass(frozen=True)
class Parts:
    """The problems of each part."""

    warm: Sequence[Problem]
    rl: Sequence[Problem]
    development: Sequence[Problem]
    test: Sequence[Problem]


def split(problems: Iterator[Problem], tests: Iterator[Problem], sizes: Sizes) -> Parts:
    """Return the next problems for each part, fewer where they run out.

    Args:
      problems: for training and development, in the order of `Sizes`.
      tests: for the test split; may be the same iterator.
      sizes: number of problems of each part.
    """
    take = lambda source, count: list(islice(source, count))
    return Parts(
        warm=take(problems, sizes.warm),
        rl=take(problems, sizes.rl),
        development=take(problems, sizes.development),
        test=take(tests, sizes.test),
    )


def write(folder: Path, parts: Parts, seed: int) -> None:
    """Write all files into an existing folder.

    Args:
      folder: the folder.
      parts: the problems of each part.
      seed: determines which documents of the warm start have thoughts, and which are replayed.
    """
    rng = random.Random(f"texts {seed}")
    warm = [problem.document(thought=rng.random() < THOUGHTS) for problem in parts.warm]
    documents = _documents(parts.rl)
    replayed = round(len(documents) * REPLAY / (1 - REPLAY))
    mixed = documents + rng.sample(warm, min(replayed, len(warm)))
    rng.shuffle(mixed)

    files = {"warm": warm, "rl": documents, "replay": mixed}
    files |= {"development": _documents(parts.development), "test": _documents(parts.test)}
    for name, texts in files.items():
        _write(folder / f"{name}.jsonl", ({"text": text} for text in texts))
    (folder / "problems").mkdir()
    for name, problems in (("rl", parts.rl), ("test", parts.test)):
        rows = ({"problem": problem.asked, "answer": problem.answer} for problem in problems)
        _write(folder / "problems" / f"{name}.jsonl", rows)


def _documents(problems: Sequence[Problem]) -> list[str]:
    return [problem.document() for problem in problems]


def _write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
