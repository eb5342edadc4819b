"""What the processes of a run say to one another: who writes, what they agree on, what is compared.

Every process of a run executes the same program on its own devices. The first one (process 0)
alone writes files and shows progress; what depends on the file system it decides for all (`agree`).
What all must have been given alike is compared before it is used (`check_same`). How they join and
end is in `rlp.runtime.multihost`. Where nothing was joined, a process is the first of one, and
nothing here waits.
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
from rlp.runtime.consistency import Who
from rlp.runtime.errors import UserError
from rlp.runtime.fingerprints import Fingerprint

T = TypeVar("T")

FOREVER_MS = 7 * 24 * 3600 * 1000  # waits that only a dead process would make endless

_rounds = itertools.count()


def count() -> int:
    """How many processes the run has."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def barrier() -> None:
    """Waits until all processes are here."""
    if count() > 1:
        _client().wait_at_barrier(f"rlp/barrier/{next(_rounds)}", FOREVER_MS)


def any_of(flag: bool) -> bool:
    """Whether the flag is true on any process; all call this in the same order."""
    return bool(process_allgather(np.array(flag)).any()) if count() > 1 else flag


def agree(decide: Callable[[], T]) -> T:
    """What `decide` returns on the first process, once all processes are here; its UserError too.

    All processes call this in the same order. What is read from or written to the file system in
    `decide` cannot be overtaken by another process.

    Args:
      decide: called on the first process only; returns a JSON value.
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
    """Tells all processes what `decide` returns, or its UserError, which is raised here too."""
    tell = lambda outcome: _client().key_value_set(key, json.dumps(outcome))
    try:
        value = decide()
    except UserError as error:
        tell({"error": str(error), "field": error.field})
        raise  # the error itself has the value of the field and the frames of the user's code
    tell({"value": value})


def check_same(facts: Mapping[str, Any]) -> None:
    """Compares what every process was given; all call this in the same order.

    Args:
      facts: name -> JSON value, of this process.

    Raises:
      UserError: on all processes, if they differ; it names what differs and on which process.
    """
    if count() > 1:
        compare(facts, lambda given: "".join(_refusals(given)))


def _refusals(given: Mapping[Who, Mapping[str, Any]]) -> list[str]:
    found = consistency.differences(given)
    return [consistency.refusal(found)] if found else []


def check_same_data(data: Mapping[str, Fingerprint]) -> None:
    """Compares the fingerprints of the data that every process has read, as `check_same` does."""
    if count() > 1:
        compare(data, consistency.other_data)


def compare(value: Any, find: Callable[[dict[Who, Any]], str]) -> None:
    """Has process 0 compare a JSON value of every process; all call this in the same order.

    Args:
      value: of this process.
      find: called on process 0 with the values of all; returns what is wrong with them, or "".

    Raises:
      UserError: on all processes, what `find` returns.
    """
    key = f"rlp/compare/{next(_rounds)}"
    me = distributed.global_state.process_id
    mine = json.dumps({"host": socket.gethostname(), "value": value})
    _client().key_value_set(f"{key}/{me}", mine)

    def refuse() -> None:
        found = [
            json.loads(_client().blocking_key_value_get(f"{key}/{i}", FOREVER_MS))
            for i in range(count())
        ]
        if line := find({Who(i, f["host"]): f["value"] for i, f in enumerate(found)}):
            raise UserError(line)

    agree(refuse)
    _client().key_value_delete(f"{key}/{me}")


def _client() -> distributed._jax.DistributedRuntimeClient:
    client = distributed.global_state.client
    assert client is not None, "no run of several processes was joined"
    return client
