"""What the data of a run are, whatever their files are called: to tell whether they have changed.

A fingerprint is a JSON value. It has a digest of the rows that a run will see (tokens, bounds,
masks, forks, answers, and their order), and, for messages, counts and a digest of every file.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rlp.data.batch import HeldOut, Stream
from rlp.runtime.fingerprints import Fingerprint

MOST_FILES = 1000  # whose digests are kept
ORDER = 1024  # records whose order is a part of a fingerprint
_CHUNK = 1 << 20  # numbers hashed at a time


def fingerprint(train: Stream, held_out: HeldOut) -> dict[str, Fingerprint]:
    """What a run trains on and holds out, by fields of the config; a JSON value.

    It is a function of the content of the data and of the settings that make rows of it, so it is
    the same on every machine, and for files that were moved or renamed.
    """
    return {**train.fingerprint(), **held_out.fingerprint}


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
