"""What the data of a run are, whatever their files are called: to tell whether they have changed.

A fingerprint is a JSON value. It has a digest of the rows that a run will see (tokens, bounds,
masks, forks, answers, and their order), and, for messages, counts and a digest of every file.
"""

import collections
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rlp.data.batch import Fingerprint, HeldOut, Stream
from rlp.data.summary import listed

COUNTS = ("documents", "pairs", "problems", "rows", "tokens")
MOST_FILES = 1000  # whose digests are kept
ORDER = 1024  # records whose order is a part of a fingerprint
_CHUNK = 1 << 20  # numbers hashed at a time


def fingerprint(train: Stream, held_out: HeldOut) -> dict[str, Fingerprint]:
    """What a run trains on and holds out, by fields of the config; a JSON value.

    It is a function of the content of the data and of the settings that make rows of it, so it is
    the same on every machine, and for files that were moved or renamed.
    """
    return {**train.fingerprint(), **held_out.fingerprint}


def changes(before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> list[str]:
    """What differs between two fingerprints of `fingerprint`, one item a field; empty if nothing
    does."""
    return [
        f"{field}: {_change(before.get(field), now.get(field))}"
        for field in dict.fromkeys([*before, *now])
        if _digest_of(before.get(field)) != _digest_of(now.get(field))
    ]


def digest(parts: Iterable[np.ndarray | str]) -> str:
    """A hash of arrays and texts, in hexadecimal.

    Integers below 2^31 give the same hash in every type, on every machine.

    Args:
      parts: arrays of integers or booleans, of any shape, and texts.
    """
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            text = part.encode()
            found.update(f"text {len(text)}:".encode())
            found.update(text)
            continue
        found.update(f"array {part.shape}:".encode())
        flat = part.reshape(-1)
        for first in range(0, flat.size, _CHUNK):
            found.update(np.ascontiguousarray(flat[first : first + _CHUNK], "<i4").data)
    return found.hexdigest()


def of_settings(**settings: Any) -> Fingerprint:
    """The fingerprint of data that are made by a program: that of its settings, JSON values."""
    return {"digest": digest([json.dumps(settings, sort_keys=True)])}


def first_records(order: Sequence[int], rows: int) -> np.ndarray:
    """The beginning of an order of so many rows, which stands for all of it: int64 [at most
    `ORDER`]."""
    return np.array([order[k] for k in range(min(ORDER, rows))], np.int64)


def _digest_of(part: Fingerprint | None) -> str:
    return part["digest"] if part else ""


def _change(before: Fingerprint | None, now: Fingerprint | None) -> str:
    counts = [_counted(part) for part in (before, now)]
    files = [(part or {}).get("files", []) for part in (before, now)]
    told = f"{counts[0]} -> {counts[1]}" if counts[0] != counts[1] else f"other {counts[0]}"
    reason = _changed_files(*files)
    return f"{told} ({reason})" if reason else told


def _counted(part: Fingerprint | None) -> str:
    """The counts of a fingerprint."""
    if part is None:
        return "none"
    told = [f"{part[name]:,} {name}" for name in COUNTS if name in part]
    return ", ".join(told) or "settings"


def _changed_files(before: list[list[str]], now: list[list[str]]) -> str:
    """Which files make the difference; "" if that is not known."""
    if not before or not now:
        return ""
    content = [[found for _, found in files] for files in (before, now)]
    if content[0] == content[1]:
        return "the same files, but other rows of them or another order"
    if sorted(content[0]) == sorted(content[1]):
        return "the same files in another order"
    old, new = (collections.Counter(map(tuple, files)) for files in (before, now))
    gone, come = ([name for name, _ in (a - b).elements()] for a, b in ((old, new), (new, old)))
    changed = [name for name in come if name in gone]
    told = (
        ("changed", changed),
        ("new", [name for name in come if name not in changed]),
        ("gone", [name for name in gone if name not in changed]),
    )
    return "; ".join(f"{what}: {listed(names)}" for what, names in told if names)
