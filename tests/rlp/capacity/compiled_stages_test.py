"""The compiled stages are those of a real step, with the same shapes and shardings."""

import dataclasses
import functools
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from models import backend
from models.sharding import make_mesh
from models.transformer import bind, shapes
from models.tree import Trunk, prefill
from rlp.answers.grading import Grade, Grader
from rlp.capacity import compiled_stages, programs, step_memory
from rlp.capacity.step_spec import StepSpec
from rlp.data.rows import Rows
from rlp.engine.decoding import for_decoding
from rlp.engine.method import Method
from rlp.engine.placement import gather
from rlp.engine.step import new_state
from rlp.engine.step.rollout_batches import rollout_batch_shape
from rlp.evaluation.answering import response_settings
from rlp.training.trainers import RLPTrainer
from rlp.training.trainers.answers import AnswerTrainer
from tests.support import tiny
from tests.support.engine import OPTIMIZER

MODEL = tiny.model_config(num_heads=4, num_kv_heads=4, compute_dtype="bfloat16", num_layers=1)
WORDS = tiny.words(MODEL)
SETTINGS = tiny.rlp_settings(
    thought_length=3, max_branches_in_flight=8, prompt=(9, 9), minibatches=2
)
LENGTH = 12
ON_ANSWERS = response_settings(dataclasses.replace(SETTINGS, objective="hicra"), 3)
NAMES = ("gather", "read", "no_think", "rollout", "evidence", "join", "metrics", "update", "finish")
NAMES_ON_ANSWERS = (
    "gather", "read", "rollout", "responses", "answer_rewards", "join", "metrics", "update",
    "finish",
)  # fmt: skip


@functools.cache
def case(settings=SETTINGS):
    mesh = make_mesh(1, 2, 2, devices=jax.devices()[:4])
    return StepSpec(MODEL, settings, WORDS, OPTIMIZER, mesh, rows=4, length=LENGTH)


class Recorded(programs.Compiler):
    """A compiler that records the arguments and outputs of its stages."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.asked = {}

    def stage(self, name, phase, program, *arguments, **options):
        given = super().stage(name, phase, program, *arguments, **options)
        self.asked[name] = (arguments, given)
        return given


@pytest.fixture(autouse=True, scope="module")
def quick_compiles():
    """Skip optimizations, since the programs do not run."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@functools.cache
def planned(settings=SETTINGS):
    compiled = programs.CompiledStep()
    compiler = Recorded(case(settings).mesh, compiled, lambda line: None)
    with programs.tracing_for(case(settings).mesh, "cpu"):
        compiled_stages.compile_stages(compiler, case(settings))
    return compiled, compiler.asked


def answering():
    """Grades every response as wrong, and finds no planning."""
    wrong = Grade("2", False, False, None, False)
    return types.SimpleNamespace(
        method=Method(MODEL, ON_ANSWERS, WORDS),
        grader=Grader("exact", time_limit=1.0, workers=1, close="</think>"),
        grades=lambda actions, words, answers, left: [[wrong] * len(group) for group in actions],
        planning=lambda actions, words: np.zeros(actions.shape, bool),
    )


@functools.cache
def trained(settings=SETTINGS):
    """Return the descriptions of arguments and outputs of every run of a real step, by stage."""
    c = case(settings)
    common = (OPTIMIZER, c.mesh, compiled_stages.shardings_of(c))
    if c.answers:
        trainer = AnswerTrainer(answering(), str, *common)
        names = NAMES_ON_ANSWERS
    else:
        trainer, names = RLPTrainer(Method(MODEL, SETTINGS, WORDS), *common), NAMES
    calls: dict = {name: [] for name in names}

    def watched(name):
        program = trainer.programs[name]

        def run(*arguments, **options):
            before = jax.tree.map(description, arguments)
            given = program(*arguments, **options)
            calls[name].append((before, jax.tree.map(description, given)))
            return given

        return run

    trainer.programs |= {name: watched(name) for name in names}
    params = jax.tree.map(jnp.copy, tiny.params(MODEL))  # the update donates them
    state = jax.device_put(new_state(params, OPTIMIZER, c.baseline), common[-1])
    batch = tiny.documents(0, [12, 10, 9, 12], LENGTH, 22, forks=settings.forks_per_document)
    key = jax.device_put(jax.random.key(3), NamedSharding(c.mesh, P()))
    trainer.step(state, Rows.of(batch), key)
    return calls


def description(leaf):
    """Return shape, dtype and shape per device of an array or a struct; or the number itself."""
    if isinstance(leaf, np.ndarray):  # from the host: replicated
        return leaf.shape, str(leaf.dtype), leaf.shape
    if not hasattr(leaf, "sharding"):
        return leaf
    return leaf.shape, str(leaf.dtype), leaf.sharding.shard_shape(leaf.shape)


@pytest.mark.parametrize("settings", [SETTINGS, ON_ANSWERS], ids=["documents", "problems"])
def test_no_lower_bound_is_above_what_the_compiler_says(settings):
    c, total = case(settings), lambda needs: sum(need.size for need in needs)
    peaks = {stage.name: stage.peak for stage in planned(settings)[0].stages}
    state = step_memory.abstract_state(c.mesh, MODEL, OPTIMIZER, c.baseline, "device", c.reference)
    held = total(step_memory.of_state(MODEL, state, learns=False))
    step = (c.rows, c.length)
    update = held + total(step_memory.of_update(MODEL, c.mesh, settings, WORDS, *step))
    rollout = held + total(step_memory.of_rollout(MODEL, c.mesh, settings, *step))
    assert 0.2 * peaks["update"] < update <= peaks["update"]
    assert total(step_memory.of_state(MODEL, state, learns=True)) <= peaks["update"]
    assert 0.2 * peaks["rollout"] < rollout <= peaks["rollout"]


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_decoding_copies_what_it_unrolls(compute_dtype, monkeypatch):
    model = dataclasses.replace(MODEL, num_layers=3, compute_dtype=compute_dtype)
    mesh, total = make_mesh(devices=jax.devices()[:1]), lambda needs: sum(x.size for x in needs)
    documents, _ = rollout_batch_shape(SETTINGS, 4, 1)
    tokens = jax.ShapeDtypeStruct((documents, len(SETTINGS.prompt) + LENGTH), jnp.int32)

    def copied(params, trunk):
        bound = bind(model, gather(model, params))
        bound, cache = for_decoding(bound, prefill(bound, trunk)[1])
        return bound.blocks, cache

    def needed(unrolled_layers, unrolled_decoding):
        unrolled = {"unrolled_layers": unrolled_layers, "unrolled_decoding": unrolled_decoding}
        monkeypatch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, **unrolled))
        rollout = step_memory.of_rollout(model, mesh, SETTINGS, 4, LENGTH)
        return total(rollout), total(step_memory.of_evaluation(model, mesh, SETTINGS, 2, 4, {}))

    expected = needed(unrolled_layers=3, unrolled_decoding=3)
    assert needed(unrolled_layers=2, unrolled_decoding=2) == expected
    rollout, evaluation = needed(unrolled_layers=2, unrolled_decoding=3)
    blocks, cache = jax.eval_shape(copied, shapes(model), Trunk(tokens, tokens, tokens))
    assert rollout - expected[0] == programs.device_bytes([blocks, cache])
    assert evaluation - expected[1] == programs.device_bytes(blocks)
    stacks = shapes(model)["blocks"]  # generation copies the parameters as they are
    assert total(step_memory.of_unrolled_layers(model)) == programs.device_bytes(stacks)
    needed(unrolled_layers=2, unrolled_decoding=2)
    assert not step_memory.of_unrolled_layers(model)


@pytest.mark.parametrize(
    ("settings", "rollouts"),
    [
        pytest.param(SETTINGS, 4, id="documents"),  # two batches of them, two of the forks of each
        pytest.param(ON_ANSWERS, 2, id="problems"),
    ],
)
def test_the_plan_compiles_every_program_of_a_step_as_often_as_it_runs(settings, rollouts):
    calls = trained(settings)
    assert {stage.name: stage.times for stage in planned(settings)[0].stages} == {
        name: len(made) for name, made in calls.items()
    }
    assert len(calls["rollout"]) == rollouts
    assert len(calls["update"]) == 2


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        *(pytest.param(SETTINGS, name, id=name) for name in NAMES),
        *(pytest.param(ON_ANSWERS, name, id=f"problems, {name}") for name in NAMES_ON_ANSWERS),
    ],
)
def test_a_stage_is_compiled_for_the_arrays_that_the_step_gives_it(settings, name):
    given, got = planned(settings)[1][name]
    for arguments, results in trained(settings)[name]:
        numbers = lambda tree: [x for x in jax.tree.leaves(tree) if not isinstance(x, int)]
        assert numbers(jax.tree.map(description, given)) == numbers(arguments)
        assert jax.tree.leaves(jax.tree.map(description, got)) == jax.tree.leaves(results)


def test_rollout_batches_are_joined_and_cut_into_minibatches_where_they_are():
    actual = {stage.name: stage for stage in planned()[0].stages}
    assert not actual["join"].collectives
    moves = {collective.kind for collective in actual["update"].collectives}
    assert moves == {"all-gather", "all-reduce"}  # of parameters and gradients


def test_what_is_held_has_the_bytes_of_one_device():
    """By hand: 24 · 32 + one block of 4 · 32 · 32 + 3 · 32 · 48 + 2 · 8 + 2 · 32, and 32; float32,
    matrices over four devices. Documents have 2 + 12 tokens, branches 1 + 3 - 1 slots."""
    held = {held.name: held.bytes for held in planned()[0].held}
    matrices, scales = 24 * 32 + 4 * 32 * 32 + 3 * 32 * 48, 2 * 8 + 3 * 32
    at_rest = 4 * (matrices // 4 + scales)
    token = 2 * 4 * 8 * 2 // 2  # keys and values of four heads over two devices, bfloat16
    assert held == {
        "parameters": at_rest,
        "optimizer": 2 * at_rest + 2 * 4,  # two counters
        "baseline": at_rest,
        "rollout copy": 2 * matrices // 2 + 4 * scales,
        "trunk caches": 14 * token,  # two documents over two devices
        "branch caches": 4 * 3 * token,
    }


def test_what_is_alive_beside_a_stage_is_counted_once():
    compiled, asked = planned()
    actual = {stage.name: stage for stage in compiled.stages}
    held = {held.name: held.bytes for held in compiled.held}
    # theta is an argument; the rest of the state, with 3 counters, is live.
    assert actual["gather"].others == held["optimizer"] + held["baseline"] + 3 * 4
    assert actual["update"].others == held["baseline"]
    # Of earlier rollout batches, the values that the update reads are live; their caches are not.
    kept = programs.device_bytes([asked["join"][0][0][1:]])
    waiting = programs.device_bytes([asked["no_think"][1]])
    at_rest = held["parameters"] + held["optimizer"] + held["baseline"] + 3 * 4
    assert actual["rollout"].others == at_rest + kept + waiting


def test_bytes_of_a_device_by_hand():
    mesh = case().mesh
    place = lambda *spec, **memory: NamedSharding(mesh, P(*spec), **memory)
    struct = lambda place: jax.ShapeDtypeStruct((8, 6), jnp.bfloat16, sharding=place)
    split, whole = struct(place("fsdp", "tensor")), struct(place())
    assert programs.device_bytes(split) == 4 * 3 * 2
    assert programs.device_bytes([split, whole, 7]) == 24 + 96
    assert programs.device_bytes([split, split]) == 24
    assert programs.device_bytes([split, whole], without={id(whole)}) == 24
    assert programs.device_bytes(struct(place("fsdp", memory_kind="pinned_host"))) == 0


def test_a_program_that_does_not_fit_is_named_with_what_it_asked_for():
    class Refused:
        def lower(self, *_):
            return self

        def compile(self):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
                "space hbm. Used 24.50G of 15.75G hbm. Exceeded hbm capacity by 8.75G."
            )

    compiler = programs.Compiler(case().mesh, programs.CompiledStep(), lambda line: None)
    with pytest.raises(programs.OutOfMemory) as refused:
        compiler.stage("update", "update", Refused())
    assert (refused.value.stage, refused.value.needed) == ("update", 24.5 * 2**30)


def test_the_compilers_log_is_kept_from_the_terminal_and_read(capfd):
    with programs.compiler_log() as log:
        os.write(2, b"one line\nanother\n")
    assert log == ["one line", "another"]
    assert capfd.readouterr().err == ""


def test_rollout_batches_divide_the_batch():
    c = dataclasses.replace(case(), settings=dataclasses.replace(SETTINGS, update_micro_batch=8))
    assert (c.rollout_batch, c.rollout_batches) == ((2, 1), (2, 2))
    assert (c.micro_batch, c.micro_batches) == ((2, 4), 2)  # of a minibatch of two documents
    whole = dataclasses.replace(c, settings=dataclasses.replace(c.rlp, minibatches=1))
    assert (whole.micro_batch, whole.micro_batches) == ((2, 4), 4)
    forks = np.prod(c.rollout_batches) * np.prod(c.rollout_batch)
    assert forks == c.rows * SETTINGS.forks_per_document
