"""Tiny training runs, and the results by which two runs are compared."""

import contextlib
import dataclasses
import functools
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as orbax

from configs import default
from configs.fields import flat
from models import sharding
from rlp.run import assembly, loop
from rlp.run.checks import check
from rlp.runtime.preemption import Preempted
from rlp.training.checkpoint.load import orbax_context

SHAPE = {
    "model.hidden_size": 32,
    "model.num_layers": 1,
    "model.num_heads": 2,
    "model.num_kv_heads": 2,
    "model.head_dim": 8,
    "model.ffn_size": 32,
}
SMALL = {
    "steps": 7,
    "batch_size": 4,
    "optimizer.learning_rate": 1e-3,
    "rlp.prompt": "none",
    "rlp.group_size": 4,
    "rlp.thought_length": 4,
    "rlp.unclosed": "append",
    "evaluation.every": 3,
    "evaluation.documents": 4,
    "evaluation.thoughts": 2,
    "evaluation.browse_documents": 1,
    "evaluation.browse_positions": 3,
    "checkpoint.every": 2,
}
COMPASS = {
    "data.kind": "compass",
    "data.sequence_length": 22,
    "data.compass.thought_share": 0.0,
    "rlp.positions": "given",
}
COMPASS_RLVR = COMPASS | {
    "objective": "rlvr",
    "data.problems.verifier": "tests.support.easy_verifiers:ANYTHING",
    "data.problems.response_length": 4,
    "data.problems.workers": 1,
    "evaluation.problems": 3,
    "evaluation.responses": 2,
}
TEXT = {"data.kind": "text", "data.sequence_length": 24, "data.holdout_every": 4}
# Uses what the compass task does not: random forks, several target tokens, several passes over
# minibatches, a KL term, and limits of the thoughts that depend on the step.
TEXT_RLP = TEXT | {
    "objective": "rlp",
    "rlp.forks_per_document": 2,
    "rlp.horizon": 2,
    "rlp.updates_per_rollout": 2,
    "rlp.minibatches": 2,
    "rlp.kl_weight": 0.1,
    "rlp.min_thought_length": 2,
    "rlp.thought_length_schedule": "0:2,4:4",
    "evaluation.forks_per_document": 2,
}


def flat_config(*changes: dict[str, Any]) -> dict[str, Any]:
    """Return the fields in which a tiny run differs from the default: dotted path to value."""
    return functools.reduce(lambda a, b: a | b, changes, SHAPE | SMALL)


def config(*changes: dict[str, Any]) -> ConfigDict:
    """Return the config of a tiny run."""
    tiny = default.get_config()
    tiny.update_from_flattened_dict(flat_config(*changes))
    return tiny


def text_file(folder: Path) -> dict[str, Any]:
    """Write 16 short documents, so few that a run with 7 steps of 4 rows starts a second epoch."""
    words = ["the", "moon", "sees", "a", "river", "under", "old", "stone", "and", "some", "bread"]
    rng = random.Random(0)
    path = folder / "text.jsonl"
    with path.open("w") as file:
        for _ in range(16):
            text = " ".join(rng.choices(words, k=rng.randint(2, 9)))
            file.write(json.dumps({"text": text}) + "\n")
    return {"data.train": str(path)}


class Crash(Exception):
    """Raised by a test in the middle of a run."""


@pytest.fixture(scope="module")
def one_device():
    """Make runs use one device, as on a machine with one device, and compile once for all tests.

    The objects that are cached between runs have no state: the results of `build`, and trainers.
    """
    one = lambda *sizes: sharding.make_mesh(*sizes[:3], devices=jax.devices()[:1])
    make_run, make_trainer = assembly.build, loop._Loop._trainer
    # The cached objects do not depend on where a run starts and ends.
    ends = {"init_from": "", "match": "", "steps": 1}
    name = lambda config: repr(dataclasses.replace(default.Config.of(config), **ends))

    def cached_run(config, files=None, *rest):
        check(flat(config, default.Config))
        return _cached(("run", name(config), files), lambda: make_run(config, files, *rest))

    def cached_trainer(self, train):
        last = self.end.last if self.config.optimizer.schedule == "cosine" else None
        return _cached(("trainer", name(self.config), last), lambda: make_trainer(self, train))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "make_mesh", one)
        patch.setattr(assembly, "build", cached_run)
        patch.setattr(loop._Loop, "_trainer", cached_trainer)
        yield


_cache: dict[tuple, Any] = {}


def _cached(key: tuple, make: Callable[[], Any]) -> Any:
    if key not in _cache:
        _cache[key] = make()
    return _cache[key]


@contextlib.contextmanager
def crash_at(owner: Any, name: str, call: int) -> Iterator[list]:
    """Make call number `call` of `owner.name` raise Crash, and yield the arguments of all calls.

    If `call` is negative, call number -`call` runs and Crash is raised after it.
    """
    before, calls = getattr(owner, name), []

    def count(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            raise Crash
        result = before(*args, **kwargs)
        if len(calls) == -call:
            raise Crash
        return result

    setattr(owner, name, count)
    try:
        yield calls
    finally:
        setattr(owner, name, before)


def stopped_at(config: ConfigDict, workdir: Path, owner: Any, name: str, call: int) -> int | None:
    """Run until SIGTERM arrives during a call; return the step of the newest checkpoint."""
    before, calls = getattr(owner, name), []

    def count(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return before(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, count)
        with pytest.raises(Preempted):
            loop.train(config, workdir, report=False)
    assert not (workdir / "evaluation.json").exists()
    return max(steps(workdir), default=None) if any(workdir.iterdir()) else None


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl, including times."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def steps(workdir: Path) -> list[int]:
    """Return the steps of all checkpoints in ascending order."""
    names = (path.name for path in (workdir / "checkpoints").iterdir())
    return sorted(int(name) for name in names if name.isdecimal())


def checkpoint(workdir: Path, step: int | None = None) -> dict[str, Any]:
    """Load all items of a checkpoint, by default of the newest."""
    step = steps(workdir)[-1] if step is None else step
    with orbax_context():
        return orbax.load_checkpointables(workdir / "checkpoints" / str(step))


def bits(tree: Any) -> dict[str, Any]:
    """Map the path of every leaf to a value that is equal only if type, shape and bits are."""

    def leaf_bits(leaf):
        if isinstance(leaf, (np.ndarray, jax.Array)):
            return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()
        return type(leaf).__name__, leaf

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf_bits(leaf) for path, leaf in leaves}


def timeless(content: Any) -> Any:
    """Return a JSON value without durations."""
    if not isinstance(content, dict):
        return content
    speeds = ("wall_s", "tokens_per_second", "mfu")
    timed = lambda name: name in speeds or name.startswith("seconds_")
    return {name: timeless(value) for name, value in content.items() if not timed(name)}


def outcome(workdir: Path) -> dict[str, Any]:
    """Return all results of a finished run that must not depend on interruptions."""
    items = checkpoint(workdir)
    read = lambda name: json.loads((workdir / name).read_text())
    return {
        "checkpoints": steps(workdir),
        "arrays": bits({k: v for k, v in items.items() if k not in ("data", "meta", "metrics")}),
        "data": items["data"],
        "meta": {name: timeless(value) for name, value in items["meta"].items()},
        "metrics": [timeless(line) for line in metrics(workdir)],
        "warnings": read("warnings.json"),
        "evaluation": timeless(read("evaluation.json")),
        "thoughts": read("thoughts.json"),
        "responses": read("responses.json") if (workdir / "responses.json").exists() else None,
        "config": read("config.json"),
    }
