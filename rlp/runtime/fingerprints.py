"""Fingerprints of data as JSON values, and what differs between two of them.

`rlp.data.fingerprint` makes them; checkpoints keep them, and processes compare them.
"""

import collections
from collections.abc import Mapping
from typing import Any

from rlp.runtime.display import listed

Fingerprint = Mapping[str, Any]  # a JSON value: "digest", and counts and files where there are some
COUNTS = ("documents", "pairs", "problems", "rows", "tokens")


def changes(before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> list[str]:
    """What differs between two fingerprints, one item a field; empty if nothing
    does."""
    return [
        f"{field}: {_change(before.get(field), now.get(field))}"
        for field in dict.fromkeys([*before, *now])
        if _digest_of(before.get(field)) != _digest_of(now.get(field))
    ]


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
