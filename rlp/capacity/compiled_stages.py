"""The real stages of a step, compiled one after the other.

`walk` goes through a step as the trainer does: the same jitted programs on the same shapes and
placements, each stage's outputs being the next one's arguments.
"""

import copy
import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from models.sharding import batch_sharding, parameter_shardings, replicated
from models.transformer import shapes
from rlp.capacity.programs import Compiler, Plan
from rlp.capacity.step_spec import Case
from rlp.data.batch import Batch
from rlp.engine.placement import device_bytes, placed, state_shardings
from rlp.engine.step import TrainState, new_state, verdict_stage
from rlp.objectives.record import Answers
from rlp.objectives.registry import find
from rlp.training.trainers import NextTokenTrainer, RLPTrainer, jit_stage


def shardings_of(case: Case) -> Any:
    """Where the state of a run lies."""
    memory = case.settings.baseline_memory if case.settings else "device"
    return state_shardings(
        case.mesh, case.model, case.optimizer, case.baseline, memory, case.reference
    )


def walk(compiler: Compiler, case: Case) -> None:
    """Compiles every stage of a step.

    Raises:
      OutOfMemory: at the first stage that the compiler refuses.
    """
    shardings = shardings_of(case)
    begin = lambda params: new_state(params, case.optimizer, case.baseline, case.reference)
    state = placed(jax.eval_shape(begin, shapes(case.model)), shardings)
    compiler.plan.hold("parameters", state.params, "float32")
    compiler.plan.hold("optimizer", state.optimizer, "two moments, float32")
    if case.settings is None:
        _walk_next_token(compiler, case, shardings, state)
    else:
        _walk_rlp(compiler, case, shardings, state)


def abstract_batch(mesh: Mesh, rows: int, length: int, forks: int) -> Batch:
    """Rows of documents, as shapes with placements."""
    place = batch_sharding(mesh)

    def ints(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, np.int32, sharding=place)

    texts = {name: ints(rows, length) for name in ("tokens", "segment", "position")}
    return Batch(**texts, index=ints(rows), forks=ints(rows, forks))


def _key(mesh: Mesh) -> Any:
    """The root key of a run."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))


def _walk_next_token(compiler: Compiler, case: Case, shardings: Any, state: TrainState) -> None:
    trainer = NextTokenTrainer(case.model, case.optimizer, case.mesh, shardings)
    batch = abstract_batch(case.mesh, case.rows, case.length, 0)
    compiler.stage("update", "update", trainer.update, state, batch, alive=[state])


def _walk_rlp(compiler: Compiler, case: Case, shardings: Any, state: TrainState) -> None:
    """In the order of `RLPTrainer.step`. What a wave leaves for the update is alive beside the next
    ones; its caches are not."""
    s, plan, stage = case.rlp, compiler.plan, compiler.stage
    (rows, forks), (documents, parts) = case.wave, case.waves
    trainer = RLPTrainer(
        case.model, s, case.vocabulary, case.optimizer, case.mesh, shardings
    )  # fmt: skip
    params, baseline = state.params, _fetched(case, plan, "baseline", state.baseline)
    alive: list[Any] = [state]
    if trainer.gather:
        params = stage("gather", "gather", trainer.gather, params, alive=alive)
        plan.hold("rollout copy", params, f"{case.model.compute_dtype}, whole over fsdp")
        alive.append(params)
    scorer = params if baseline is None else baseline
    batch, key = abstract_batch(case.mesh, rows, case.length, s.forks_per_document), _key(case.mesh)

    alive.append(batch)
    reading = stage(
        "read", "rollout", trainer.read, params, scorer, batch, key, state.step,
        times=documents, alive=[*alive, baseline],
    )  # fmt: skip
    cache = reading.documents.cache
    plan.hold("trunk caches", cache, f"a wave of {rows} documents: {_described(cache)}")
    alive.append(reading)
    no_think = None
    if not case.answers:
        no_think = stage(
            "no_think", "evidence", trainer.no_think, params, baseline, batch, reading,
            times=documents, alive=alive,
        )  # fmt: skip
        alive.append(no_think)
    rollout = stage(
        "rollout", "rollout", trainer.rollout, params, reading, 0,
        forks=forks, times=documents * parts, steps=s.thought_length, alive=alive,
    )  # fmt: skip
    cache, thoughts = rollout.branch_cache, rows * forks * s.group_size
    plan.hold("branch caches", cache, f"a wave of {thoughts} thoughts: {_described(cache)}")
    alive.append(rollout)
    if case.answers:
        verdict = jit_stage(case.model, s, case.vocabulary, verdict_stage)
        evidence = stage(
            "verdict", "rollout", verdict, reading, rollout, *_from_host(case, rows),
            times=documents, alive=alive,
        )  # fmt: skip
    else:
        evidence = stage(
            "evidence", "evidence", trainer.evidence, params, reading, no_think, rollout, 0,
            case.table, times=documents * parts, alive=alive,
        )  # fmt: skip

    kept: Any = (rollout.without_cache(), evidence)
    if documents * parts > 1:
        waves = [jax.tree.map(copy.copy, kept) for _ in range(documents * parts)]
        plan.beside(device_bytes(waves[1:]), "read", "no_think", "rollout", "evidence")
        kept = stage("join", "update", trainer.join, waves, parts, alive=[state, params, waves])
    if trainer.reference:
        kept = _with_reference(compiler, case, trainer, state, kept)
    stage("figures", "update", trainer.figures, *kept, alive=[state, kept])
    bare = dataclasses.replace(state, baseline=None, reference=None)
    stage(
        "update", "update", trainer.update, bare, *kept, 0,
        times=s.updates, alive=[state, kept],
    )  # fmt: skip
    moved = s.baseline == "ema"
    ready = dataclasses.replace(state, baseline=baseline if moved else state.baseline)
    stage("finish", "update", trainer.finish, ready, alive=[state, kept])


def _from_host(case: Case, rows: int) -> tuple[Answers, Any]:
    """What the host says of the responses of a wave, as shapes: answers, and which actions plan."""
    s, whole = case.rlp, replicated(case.mesh)

    def array(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=whole)

    flags = {
        name: array(np.bool_, 1, s.group_size) for name in ("correct", "agrees", "given", "failed")
    }
    planning = None
    if find(s.objective).weighs_planning:
        planning = array(np.bool_, s.group_size, s.thought_length)
    numbers = {name: array(np.float32, 1, s.group_size) for name in ("reward", "confidence")}
    return Answers(**flags, **numbers), planning


def _with_reference(
    compiler: Compiler, case: Case, trainer: RLPTrainer, state: TrainState, kept: Any
) -> Any:
    """Rollout and evidence, with what the reference says of the thoughts."""
    rollout, evidence = kept
    frozen = state.reference is None  # then phi is the reference, and is written down already
    reference = (
        _near(case, state.baseline)
        if frozen
        else _fetched(case, compiler.plan, "reference", state.reference)
    )
    found = compiler.stage(
        "reference", "evidence", trainer.reference, reference, rollout, alive=[state, kept]
    )
    return rollout, dataclasses.replace(evidence, reference=found)


def _fetched(case: Case, plan: Plan, name: str, params: Any) -> Any:
    """phi or the reference in the memory of the devices, where the trainer uses it."""
    if params is None:
        return None
    near = _near(case, params)
    far = case.rlp.baseline_memory == "host"
    plan.hold(name, near, "float32" + ", in the memory of the host but for its uses" * far)
    return near


def _near(case: Case, params: Any) -> Any:
    if case.rlp.baseline_memory == "device":
        return params
    return placed(params, parameter_shardings(case.mesh, params))


def _described(cache: Any) -> str:
    """Type, shape and placement of a cache's arrays."""
    leaf = jax.tree.leaves(cache)[0]
    shape = "×".join(map(str, leaf.shape))
    return f"{leaf.dtype} {shape} over {getattr(leaf.sharding, 'spec', leaf.sharding)}"
