"""Imports: what they refuse, what they leave behind, and special cases of real folders."""

import dataclasses
import json
import os
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from configs import default
from rlp.interop import huggingface
from rlp.run import export_model, import_model, opened_model, prompts
from rlp.run.method import build_method
from rlp.runtime.errors import UserError
from rlp.tokenizers.build_files import word_level_files
from rlp.tokenizers.load import load_tokenizer
from rlp.training.checkpoint import Checkpoints
from tests.support import folders
from tests.support.exchanged import GB, compared, imported, opened, two_names, without_dtype
from tests.support.runs import Crash, crash_at

# What an import refuses and leaves behind.


def test_an_import_takes_no_folder_that_exists(saved, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="exists already"):
        imported(saved("qwen3"), tmp_path / "run")
    assert [*tmp_path.rglob("*")] == [tmp_path / "run"]


def test_an_import_takes_models_and_no_runs(saved, tmp_path):
    imported(saved("qwen3"), tmp_path / "run")
    before = folders.below(tmp_path)
    for name in ("run", "run@0"):
        with pytest.raises(UserError, match=r"is a run folder, not a model"):
            imported(tmp_path / name, tmp_path / "other")
    assert folders.below(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2' is not supported"),
        ({"hidden_act": "relu"}, "hidden_act='relu' is not supported"),
        ({"attention_bias": True}, "attention_bias=True is not supported, only False"),
        ({"hidden_size": None}, "it lacks hidden_size, which is null"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_type='longrope' is not supported"),
    ],
)
def test_an_unsupported_config_is_refused_by_folder_and_field(changes, message, saved, tmp_path):
    folder = shutil.copytree(saved("qwen3"), tmp_path / "m")
    config = folders.config_json(folder) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        imported(folder, tmp_path / "new" / "run")
    assert str(caught.value).startswith(f"{folder / 'config.json'}: ")
    assert message in str(caught.value)
    assert [*tmp_path.iterdir()] == [folder]


def test_fields_that_change_nothing_are_reported_once_and_exported(saved, tmp_path, caplog):
    folder = shutil.copytree(saved("llama"), tmp_path / "m")
    extra = {"router_bias": 3, "internal_version": "v2", "sep_token_id": None, "prefix": None}
    config = folders.config_json(folder) | extra
    (folder / "config.json").write_text(json.dumps(config))
    with caplog.at_level("INFO", logger="rlp"):
        imported(folder, tmp_path / "run", new_tokens=two_names(30))
        run = opened(tmp_path / "run")
    messages = [m for m in (record.getMessage() for record in caplog.records) if "router_bias" in m]
    assert len(messages) == 1
    assert messages[0].endswith("kept for exports: internal_version, prefix, router_bias")
    export_model.export_model(run, tmp_path / "out", "float32", GB)
    expected = without_dtype(config) | {"vocab_size": 128}
    assert without_dtype(folders.config_json(tmp_path / "out")) == expected


def test_an_import_of_weights_that_are_not_finite_writes_nothing(saved, tmp_path):
    folder = shutil.copytree(saved("qwen3"), tmp_path / "m")
    weights = folders.tensors(folder)
    weights["model.layers.2.mlp.down_proj.weight"][[1, 4], [3, 0]] = np.nan, np.inf
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError) as caught:
        imported(folder, tmp_path / "run")
    message = (
        "model.layers.2.mlp.down_proj.weight has 2 of 3840 values that are not finite, the first"
    )
    assert str(caught.value).startswith(f"{message} at [1, 3] (nan); ")
    assert [*tmp_path.iterdir()] == [folder]


@pytest.mark.parametrize("moment", [1, -1])
def test_an_interrupted_import_leaves_nothing_and_can_be_done_again(moment, saved, tmp_path):
    with crash_at(Checkpoints, "save", moment), pytest.raises(Crash):
        imported(saved("qwen3"), tmp_path / "run")
    assert not list(tmp_path.iterdir())
    # The next import removes what a killed one left behind.
    (tmp_path / f".run.unfinished-{os.getpid()}" / "checkpoints").mkdir(parents=True)
    imported(saved("qwen3"), tmp_path / "run")
    assert [*tmp_path.iterdir()] == [tmp_path / "run"]
    assert opened(tmp_path / "run").step == 0


def test_an_interrupted_export_leaves_nothing(saved, tmp_path):
    ours = opened(saved("qwen3"))
    for moment in (1, -1):
        with crash_at(huggingface.export, "_write_shard", moment), pytest.raises(Crash):
            export_model.export_model(ours, tmp_path / "out", "float32", GB)
        assert not list(tmp_path.iterdir())


# Special cases of real folders.


def test_a_special_token_beyond_the_rows_is_left_alone_until_a_text_holds_it(tmp_path):
    """Gemma 3's tokenizer has an image token without an embedding row in its text models."""
    files = folders.byte_files()
    tokenizer_json = json.loads(files["tokenizer.json"])
    added = tokenizer_json["added_tokens"]
    added.append(added[-1] | {"id": 261, "content": "<image>"})
    files |= {"tokenizer.json": json.dumps(tokenizer_json)}
    folder = folders.write(tmp_path / "m", files=files, vocab_size=261)
    tokenizer = opened(folder).method.tokenizer
    assert tokenizer.vocab_size == 261
    assert tokenizer.encode("plain <think>")
    with pytest.raises(UserError, match="'<image>' has the id 261, but the embedding has 261 rows"):
        tokenizer.encode("a picture: <image>")
    with pytest.raises(UserError, match="'<image>' has the id 261"):
        tokenizer.encode_all(["plain", "<image>"])
    with pytest.raises(UserError, match="'<image>' has the id 261"):
        load_tokenizer(str(folder), eos="<image>", rows=261)
    run = imported(folder, tmp_path / "run", new_tokens=["<new>"])
    assert run.method.tokenizer.encode("<image><new>") == [261, 262]
    assert run.method.model.vocab_size == 320


def test_words_beyond_the_rows_are_refused_at_once(tmp_path):
    folder = folders.write(tmp_path / "m", files=folders.word_files(), vocab_size=64)
    with pytest.raises(UserError, match="model.vocab_size=64 is smaller than the tokenizer's 70"):
        opened(folder)


def test_new_tokens_leave_the_rest_of_a_tokenizer_as_it_was(tmp_path):
    files = folders.word_files()
    old = json.loads(files["tokenizer_config.json"])
    extra = {"add_bos_token": True, "legacy": False}
    decoder = {"4": {"content": "</think>", "special": True}}
    expected = json.dumps(old | extra | {"added_tokens_decoder": decoder})
    folder = folders.write(tmp_path / "m", files=files | {"tokenizer_config.json": expected})
    run = imported(folder, tmp_path / "run", new_tokens=["<a>", "<b>"])
    found = (
        folders.config_json(folder),
        json.loads((run.files / "tokenizer_config.json").read_text()),
    )
    assert {**found[1], "added_tokens_decoder": decoder} == json.loads(expected)
    added = found[1]["added_tokens_decoder"]
    assert {i: x["content"] for i, x in added.items()} == {
        "4": "</think>",
        "70": "<a>",
        "71": "<b>",
    }
    before = json.loads(files["tokenizer.json"])
    after = json.loads((run.files / "tokenizer.json").read_text())
    assert after["model"] == before["model"]
    assert [x["content"] for x in after["added_tokens"][len(before["added_tokens"]) :]] == [
        "<a>",
        "<b>",
    ]


def test_new_tokens_go_into_a_folder_without_a_tokenizer_config(tmp_path):
    files = {"tokenizer.json": folders.byte_files()["tokenizer.json"]}
    folder = folders.write(tmp_path / "m", files=files)
    default_config = default.get_config()
    default_config.data.eos = "<eos>"
    run = import_model.import_model(
        str(folder), tmp_path / "run", default_config, new_tokens=["<a>"]
    )
    (new,) = run.method.tokenizer.encode("<a>")
    assert run.method.tokenizer.encode("a<a>a") == [97, new, 97]


def test_a_generation_config_of_its_own_does_not_disturb_a_comparison(saved, tmp_path):
    folder = shutil.copytree(saved("qwen3"), tmp_path / "m")
    generation = folders.GENERATION | {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    (found,) = compared(opened(folder), folder, 24)
    assert found.same_text


def test_another_tokenizer_brings_its_tokens_into_the_config(saved, tmp_path):
    folder = saved("qwen3")
    run = imported(folder, tmp_path / "run")
    words = tmp_path / "words"
    words.mkdir()
    renamed = {**folders.NAMED, "eos": "w9", "pad": "w8", "unk": "w8"}
    ids = {word: i for i, word in enumerate(folders.WORDS)}
    files = word_level_files(ids, (), (1,), **renamed)
    for name, content in files.items():
        (words / name).write_text(str(content))
    run.config.data.tokenizer = str(words)
    method = build_method(run.config, run.files)
    export_model.export_model(
        dataclasses.replace(run, method=method), tmp_path / "out", "float32", GB
    )
    for file in ("config.json", "generation_config.json"):
        config = json.loads((tmp_path / "out" / file).read_text())
        assert (config["eos_token_id"], config["pad_token_id"], config["bos_token_id"]) == (9, 8, 1)


def test_an_import_of_a_folder_called_as_ours_is_one(saved, tmp_path):
    folder = shutil.copytree(saved("qwen3"), tmp_path / "hf")
    assert imported(folder, tmp_path / "run").step == 0


def test_an_import_that_cannot_be_written_says_so(saved, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written, because .* is a file"):
        imported(saved("qwen3"), tmp_path / "file" / "run")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="exists already"):
        imported(saved("qwen3"), tmp_path / "link")


def test_a_prompt_of_nothing_is_refused(saved):
    run = opened(saved("qwen3"))
    assert prompts.prompt_ids(run, "") == [1]
    run.config.data.bos = "none"
    bare = dataclasses.replace(run, method=build_method(run.config, run.files))
    with pytest.raises(
        UserError, match="the prompt is empty, and the tokenizer does not add a BOS"
    ):
        prompts.prompt_ids(bare, "")


def test_a_jax_without_a_cpu_is_named(monkeypatch):
    def none(platform):
        raise RuntimeError(f"Unknown backend {platform}")

    monkeypatch.setattr(jax, "devices", none)
    with pytest.raises(UserError, match="JAX_PLATFORMS=<accelerator>,cpu"):
        opened_model.conversion_mesh()
