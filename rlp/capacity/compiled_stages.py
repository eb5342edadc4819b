"""The real stages of a step, compiled one after the other.

`walk` goes through the stages that the trainers run (`rlp.engine.stages`), on the same shapes and
placements: the outputs of each are the next ones' arguments.
"""

import copy
import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from models.sharding import batch_sharding, parameter_shardings, replicated
from models.transformer import shapes
from rlp.capacity.programs import CompiledStep, Compiler
from rlp.capacity.step_spec import StepSpec
from rlp.data.batch import Batch
from rlp.engine.placement import device_bytes, placed, state_shardings
from rlp.engine.stages import Values, of_unit, placements, stages_of, still_read
from rlp.engine.step import TrainState, new_state
from rlp.objectives.outcome import Answers
from rlp.objectives.registry import find

# What a stage makes and a step keeps for long: its name, and how it is described.
KEPT = {"gather": "rollout copy", "read": "trunk caches", "rollout": "branch caches"}


def shardings_of(spec: StepSpec) -> Any:
    """Where the state of a run lies."""
    memory = spec.settings.baseline_memory if spec.settings else "device"
    return state_shardings(
        spec.mesh, spec.model, spec.optimizer, spec.baseline, memory, spec.reference
    )


def walk(compiler: Compiler, spec: StepSpec) -> None:
    """Compiles every stage of a step.

    Raises:
      OutOfMemory: at the first stage that the compiler refuses.
    """
    shardings = shardings_of(spec)
    begin = lambda params: new_state(params, spec.optimizer, spec.baseline, spec.reference)
    state = placed(jax.eval_shape(begin, shapes(spec.model)), shardings)
    compiler.compiled.hold("parameters", state.params, "float32")
    compiler.compiled.hold("optimizer", state.optimizer, "two moments, float32")
    if spec.settings is None:
        values = {"state": state, "batch": abstract_batch(spec.mesh, spec.rows, spec.length, 0)}
        _compiled(compiler, spec, shardings, "batch", values)
    else:
        _walk_rlp(compiler, spec, shardings, state)


def _walk_rlp(compiler: Compiler, spec: StepSpec, shardings: Any, state: TrainState) -> None:
    """The units of `RLPTrainer.step`, with the values that it gives to each. What a rollout
    batch leaves for the update is alive beside the next ones; its caches are not."""
    s, compiled, setup = spec.rlp, compiler.compiled, spec.setup
    (rows, forks), (documents, parts) = spec.rollout_batch, spec.rollout_batches
    stages, count = stages_of(setup), documents * parts

    def run(unit: str, values: Values, times: int = 1, alive: Any = ()) -> Values:
        return _compiled(compiler, spec, shardings, unit, values, times, alive)

    baseline = _fetched(spec, compiled, "baseline", state.baseline)
    values: Values = {"params": state.params, "policy": state.params}
    values = run("start", values, alive=state)
    batch = abstract_batch(spec.mesh, rows, spec.length, s.forks_per_document)
    values |= {"batch": batch, "baseline": baseline, "key": _key(spec.mesh), "step": state.step}
    values["scorer"] = values["policy"] if baseline is None else baseline
    values = still_read(run("documents", values, documents, state), stages, "documents")
    values |= {"table": spec.table, "first": 0, "forks": forks}
    values = run("forks", values, count, state)
    kept = (values["rollout"].without_cache(), values["evidence"])
    values = dict(zip(("rollout", "evidence"), kept, strict=True))
    if count > 1:
        each = [jax.tree.map(copy.copy, kept) for _ in range(count)]
        earlier = [stage.name for unit in ("documents", "forks") for stage in of_unit(stages, unit)]
        compiled.beside(device_bytes(each[1:]), *earlier)
        values = {"rollout_batches": each, "batches_per_document": parts}
        values = still_read(run("join", values, alive=state), stages, "join")
    if spec.settings and s.kl_weight:
        values["reference"] = _reference(spec, compiled, state)
    values = still_read(run("batch", values, alive=state), stages, "batch")
    values |= {"trained": state.trained(), "minibatch": 0}
    run("minibatch", values, s.updates, state)
    ready = dataclasses.replace(state, baseline=baseline) if s.baseline == "ema" else state
    run("end", {"state": ready}, alive=(state, values["rollout"], values["evidence"]))


def _compiled(
    compiler: Compiler,
    spec: StepSpec,
    shardings: Any,
    unit: str,
    values: Values,
    times: int = 1,
    alive: Any = (),
) -> Values:
    """`values` with what the stages of a unit make of them; see `StageRunner.run`.

    Args:
      times: how often a step runs the unit.
      alive: what is alive meanwhile besides the values.
    """
    places = placements(spec.setup, shardings)
    for stage in of_unit(stages_of(spec.setup), unit):
        if stage.function is None:
            made = _from_host(spec)
        else:
            made = compiler.stage(
                stage.name,
                stage.phase,
                stage.jit(spec.setup, places),
                *stage.arguments(values),
                times=times,
                steps=spec.rlp.thought_length if stage.name == "rollout" else 1,
                alive=(alive, values),
            )
        values = stage.results(values, made)
        if stage.name in KEPT:
            compiler.compiled.hold(KEPT[stage.name], *_held(spec, stage.name, made))
    return values


def _held(spec: StepSpec, stage: str, made: Any) -> tuple[Any, str]:
    """Of what a stage of `KEPT` made, what a step keeps for long, and its description."""
    if stage == "gather":
        return made, f"{spec.model.compute_dtype}, whole over fsdp"
    (rows, forks) = spec.rollout_batch
    if stage == "read":
        cache = made.documents.cache
        return cache, f"a rollout batch of {rows} documents: {_described(cache)}"
    cache, thoughts = made.branch_cache, rows * forks * spec.rlp.group_size
    return cache, f"a rollout batch of {thoughts} thoughts: {_described(cache)}"


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


def _from_host(spec: StepSpec) -> tuple[Answers, Any]:
    """What the host returns for the responses of a rollout batch, as shapes: their answers, and
    which actions plan."""
    s, whole, (rows, _) = spec.rlp, replicated(spec.mesh), spec.rollout_batch

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


def _reference(spec: StepSpec, compiled: CompiledStep, state: TrainState) -> Any:
    """The reference in the memory of the devices."""
    if state.reference is None:  # phi is frozen, so it is the reference, and is listed already
        return _near(spec, state.baseline)
    return _fetched(spec, compiled, "reference", state.reference)


def _fetched(spec: StepSpec, compiled: CompiledStep, name: str, params: Any) -> Any:
    """phi or the reference in the memory of the devices, where the trainer uses it."""
    if params is None:
        return None
    near = _near(spec, params)
    far = spec.rlp.baseline_memory == "host"
    compiled.hold(name, near, "float32" + ", in the memory of the host but for its uses" * far)
    return near


def _near(spec: StepSpec, params: Any) -> Any:
    if spec.rlp.baseline_memory == "device":
        return params
    return placed(params, parameter_shardings(spec.mesh, params))


def _described(cache: Any) -> str:
    """Type, shape and placement of a cache's arrays."""
    leaf = jax.tree.leaves(cache)[0]
    shape = "×".join(map(str, leaf.shape))
    return f"{leaf.dtype} {shape} over {getattr(leaf.sharding, 'spec', leaf.sharding)}"
