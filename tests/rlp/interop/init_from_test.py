"""A run takes over architecture, tokenizer and parameters of the run or model it starts from."""

import copy
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import default
from models.config import HOW
from rlp.interop import init_from
from rlp.run import experiment, export_model, import_model, loop, method, opened_model
from rlp.runtime import run_folder
from rlp.runtime.config_json import fields, save_config
from rlp.runtime.errors import UserError
from rlp.training.trainers import RLPTrainer
from tests.support import folders, runs
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device")

CPU = opened_model.conversion_mesh()
COMPUTE = {
    "compute_dtype": "bfloat16",
    "remat": "block",
    "attention": "xla",
    "state_dtype": "bfloat16",
}
PLAIN = {"compute_dtype": "float32", "remat": "none", "attention": "", "state_dtype": "float32"}


def config(**changes) -> ConfigDict:
    built = default.get_config()
    built.update_from_flattened_dict(changes)
    return built


def flat(built: ConfigDict) -> dict:
    return dict(fields(built))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A byte-level model in the Hugging Face format."""
    return folders.write(tmp_path_factory.mktemp("theirs") / "model", 3)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return runs.text_file(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def base(tmp_path_factory, text, one_device):  # noqa: F811
    """A finished run with several checkpoints, whose config names a tokenizer."""
    workdir = tmp_path_factory.mktemp("runs") / "base"
    loop.train(runs.config(runs.TEXT, text, {"data.tokenizer": "bytes"}), workdir, report=False)
    return workdir


# Names that `find` accepts.


def test_a_run_is_found_with_any_of_its_steps(base):
    saved = runs.steps(base)
    assert len(saved) > 1
    expected = {"": saved[-1]} | {f"@{step}": step for step in saved}
    shapes = opened_model.open_model(str(base), default.get_config(), CPU)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes.params)
    for which, step in expected.items():
        found = init_from.find(f"{base}{which}")
        params, loaded, description = found.load(abstract)
        assert loaded == step
        assert description == f"step {step} of {base}{which}"
        assert runs.bits(params) == runs.bits(runs.checkpoint(base, step)["params"])
        assert found.files is None
        assert found.tokens == {"tokenizer": "bytes", "bos": "", "eos": "", "separator": ""}
        assert found.config.to_dict() == json.loads((base / "config.json").read_text())
    best = init_from.find(f"{base}@best").load(abstract)[1]
    losses = {x["step"]: x.get("evaluation/document_loss") for x in runs.metrics(base)}
    losses[7] = json.loads((base / "evaluation.json").read_text())["document_loss"]
    losses = {step: loss for step, loss in losses.items() if loss is not None}
    assert best == min(losses, key=losses.get)


def test_a_model_is_found_by_its_folder(model):
    found = init_from.find(str(model))
    network = init_from.network(dict(found.model) | PLAIN)
    assert network == folders.network()
    assert (found.config, found.files) == (None, model)
    assert set(found.tokens.values()) == {""}
    opened = opened_model.open_model(str(model), default.get_config(), CPU)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), opened.params
    )
    params, step, description = found.load(abstract)
    assert (step, description) == (None, f"{model} (Qwen3ForCausalLM)")
    folders.assert_same_bits(params, opened.params)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "no such folder: gone; a name on the hub"),
        ("gone@3", "no such folder: gone@3"),
        ("./gone", "no such folder: ./gone"),
        ("", "no such folder"),
        ("file", "file is a file; pass the folder"),
        ("empty", "empty has no checkpoint; train that run first"),
        ("empty@3", "empty has no checkpoint"),
        ("model@3", "model@3: model is not a run"),
        ("both", "both is an experiment; name one of its runs: both/arm"),
        ("run@77", "run has no checkpoint of step 77; name one of "),
        ("run@last", "use a step or `best` after the @, not 'last'"),
        ("other", "other/config.json: model_type='gpt2' is not supported"),
    ],
)
def test_what_does_not_exist_is_named(name, message, base, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "both").mkdir()
    shutil.copytree(model, tmp_path / "model")
    for folder in ("run", "both/arm"):
        shutil.copytree(base, tmp_path / folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError) as caught:
        init_from.find(name).load({})
    assert message in str(caught.value)


# Fields that a config takes over.


def network_of(built: ConfigDict) -> dict:
    return {name: x for name, x in built.model.to_dict().items() if name not in HOW}


def test_nothing_to_start_from_changes_nothing(tmp_path):
    given = config()
    before = flat(given)
    assert init_from.adopt(given, tmp_path) is given
    assert flat(given) == before


def test_a_model_determines_architecture_and_tokenizer_but_not_compute_fields(model, tmp_path):
    given = config(init_from=str(model), **{f"model.{name}": x for name, x in COMPUTE.items()})
    before = flat(given)
    adopted = init_from.adopt(given, tmp_path / "run")
    assert flat(given) == before
    assert not (tmp_path / "run").exists()
    assert {name: adopted.model[name] for name in HOW} == COMPUTE
    fields_of = dataclasses.asdict(folders.network())
    assert network_of(adopted) == {n: x for n, x in fields_of.items() if n not in HOW}
    assert adopted.data.tokenizer == ""
    assert init_from.files_for(adopted, tmp_path / "run") == model
    rest = lambda built: {name: x for name, x in flat(built).items() if "model." not in name}
    assert rest(adopted) == rest(given)
    again = init_from.adopt(adopted, tmp_path / "run")
    assert flat(again) == flat(adopted)


def test_a_run_determines_architecture_and_tokenizer(base, tmp_path):
    saved = json.loads((base / "config.json").read_text())
    saved["data"] |= {"tokenizer": "some folder", "bos": "none", "separator": "<|sep|>"}
    saved["model"] |= COMPUTE
    other = shutil.copytree(base, tmp_path / "base")
    save_config(ConfigDict(saved), other / "config.json")
    adopted = init_from.adopt(config(init_from=str(other)), tmp_path / "run")
    assert network_of(adopted) == network_of(ConfigDict(saved))
    tokens = lambda built: [built.data[name] for name in init_from.TOKENS]
    assert tokens(adopted) == ["some folder", "none", "", "<|sep|>"]
    assert {name: adopted.model[name] for name in HOW} == {
        name: config().model[name] for name in HOW
    }
    # A separator in the config is kept; with another tokenizer, the names of the base do not apply.
    changes = {"init_from": str(other), "data.separator": "<|end|>"}
    assert tokens(init_from.adopt(config(**changes), tmp_path)) == [
        "some folder",
        "none",
        "",
        "<|end|>",
    ]
    changes["data.tokenizer"] = "another"
    assert tokens(init_from.adopt(config(**changes), tmp_path)) == ["another", "", "", "<|end|>"]


def test_a_config_with_the_same_architecture_is_unchanged(base, tmp_path):
    given = ConfigDict(json.loads((base / "config.json").read_text()))
    given.init_from = str(base)
    everything = [path for path, _ in fields(given.model, "model.")]
    assert flat(init_from.adopt(given, tmp_path, explicit=everything)) == flat(given)


@pytest.mark.parametrize("field", ["model.num_layers", "model.rope.theta", "model.vocab_size"])
def test_an_explicit_field_may_agree_but_not_contradict(field, model, tmp_path):
    adopted = init_from.adopt(config(init_from=str(model)), tmp_path)
    value = flat(adopted)[field]
    agreeing = config(init_from=str(model), **{field: value})
    assert flat(init_from.adopt(agreeing, tmp_path, explicit=[field])) == flat(adopted)
    other = config(init_from=str(model), **{field: value + 1})
    assert flat(init_from.adopt(other, tmp_path)) == flat(adopted)
    with pytest.raises(UserError) as caught:
        init_from.adopt(other, tmp_path, explicit=["steps", field])
    assert str(caught.value).startswith(f"{field}={value + 1!r}, but {model} has {value!r}; leave")
    how = config(init_from=str(model), **{f"model.{name}": x for name, x in COMPUTE.items()})
    init_from.adopt(how, tmp_path, explicit=[f"model.{name}" for name in HOW])


@pytest.mark.parametrize("fate", ["deleted", "another"])
def test_a_run_that_has_started_keeps_what_it_started_with(fate, model, tmp_path):
    source, workdir = shutil.copytree(model, tmp_path / "model"), tmp_path / "run"
    given = config(init_from=str(source))
    begun = init_from.adopt(given, workdir)
    init_from.copy_files(init_from.files_for(begun, workdir), workdir)
    save_config(begun, workdir / "config.json")
    kept = folders.below(workdir / run_folder.HF)
    shutil.rmtree(source)
    if fate == "another":
        folders.write(source, num_layers=1, hidden_size=16, files=folders.byte_files(tags=False))
    assert flat(init_from.adopt(given, workdir)) == flat(begun)
    assert init_from.files_for(given, workdir) == workdir / run_folder.HF
    assert kept == {n: x for n, x in folders.below(model).items() if n in kept}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} == set(kept)
    wrong = config(init_from=str(source), **{"model.num_layers": 3})
    with pytest.raises(UserError, match=r"model\.num_layers=3, but .* has 1; leave it"):
        init_from.adopt(wrong, workdir, explicit=["model.num_layers"])


def test_a_planned_run_takes_over_from_another_planned_run(model, tmp_path):
    """A chain of three runs, none of which has started."""
    pending: dict[str, ConfigDict] = {}
    chain = [{"init_from": str(model)}, {"init_from": str(tmp_path / "a")}]
    chain.append({"init_from": f"{tmp_path / 'b'}@best", "data.eos": "<eos>"})
    for name, changes in zip("abc", chain, strict=True):
        workdir = tmp_path / name
        adopted = init_from.adopt(config(**changes), workdir, (), pending)
        assert init_from.files_for(adopted, workdir, pending) == model
        pending[str(workdir)] = adopted
    direct = init_from.adopt(config(init_from=str(model)), tmp_path / "d")
    for adopted in pending.values():
        assert network_of(adopted) == network_of(direct)
    assert [one.data.eos for one in pending.values()] == ["", "", "<eos>"]
    wrong = config(init_from=str(tmp_path / "c"), **{"model.ffn_size": 7})
    with pytest.raises(UserError, match=r"model\.ffn_size=7, but .*/c has 32"):
        init_from.adopt(wrong, tmp_path / "d", ["model.ffn_size"], pending)


# Runs that start from a model.

STEPS = {"steps": 3, "evaluation.every": 0, "checkpoint.every": 1}


def rlp_config(text, source, *changes) -> ConfigDict:
    return runs.config(runs.TEXT_RLP, text, STEPS, {"init_from": str(source)}, *changes)


@pytest.fixture(scope="module")
def from_model(model, text, tmp_path_factory, one_device):  # noqa: F811
    """A finished RLP run from the model, and the state of its first step."""
    pytest.importorskip("transformers")
    workdir = tmp_path_factory.mktemp("from_model") / "run"
    first, step = [], RLPTrainer.step

    def spy(self, state, *rest):
        first.append(jax.tree.map(np.array, (state.params, state.baseline, state.step)))
        return step(self, state, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RLPTrainer, "step", spy)
        loop.train(rlp_config(text, model), workdir, report=False)
    return workdir, first[0]


def outcome_without_source(workdir) -> dict:
    """Return the outcome of a run without the name of its source."""
    found = runs.outcome(workdir)
    return found | {"config": {**found["config"], "init_from": ""}}


def test_a_run_begins_with_exactly_the_parameters_of_its_model(from_model, model):
    workdir, (params, baseline, step) = from_model
    expected = runs.bits(opened_model.open_model(str(model), default.get_config(), CPU).params)
    assert runs.bits(params) == runs.bits(baseline) == expected
    assert int(step) == 0
    assert runs.bits(runs.checkpoint(workdir)["params"]) != expected
    kept = folders.below(workdir / run_folder.HF)
    given = folders.below(model)
    ids = json.loads(
        kept.pop("generation_config.json")
    )  # from config.json, since the model has no generation_config.json
    assert ids == {name: json.loads(given["config.json"])[name] for name in ids}
    assert "eos_token_id" in ids
    assert kept == {name: x for name, x in given.items() if name in kept}
    assert set(given) - set(kept) == {"model.safetensors", "rlp.json"}


def test_a_run_from_an_import_is_the_run_from_the_model(from_model, model, text, tmp_path):
    workdir, _ = from_model
    import_model.import_model(str(model), tmp_path / "imported", default.get_config())
    loop.train(rlp_config(text, tmp_path / "imported"), tmp_path / "run", report=False)
    assert outcome_without_source(tmp_path / "run") == outcome_without_source(workdir)
    assert folders.below(tmp_path / "run/hf") == folders.below(workdir / "hf")


def test_a_run_resumes_without_the_model_it_started_from(from_model, model, text, tmp_path):
    workdir, _ = from_model
    source = shutil.copytree(model, tmp_path / "model")
    given = rlp_config(text, source)
    for moment in (1, 3):  # before the first checkpoint the model is still needed
        with crash_at(RLPTrainer, "step", moment), pytest.raises(Crash):
            loop.train(copy.deepcopy(given), tmp_path / "run", report=False)
    shutil.rmtree(source)
    loop.train(given, tmp_path / "run", report=False)
    assert outcome_without_source(tmp_path / "run") == outcome_without_source(workdir)


def test_a_trained_run_is_exported_in_the_form_of_its_model(from_model, model, tmp_path):
    workdir, _ = from_model
    opened = opened_model.open_model(str(workdir), default.get_config(), CPU)
    export_model.export_model(opened, tmp_path / "out", "float32", 10**9)
    assert folders.config_json(tmp_path / "out") == folders.config_json(model) | {
        "torch_dtype": "float32"
    }
    names = ("tokenizer.json", "tokenizer_config.json")
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (model / name).read_bytes()
    again = opened_model.open_model(str(tmp_path / "out"), default.get_config(), CPU)
    assert runs.bits(again.params) == runs.bits(runs.checkpoint(workdir)["params"])
    assert again.method.model == opened.method.model


@pytest.mark.slow  # compiles for tags of that length
def test_a_model_whose_tags_are_many_tokens_is_trained(text, tmp_path):
    pytest.importorskip("transformers")
    model = folders.write(tmp_path / "model", files=folders.byte_files(tags=False))
    given = rlp_config(text, model, {"steps": 2, "rlp.thought_length": 10})
    with crash_at(RLPTrainer, "step", -2) as calls, pytest.raises(Crash):
        loop.train(given, tmp_path / "run", report=False)
    assert len(calls) == 2
    built = method.build_method(init_from.adopt(given, tmp_path / "run"), tmp_path / "run/hf")
    assert (len(built.vocabulary.think_open), len(built.vocabulary.think_close)) == (7, 8)
    (line,) = runs.metrics(tmp_path / "run")
    assert all(np.isfinite(value) for value in line.values())
    assert line["skipped_updates"] == 0
    assert line["thought_length"] > 0
    assert runs.steps(tmp_path / "run") == [1]
    before = opened_model.open_model(str(model), default.get_config(), CPU).params
    after = runs.checkpoint(tmp_path / "run", 1)["params"]
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after)
    assert moved["embedding"]


def test_arms_in_a_chain_have_the_model_of_the_first(model, text, tmp_path):
    pytest.importorskip("transformers")
    given = runs.config(runs.TEXT_RLP, text, STEPS, {"steps": 1})
    arms = {
        "rlp": {"init_from": "base"},
        "base": {"init_from": str(model), "objective": "next_token"},
    }
    given.arms = ConfigDict(arms)
    wrong = copy.deepcopy(given)
    wrong.model.num_heads = 9
    wrong.arms.base["model"] = {"num_heads": 2}
    with pytest.raises(UserError, match=r"arm rlp: model\.num_heads=9, but .*/base has 2"):
        experiment.run(wrong, tmp_path / "wrong", explicit=["model.num_heads"])
    assert not (tmp_path / "wrong").exists()
    with crash_at(RLPTrainer, "step", 1) as calls, pytest.raises(Crash):
        experiment.run(given, tmp_path / "run")
    ((_, state, _, _),) = calls
    for arm in arms:
        saved = ConfigDict(json.loads((tmp_path / "run" / arm / "config.json").read_text()))
        assert init_from.network(saved.model.to_dict()) == folders.network()
        assert folders.below(tmp_path / "run" / arm / "hf").keys() >= {"tokenizer.json"}
    expected = runs.checkpoint(tmp_path / "run/base", 1)["params"]
    assert runs.bits(state.params) == runs.bits(expected)


def test_a_run_without_a_checkpoint_may_start_from_another_model(model, base, tmp_path):
    """It was killed before its first checkpoint and then started from another model."""
    workdir = tmp_path / "run"
    first = init_from.adopt(config(init_from=str(model)), workdir)
    init_from.copy_files(init_from.files_for(first, workdir), workdir)
    save_config(first, workdir / "config.json")
    other = folders.write(tmp_path / "other", hidden_size=16, files=folders.byte_files(tags=False))
    changed = config(init_from=str(other))
    assert init_from.adopt(changed, workdir).model.hidden_size == 16
    assert init_from.files_for(changed, workdir) == other
    init_from.copy_files(init_from.files_for(changed, workdir), workdir)
    tokenizer = (workdir / run_folder.HF / "tokenizer.json").read_bytes()
    assert tokenizer == (other / "tokenizer.json").read_bytes()
    assert init_from.files_for(config(init_from=str(base)), workdir) is None
    init_from.copy_files(None, workdir)
    assert not (workdir / run_folder.HF).exists()


def test_a_run_with_a_checkpoint_keeps_its_files(from_model, base, tmp_path):
    workdir = shutil.copytree(from_model[0], tmp_path / "run")
    changed = config(init_from=str(base))
    assert init_from.files_for(changed, workdir) == workdir / run_folder.HF
    saved = init_from.adopt(config(init_from=str(workdir)), tmp_path / "new")
    assert flat(init_from.adopt(changed, workdir).model) == flat(saved.model)


def test_an_arm_may_start_from_a_name_on_the_hub(tmp_path):
    arms = {"b": config(init_from=str(tmp_path / "a")), "a": config(init_from="owner/name")}
    assert experiment.arm_order(arms, tmp_path) == ["a", "b"]
    (tmp_path / "m.gguf").touch()
    arms = {"a": config(init_from=str(tmp_path / "m.gguf"))}
    assert experiment.arm_order(arms, tmp_path / "runs") == ["a"]
    with pytest.raises(
        UserError, match="arm a builds on owner, which is neither a folder nor an arm"
    ):
        experiment.arm_order({"a": config(init_from="owner")}, tmp_path)


# A run without steps.


def test_a_run_without_steps_has_the_parameters_and_metrics_of_its_source(base, text, tmp_path):
    """Its checkpoint has the same parameters; starting from it is the same as from its source."""
    changes = (runs.TEXT, text, {"data.tokenizer": "bytes", "init_from": str(base)})
    found = loop.train(runs.config(*changes, {"steps": 0}), tmp_path / "none")
    before = json.loads((base / "evaluation.json").read_text())
    counts = {"step", "steps", "wall_s", "skipped_updates"}
    measured = {name for name in before if not name.startswith(("seconds_", "tokens_", "flops"))}
    for name in measured - counts:
        assert found[name] == before[name], name
    assert (found["step"], found["steps"], found["flops"], found["seconds_device"]) == (0, 0, 0, 0)
    assert runs.steps(tmp_path / "none") == [0]
    assert runs.metrics(tmp_path / "none") == []
    same = lambda run: runs.bits(runs.checkpoint(run)["params"])
    assert same(tmp_path / "none") == same(base)
    assert (tmp_path / "none" / "report.html").exists()
    assert len(json.loads((tmp_path / "none" / "thoughts.json").read_text())["documents"]) == 1

    other = runs.config(*changes, {"steps": 2, "evaluation.every": 0})
    loop.train(other, tmp_path / "direct", report=False)
    other.init_from = f"{tmp_path / 'none'}@best"
    loop.train(other, tmp_path / "through", report=False)
    assert same(tmp_path / "through") == same(tmp_path / "direct")
