"""Every config can be built, and its fields are fields of the default config."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from configs import (
    ablations,
    default,
    demo,
    demo_hybrid,
    nemotron_3_nano_4b_rlp,
    nemotron_nano_12b_rlp,
    qwen3_1p7b_rlp,
    qwen3_14b_rlp,
    sft,
    text,
)
from models.backend import compiling_for
from models.layers.registry import LAYERS
from models.transformer import count_parameters, shapes
from rlp.capacity import compilers
from rlp.capacity.chips import parse_topology
from rlp.capacity.device_memory import DoesNotFit, Limits
from rlp.data.batch import Batch
from rlp.engine import step
from rlp.engine.placement import state_shardings
from rlp.run import assembly, experiment, memory_check, schedule
from rlp.runtime.config_json import fields
from tests.support.paths import ROOT

KNOWN = dict(fields(default.get_config()))
CONFIGS = {
    "default": default.get_config(),
    "text": text.get_config(),
    "text:rlp": text.get_config("rlp"),
    "sft": sft.get_config(),
    "qwen3_1p7b_rlp": qwen3_1p7b_rlp.get_config(),
    "qwen3_14b_rlp": qwen3_14b_rlp.get_config(),
    "nemotron_nano_12b_rlp": nemotron_nano_12b_rlp.get_config(),
    "nemotron_3_nano_4b_rlp": nemotron_3_nano_4b_rlp.get_config(),
    "ablations:rollouts": ablations.get_config("rollouts"),
}
BYTES = {"data.train": "some.txt", "data.eos": ""}  # data for the byte tokenizer

PAIRS = {"data.sft.train": "some.jsonl", "data.sft.messages_column": "messages"}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_of_a_run_can_be_built_once_it_has_data(name):
    config = CONFIGS[name].copy_and_resolve_references()
    config.update_from_flattened_dict(PAIRS if name == "sft" else BYTES)
    run = assembly.build(config)
    assert run.method.settings.group_size == config.rlp.group_size
    assert set(dict(fields(config))) == set(KNOWN)


@pytest.mark.parametrize(("recipe_of", "count"), [(demo, 336_640), (demo_hybrid, 333_932)])
def test_the_arms_of_the_demo_can_be_built_and_share_a_model(recipe_of, count, tmp_path):
    config = recipe_of.get_config()
    config.batch_size = 64
    arms = {name: experiment.arm_config(config, name, tmp_path) for name in config.arms}
    assert experiment.arm_order(arms, tmp_path) == ["base", "rlp", "cpt"]
    runs = {name: assembly.build(arm) for name, arm in arms.items()}
    assert len({run.method.model for run in runs.values()}) == 1
    assert count_parameters(runs["base"].method.model) == count
    for arm in arms.values():
        assert set(dict(fields(arm))) == set(KNOWN)


@pytest.mark.parametrize("arm", ["base", "rlp"])
def test_the_points_of_the_demo_s_ablations_are_its_arms(arm, tmp_path):
    """The base, and the RLP arm with the group size of the demo."""
    point = next(
        point
        for point in ablations.sweep("demo_rollouts")
        if (point.get("name") == "base" if arm == "base" else point.get("rlp.group_size") == 8)
    )
    point.pop("name", None)
    config = ablations.get_config("demo_rollouts")
    config.update_from_flattened_dict(point)
    expected = experiment.arm_config(demo.get_config(), arm, tmp_path)
    expected.init_from, expected.seed = config.init_from, config.seed
    assert dict(fields(config)) == dict(fields(expected))


# The paper's recipe.


def test_the_recipe_for_qwen3_has_the_published_shape():
    """It has 1,720,574,976 parameters, as computed from the config of the model."""
    model = assembly.build(recipe()).method.model
    d, layers, heads, kv, width, ffn = 2048, 28, 16, 8, 128, 6144
    attention = d * heads * width * 2 + d * kv * width * 2 + 2 * width
    block = attention + 3 * d * ffn + 2 * d
    by_hand = 151_936 * d + layers * block + d  # the embedding is also the output head
    assert by_hand == 1_720_574_976
    assert count_parameters(model) == by_hand
    assert "1,720,574,976" in (ROOT / "configs" / "qwen3_1p7b_rlp.py").read_text()


def test_the_recipe_for_qwen3_14b_has_the_published_shape():
    config = qwen3_14b_rlp.get_config()
    config.update_from_flattened_dict(BYTES)
    d, layers, heads, kv, width, ffn = 5120, 40, 40, 8, 128, 17_408
    attention = d * heads * width * 2 + d * kv * width * 2 + 2 * width
    by_hand = 2 * 151_936 * d + layers * (attention + 3 * d * ffn + 2 * d) + d
    assert count_parameters(assembly.build(config).method.model) == by_hand == 14_768_307_200
    assert f"{by_hand:,}" in (ROOT / "configs" / "qwen3_14b_rlp.py").read_text()


@pytest.mark.parametrize(
    ("name", "kinds", "d", "heads", "ffn", "count", "mib"),
    [
        ("nemotron_nano_12b_rlp", [28, 6, 28], 5120, 128, 20480, 12_310_001_152, 140),
        ("nemotron_3_nano_4b_rlp", [21, 4, 17], 3136, 96, 12544, 3_973_556_832, 78.75),
    ],
)
def test_the_recipes_for_hybrids_have_the_published_shapes(name, kinds, d, heads, ffn, count, mib):
    config = CONFIGS[name].copy_and_resolve_references()
    config.update_from_flattened_dict(BYTES)
    model = assembly.build(config).method.model
    inner, shared = heads * 80, 8 * 128
    mamba = d * (2 * inner + 2 * shared + heads) + 5 * (inner + 2 * shared) + inner + 3 * heads
    of_layers = mamba + inner * d, d * 128 * 2 * (40 + 8), 2 * d * ffn
    by_hand = sum(n * (x + d) for n, x in zip(kinds, of_layers, strict=True))
    by_hand += 2 * 131_072 * d + d
    assert [model.letters.count(letter) for letter in "M*-"] == kinds
    assert count_parameters(model) == by_hand == count
    text = (ROOT / "configs" / f"{name}.py").read_text()
    assert f"{by_hand:,}" in text
    state = LAYERS["M"][0].branch_cache(model, 1, 1, 0).state
    assert kinds[0] * state.size * 4 == mib * 2**20
    assert f"{mib:.0f} MiB" in text


def recipe():
    config = qwen3_1p7b_rlp.get_config()
    config.update_from_flattened_dict(BYTES)
    return config


def test_the_recipe_for_qwen3_traces_from_documents_to_new_parameters():
    """Trace a whole RLP step with full width, depth, length and group size on two documents."""
    config, size = recipe(), 2
    run = assembly.build(config)
    model, s, words = run.method.model, run.method.settings, run.method.vocabulary
    optimizer = schedule.build_optimizer(config, config.steps)
    length, group = config.data.sequence_length, s.group_size
    rows = jax.ShapeDtypeStruct((size, length), jnp.int32)
    row = jax.ShapeDtypeStruct((size,), jnp.int32)
    forks = jax.ShapeDtypeStruct((size, 1), jnp.int32)
    batch = Batch(tokens=rows, segment=rows, position=rows, index=row, forks=forks)
    params = shapes(model)
    state = jax.eval_shape(
        functools.partial(step.new_state, optimizer=optimizer, baseline=True), params
    )
    key = jax.eval_shape(lambda: jax.random.key(0))

    method = (model, s, words)
    shape_of = lambda stage, *inputs: jax.eval_shape(functools.partial(stage, *method), *inputs)
    reading = shape_of(step.read_stage, params, params, batch, key, state.step)
    no_think = shape_of(step.no_think_stage, params, state.baseline, batch, reading)
    rollout = shape_of(step.rollout_stage, params, reading)
    assert rollout.thoughts.actions.shape == (size, group, 2048)
    assert rollout.trunk.tokens.shape == (size, len(s.prompt) + 2048)
    assert reading.documents.hidden.dtype == jnp.bfloat16
    evidence = shape_of(step.evidence_stage, params, reading, no_think, rollout)
    assert evidence.advantages.shape == (size, 1, group)
    after, metrics = jax.eval_shape(
        functools.partial(step.update_stage, model, s, words, optimizer), state, rollout, evidence
    )
    after = jax.eval_shape(functools.partial(step.finish_step, s), after)
    same = lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype)
    assert jax.tree.all(jax.tree.map(same, after, state))
    leaves = jax.tree.leaves((after.params, after.baseline))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert metrics["loss"].shape == ()


def test_the_recipe_for_qwen3_splits_over_eight_devices():
    config = recipe()
    run = assembly.build(config)
    assert run.mesh.shape == {"data": 1, "fsdp": 8, "tensor": 1}
    optimizer = schedule.build_optimizer(config, config.steps)
    shardings = state_shardings(run.mesh, run.method.model, optimizer, baseline=True)
    total = per_device = 0
    for leaf, sharding in zip(
        jax.tree.leaves(shapes(run.method.model)), jax.tree.leaves(shardings.params), strict=True
    ):
        total += leaf.size
        per_device += jnp.prod(jnp.array(sharding.shard_shape(leaf.shape))).item()
    assert per_device < total / 7.9  # all parameters but the norms are split


def test_the_recipe_for_qwen3_fits_on_64_chips_of_v5p():
    """By the bytes that a step certainly needs. `launch.compile` finds a little more (12.23 GiB in
    the rollout; docs/capacity.md), in minutes."""
    config, topology = recipe(), parse_topology("v5p:4x4x4")

    def build(usable):
        limits = Limits(int(usable), "a v5p", host=None)
        devices = compilers.stand_ins(topology.devices)
        with compiling_for("tpu"):
            return memory_check.build(config, devices=devices, memory=lambda _: limits)

    assert build(topology.chip.usable()).mesh.shape["fsdp"] == 64
    build(12 << 30)
    with pytest.raises(DoesNotFit, match="rollout"):
        build(11 << 30)


def test_the_recipe_for_qwen3_has_the_numbers_of_the_paper():
    config = qwen3_1p7b_rlp.get_config()
    paper = {
        "batch_size": 512,
        "steps": 200,
        "data.sequence_length": 2048,
        "optimizer.learning_rate": 1e-6,
        "optimizer.schedule": "constant",
        "rlp.group_size": 16,
        "rlp.forks_per_document": 1,
        "rlp.thought_length": 2048,
        "rlp.horizon": 1,
        "rlp.temperature": 0.7,
        "rlp.positions": "uniform",
        "rlp.baseline": "ema",
        "rlp.ema_decay": 0.999,
        "rlp.prompt": "default",
    }
    values = dict(fields(config))
    assert {name: values[name] for name in paper} == paper


# Fields.


def test_changed_fields_are_fields():
    """No config has a misspelled field, which ConfigDict would accept silently."""
    for name, config in CONFIGS.items():
        assert isinstance(config, ConfigDict)
        assert set(dict(fields(config))) <= set(KNOWN), name
    shared = dict(fields(demo.get_config()))
    plain = {re.sub(r"^arms\.[^.]*\.", "", field) for field in shared}
    assert plain == set(KNOWN)
