"""A model that is opened on a mesh generates what it does on one device."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import default
from configs.default import Config
from models.sharding import make_mesh
from rlp.capacity.device_memory import DoesNotFit, Limits
from rlp.evaluation.generation.generator import Request, Sampling
from rlp.interop import init_from
from rlp.run import export_model, memory_check, opened_model, prompts, resume
from rlp.run.method import build_method
from rlp.run.model import Model
from rlp.run.text_generation import build_generator, context
from rlp.runtime.errors import UserError
from tests.support import chats, runs

GB = 10**9
TEXTS = ("w7 w9 w12", "w20", "w7 w9 w12", "w30 w8 w8 w41 w66")
SIZES = {"data": 2, "fsdp": 2, "tensor": 2}


def opened(name, **sizes) -> opened_model.Opened:
    mesh = make_mesh(**sizes, devices=jax.devices()[: int(np.prod([*sizes.values(), 1]))])
    return opened_model.open_model(str(name), default.get_config(), mesh)


@pytest.fixture(scope="module")
def one(saved):
    return opened(saved("llama3"), data=1)


def test_its_parameters_are_sharded_and_its_responses_those_of_one_device(saved, one):
    on_mesh = opened(saved("llama3"), **SIZES)
    embedding = on_mesh.params["embedding"]
    rows, width = embedding.shape
    assert embedding.sharding.shard_shape(embedding.shape) == (rows // 2, width // 2)
    requests = [
        Request(
            tuple(prompts.prompt_ids(one, text)),
            12,
            Sampling(0.8, top_p=0.9),
            seed,
            ends=prompts.stop_ids(one),
        )
        for seed, text in enumerate(TEXTS)
    ]
    actual, expected = (build_generator(x).generate(requests) for x in (on_mesh, one))
    assert [response.tokens for response in actual] == [response.tokens for response in expected]
    assert [response.text for response in actual] == [response.text for response in expected]
    model = Model(one)
    for seed, (text, response) in enumerate(zip(TEXTS, actual, strict=True)):
        same = model.generate(text, 12, temperature=0.8, top_p=0.9, seed=seed)
        assert response.text == same
    assert len({response.text for response in actual}) > 2


def test_the_context_is_that_of_its_config(saved, one):
    generator = build_generator(one)
    assert generator.context == 512
    (response,) = generator.generate([Request((3,) * 510, 2)])
    assert len(response.tokens) == 2
    with pytest.raises(UserError, match="more than the 512 tokens of the model's context"):
        generator.generate([Request((3,) * 510, 3)])
    assert build_generator(dataclasses.replace(one, files=None)).context is None


def test_the_context_of_a_run_without_a_config_is_that_of_its_export(one):
    run = dataclasses.replace(one, files=None, step=3)
    fields = export_model._hf_config(run, "float32", {})[1]
    assert build_generator(run).context == fields["max_position_embeddings"]


@pytest.mark.parametrize("value", ["512", 0, 1.5, True, [512]])
def test_a_context_that_is_no_number_of_tokens_is_refused(one, tmp_path, value):
    for source in one.files.iterdir():
        if source.name != "config.json":
            (tmp_path / source.name).symlink_to(source)
    config = json.loads((one.files / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": value}))
    with pytest.raises(UserError, match="config.json: max_position_embeddings=.* is not a whole"):
        build_generator(dataclasses.replace(one, files=tmp_path))


def test_a_config_without_a_context_has_no_limit(one, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert context(dataclasses.replace(one, files=tmp_path)) is None


def test_a_mesh_that_does_not_divide_the_model_is_refused(saved):
    with pytest.raises(UserError, match=r"not a multiple of mesh\.tensor=5"):
        opened(saved("llama3"), tensor=5)


def test_only_a_share_of_sharded_parameters_must_fit(one):
    model, used = one.method.model, one.method.tokenizer.vocab_size
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(one.params))
    limits = Limits(whole * 6 // 10, "a chip", 16 * GB)
    check = lambda mesh: memory_check.check_parameters("it", model, used, mesh, limits)
    check(make_mesh(1, 2, 1, devices=jax.devices()[:2]))
    for mesh in (one.mesh, make_mesh(2, 1, 1, devices=jax.devices()[:2])):
        with pytest.raises(DoesNotFit, match="the model it needs at least"):
            check(mesh)


def test_truncation_by_one_token_is_greedy(one):
    model = Model(one)
    greedy = model.generate(TEXTS[0], 12, temperature=0)
    assert model.generate(TEXTS[0], 12, temperature=5.0, top_k=1) == greedy
    assert model.generate(TEXTS[0], 12, temperature=5.0, top_p=1e-6) == greedy
    assert model.generate(TEXTS[0], 12, temperature=5.0) != greedy


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"top_p": 0.0}, "top_p=0.0; it must be above 0"), ({"top_k": -1}, "top_k=-1; it must be 0")],
)
def test_truncation_that_leaves_nothing_is_refused(one, setting, message):
    with pytest.raises(UserError, match=message):
        Model(one).generate(TEXTS[0], 12, **setting)


def test_the_ends_beside_another_tokenizer_remain_when_the_run_has_begun(tmp_path):
    base, workdir = chats.model(tmp_path / "base"), tmp_path / "run"
    fields = {"init_from": str(base), "data.tokenizer": "bytes"}
    config = init_from.adopt(runs.config(runs.TEXT, fields), workdir)
    ends = []
    for _ in range(2):
        files = init_from.files_for(config, workdir)
        method = build_method(Config.of(config), files)
        run = opened_model.Opened("run", config, method, {}, chats.CPU, 0, files)
        ends.append((prompts.stop_ids(run), export_model.exported_files(run)))
        resume.begin(config, method, files, workdir)
    assert ends[0] == ends[1]
    assert ends[0][0] == (method.tokenizer.eos,)
