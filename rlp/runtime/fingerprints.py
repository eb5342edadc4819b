"""Compare two fingerprints of data, which are JSON values.

`rlp.data.fingerprint` computes them, checkpoints store them, and processes compare them.
"""

import collections
from collections.abc import Mapping
from typing import Any

from rlp.runtime.display import listed

Fingerprint = Mapping[str, Any]  # a JSON object with a "digest", and possibly counts and files
COUNTS = ("documents", "pairs", "problems", "rows", "tokens")


def changes(before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> list[str]:
    """Describe how two fingerprints differ, one string for each field; [] if they are equal."""
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
    text = f"{counts[0]} -> {counts[1]}" if counts[0] != counts[1] else f"other {counts[0]}"
    reason = _changed_files(*files)
    return f"{text} ({reason})" if reason else text


def _counted(part: Fingerprint | None) -> str:
    """Format the counts of a fingerprint."""
    if part is None:
        return "none"
    counts = [f"{part[name]:,} {name}" for name in COUNTS if name in part]
    return ", ".join(counts) or "settings"


def _changed_files(before: list[list[str]], now: list[list[str]]) -> str:
    """Name the files that differ; "" if they are not known."""
    if not before or not now:
        return ""
    digests = [[digest for _, digest in files] for files in (before, now)]
    if digests[0] == digests[1]:
        return "the same files, but other rows of them or another order"
    if sorted(digests[0]) == sorted(digests[1]):
        return "the same files in another order"
    old, new = (collections.Counter(map(tuple, files)) for files in (before, now))
    removed, added = ([name for name, _ in (a - b).elements()] for a, b in ((old, new), (new, old)))
    changed = [name for name in added if name in removed]
    groups = (
        ("changed", changed),
        ("new", [name for name in added if name not in changed]),
        ("gone", [name for name in removed if name not in changed]),
    )
    return "; ".join(f"{label}: {listed(names)}" for label, names in groups if names)
