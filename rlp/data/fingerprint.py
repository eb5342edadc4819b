"""Fingerprints of the data of a run, which show whether the data have changed.

A fingerprint is a JSON value. It contains a digest of the rows that a run will see (tokens, bounds,
masks, forks, answers, and their order) and, for messages, counts and a digest of every file.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rlp.data.batch import HeldOut, Stream
from rlp.runtime.fingerprints import Fingerprint

MOST_FILES = 1000  # maximum number of files whose digests are kept
ORDER = 1024  # number of records whose order is part of a fingerprint
_CHUNK = 1 << 20  # numbers hashed at a time


def fingerprint(train: Stream, held_out: HeldOut) -> dict[str, Fingerprint]:
    """Return the fingerprint of the training and held-out data by config field, a JSON value.

    It depends only on the content of the data and on the settings that turn it into rows, so it is
    the same on every machine, and for files that were moved or renamed.
    """
    return {**train.fingerprint(), **held_out.fingerprint}


def digest(parts: Iterable[np.ndarray | str]) -> str:
    """Return a hash of arrays and texts, in hexadecimal.

    Integers below 2^31 have the same hash in every dtype, on every machine.

    Args:
      parts: arrays of integers or booleans, of any shape, and texts.
    """
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            text = part.encode()
            state.update(f"text {len(text)}:".encode())
            state.update(text)
            continue
        state.update(f"array {part.shape}:".encode())
        flat = part.reshape(-1)
        for first in range(0, flat.size, _CHUNK):
            state.update(np.ascontiguousarray(flat[first : first + _CHUNK], "<i4").data)
    return state.hexdigest()


def of_settings(**settings: Any) -> Fingerprint:
    """Return the fingerprint of generated data: a digest of the settings, which are JSON values."""
    return {"digest": digest([json.dumps(settings, sort_keys=True)])}


def first_records(order: Sequence[int], rows: int) -> np.ndarray:
    """Return the beginning of an order of `rows` rows, which represents all of it in a
    fingerprint: int64 [at most `ORDER`]."""
    return np.array([order[k] for k in range(min(ORDER, rows))], np.int64)
