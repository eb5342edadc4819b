"""Coordinate the processes of a run: who writes files, joint decisions, and comparisons.

Every process of a run executes the same program on its own devices. Only process 0 writes files and
shows progress, and it decides for all whatever depends on the file system (`agree`). Inputs that
must be the same on all processes are compared before they are used (`check_same`). See
`rlp.runtime.multihost` for how processes join and end. In a run of a single process, that process
is process 0, and nothing in this module waits.
"""

import itertools
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

# The coordinator's key-value store has no public name.
from jax._src import distributed
from jax.experimental.multihost_utils import process_allgather

from rlp.runtime import consistency
from rlp.runtime.consistency import Member
from rlp.runtime.errors import UserError
from rlp.runtime.fingerprints import Fingerprint

T = TypeVar("T")

FOREVER_MS = 7 * 24 * 3600 * 1000  # JAX needs a time limit; `heartbeat` detects dead processes

_rounds = itertools.count()


def count() -> int:
    """Return the number of processes of the run."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is process 0, which writes files and shows progress."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def barrier() -> None:
    """Wait until all processes have called this."""
    if count() > 1:
        _client().wait_at_barrier(f"rlp/barrier/{next(_rounds)}", FOREVER_MS)


def any_of(flag: bool) -> bool:
    """Whether `flag` is true on any process. All processes call this in the same order."""
    return bool(process_allgather(np.array(flag)).any()) if count() > 1 else flag


def agree(decide: Callable[[], T]) -> T:
    """Run `decide` on process 0 and return its result on all processes.

    All processes call this in the same order. `decide` runs while all others wait here, so none of
    them reads or writes the file system meanwhile.

    Args:
      decide: Called on process 0 only; returns a JSON value.

    Raises:
      UserError: On all processes, if `decide` raises it.
    """
    if count() == 1:
        return decide()
    key = f"rlp/agree/{next(_rounds)}"
    _client().wait_at_barrier(key, FOREVER_MS)
    if is_first():
        _decide(decide, key)
    outcome = json.loads(_client().blocking_key_value_get(key, FOREVER_MS))
    if "error" in outcome:
        raise UserError(outcome["error"], field=outcome["field"])
    return outcome["value"]


def _decide(decide: Callable[[], Any], key: str) -> None:
    """Publish the result of `decide`, or its UserError, which is also raised here."""
    publish = lambda outcome: _client().key_value_set(key, json.dumps(outcome))
    try:
        value = decide()
    except UserError as error:
        publish({"error": str(error), "field": error.field})
        raise  # the original has the value of the field and the frames of the user's code
    publish({"value": value})


def check_same(facts: Mapping[str, Any]) -> None:
    """Compare the inputs of all processes. All processes call this in the same order.

    Args:
      facts: Names and JSON values of the inputs of this process.

    Raises:
      UserError: On all processes, if any value differs; names the values and the processes.
    """
    if count() > 1:
        compare(facts, lambda facts_of: "".join(_refusals(facts_of)))


def _refusals(facts_of: Mapping[Member, Mapping[str, Any]]) -> list[str]:
    lines = consistency.differences(facts_of)
    return [consistency.refusal(lines)] if lines else []


def check_same_data(data: Mapping[str, Fingerprint]) -> None:
    """Compare the fingerprints of the data that the processes have read, like `check_same`."""
    if count() > 1:
        compare(data, consistency.data_difference)


def compare(value: Any, find: Callable[[dict[Member, Any]], str]) -> None:
    """Collect a JSON value from every process and check the values on process 0.

    All processes call this in the same order.

    Args:
      value: The value of this process.
      find: Called on process 0 with the values of all processes; returns an error message, or "".

    Raises:
      UserError: On all processes, with the message that `find` returned.
    """
    key = f"rlp/compare/{next(_rounds)}"
    me = distributed.global_state.process_id
    mine = json.dumps({"host": socket.gethostname(), "value": value})
    _client().key_value_set(f"{key}/{me}", mine)

    def refuse() -> None:
        answers = [
            json.loads(_client().blocking_key_value_get(f"{key}/{i}", FOREVER_MS))
            for i in range(count())
        ]
        if line := find({Member(i, a["host"]): a["value"] for i, a in enumerate(answers)}):
            raise UserError(line)

    agree(refuse)
    _client().key_value_delete(f"{key}/{me}")


def _client() -> distributed._jax.DistributedRuntimeClient:
    client = distributed.global_state.client
    assert client is not None, "this process has not joined a run of several processes"
    return client
