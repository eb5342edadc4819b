"""Compile the stages of a training step in order, ahead of time.

`compile_stages` compiles the stages that the trainers run (`rlp.engine.stages`) for the same shapes
and shardings: the outputs of a stage are the arguments of the next ones.
"""

import copy
import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from models.cache import Cache
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

# Stages with outputs that outlive them, and the name of these outputs in the memory table.
HELD = {"gather": "rollout copy", "read": "trunk caches", "rollout": "branch caches"}


def shardings_of(spec: StepSpec) -> Any:
    """Return the shardings of the state of a run."""
    memory = spec.settings.baseline_memory if spec.settings else "device"
    return state_shardings(
        spec.mesh, spec.model, spec.optimizer, spec.baseline, memory, spec.reference
    )


def compile_stages(compiler: Compiler, spec: StepSpec) -> None:
    """Compile every stage of a step, and record its memory and collectives in `compiler.compiled`.

    Raises:
      OutOfMemory: At the first stage that does not fit into the memory of a device.
    """
    shardings = shardings_of(spec)
    begin = lambda params: new_state(params, spec.optimizer, spec.baseline, spec.reference)
    state = placed(jax.eval_shape(begin, shapes(spec.model)), shardings)
    compiler.compiled.hold("parameters", state.params, "float32")
    compiler.compiled.hold("optimizer", state.optimizer, "two moments, float32")
    if spec.settings is None:
        values = {"state": state, "batch": abstract_batch(spec.mesh, spec.rows, spec.length, 0)}
        _compile_unit(compiler, spec, shardings, "batch", values)
    else:
        _compile_rlp(compiler, spec, shardings, state)


def _compile_rlp(compiler: Compiler, spec: StepSpec, shardings: Any, state: TrainState) -> None:
    """Compile the units of `RLPTrainer.step` with the values that the trainer passes to them.

    The thoughts and evidence of earlier rollout batches stay in memory; their caches do not.
    """
    s, compiled, setup = spec.rlp, compiler.compiled, spec.setup
    (rows, forks), (documents, parts) = spec.rollout_batch, spec.rollout_batches
    stages, count = stages_of(setup), documents * parts

    def run(unit: str, values: Values, times: int = 1, alive: Any = ()) -> Values:
        return _compile_unit(compiler, spec, shardings, unit, values, times, alive)

    baseline = _fetched(spec, compiled, "baseline", state.baseline)
    values: Values = {"params": state.params, "policy": state.params}
    values = run("start", values, alive=state)
    batch = abstract_batch(spec.mesh, rows, spec.length, s.forks_per_document)
    values |= {"batch": batch, "baseline": baseline, "key": _key(spec.mesh), "step": state.step}
    values["scorer"] = values["policy"] if baseline is None else baseline
    values = still_read(run("documents", values, documents, state), stages, "documents")
    values |= {"table": spec.table, "first": 0, "forks": forks}
    values = run("forks", values, count, state)
    scored = (values["rollout"].without_cache(), values["evidence"])
    values = dict(zip(("rollout", "evidence"), scored, strict=True))
    if count > 1:
        batches = [jax.tree.map(copy.copy, scored) for _ in range(count)]
        earlier = [stage.name for unit in ("documents", "forks") for stage in of_unit(stages, unit)]
        compiled.add_others(device_bytes(batches[1:]), *earlier)
        values = {"rollout_batches": batches, "batches_per_document": parts}
        values = still_read(run("join", values, alive=state), stages, "join")
    if spec.settings and s.kl_weight:
        values["reference"] = _reference(spec, compiled, state)
    values = still_read(run("batch", values, alive=state), stages, "batch")
    values |= {"trained": state.trained(), "minibatch": 0}
    run("minibatch", values, s.updates, state)
    ready = dataclasses.replace(state, baseline=baseline) if s.baseline == "ema" else state
    run("end", {"state": ready}, alive=(state, values["rollout"], values["evidence"]))


def _compile_unit(
    compiler: Compiler,
    spec: StepSpec,
    shardings: Any,
    unit: str,
    values: Values,
    times: int = 1,
    alive: Any = (),
) -> Values:
    """Compile the stages of a unit; return `values` with their outputs, as `StageRunner.run` does.

    Args:
      times: runs of the unit per step.
      alive: tree of live arrays besides the values.
    """
    output_shardings = placements(spec.setup, shardings)
    for stage in of_unit(stages_of(spec.setup), unit):
        if stage.function is None:
            outputs = _host_outputs(spec)
        else:
            outputs = compiler.stage(
                stage.name,
                stage.phase,
                stage.jit(spec.setup, output_shardings),
                *stage.arguments(values),
                times=times,
                steps=spec.rlp.thought_length if stage.name == "rollout" else 1,
                alive=(alive, values),
            )
        values = stage.results(values, outputs)
        if stage.name in HELD:
            compiler.compiled.hold(HELD[stage.name], *_held(spec, stage.name, outputs))
    return values


def _held(spec: StepSpec, stage: str, outputs: Any) -> tuple[Any, str]:
    """Return the arrays that outlive a stage of `HELD`, and a description."""
    if stage == "gather":
        return outputs, f"{spec.model.compute_dtype}, gathered over fsdp"
    (rows, forks) = spec.rollout_batch
    if stage == "read":
        cache = outputs.documents.cache
        return cache, f"a rollout batch of {rows} documents: {_described(cache)}"
    cache, thoughts = outputs.branch_cache, rows * forks * spec.rlp.group_size
    return cache, f"a rollout batch of {thoughts} thoughts: {_described(cache)}"


def abstract_batch(mesh: Mesh, rows: int, length: int, forks: int) -> Batch:
    """Return the shapes of a batch of documents, with shardings."""
    sharding = batch_sharding(mesh)

    def ints(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, np.int32, sharding=sharding)

    texts = {name: ints(rows, length) for name in ("tokens", "segment", "position")}
    return Batch(**texts, index=ints(rows), forks=ints(rows, forks))


def _key(mesh: Mesh) -> Any:
    """Return the shape of a root PRNG key."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))


def _host_outputs(spec: StepSpec) -> tuple[Answers, Any]:
    """Return the shapes of the outputs of the stage `grade`: answers and planning actions."""
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
    """Return the shapes of pi_ref in device memory."""
    if state.reference is None:  # a frozen phi serves as pi_ref, and is recorded already
        return _on_device(spec, state.baseline)
    return _fetched(spec, compiled, "reference", state.reference)


def _fetched(spec: StepSpec, compiled: CompiledStep, name: str, params: Any) -> Any:
    """Record phi or pi_ref; return its shapes in device memory, where the trainer uses it."""
    if params is None:
        return None
    fetched = _on_device(spec, params)
    on_host = spec.rlp.baseline_memory == "host"
    compiled.hold(name, fetched, "float32" + ", in host memory while it is not used" * on_host)
    return fetched


def _on_device(spec: StepSpec, params: Any) -> Any:
    if spec.rlp.baseline_memory == "device":
        return params
    return placed(params, parameter_shardings(spec.mesh, params))


def _described(cache: Cache) -> str:
    """Return dtype, shape and sharding of the largest array of each kind of layers."""
    return ", ".join(_largest(arrays) for arrays in cache.kinds.values())


def _largest(arrays: Any) -> str:
    leaf = max(jax.tree.leaves(arrays), key=lambda leaf: leaf.size * leaf.dtype.itemsize)
    shape = "×".join(map(str, leaf.shape))
    return f"{leaf.dtype} {shape} over {getattr(leaf.sharding, 'spec', leaf.sharding)}"
