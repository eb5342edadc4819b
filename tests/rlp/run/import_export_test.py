"""Round trips from the Hugging Face format and back preserve every bit and the behavior."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from models import hf
from rlp.evaluation.generation import single as generation
from rlp.interop.huggingface import verify
from rlp.run import export_model
from rlp.runtime.errors import UserError
from tests.support import folders
from tests.support import hf as theirs
from tests.support.exchanged import (
    GB,
    ROWS,
    USED,
    assert_same_logits,
    compared,
    imported,
    loaded,
    opened,
    our_logits,
    without_dtype,
)

# Round trips of every family.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@theirs.every_model
def test_transformers_computes_from_an_export_what_we_do(name, dtype, saved, tmp_path):
    ours = opened(saved(name))
    family = export_model.export_model(ours, tmp_path / "out", dtype, GB)
    again = loaded(tmp_path / "out")
    assert type(again).__name__ == family.architecture == type(theirs.their_model(name)).__name__
    tokens = np.random.default_rng(0).integers(0, ROWS, (2, 40))
    expected = theirs.their_logits(again, tokens)
    params = export_model.round_trip(ours.params, dtype)
    assert_same_logits(our_logits(ours.method.model, params, tokens), expected)
    exact = theirs.their_logits(theirs.their_model(name), tokens)
    assert np.array_equal(expected, exact) == (dtype == "float32")


@theirs.every_model
def test_import_and_export_keep_every_bit(name, saved, tmp_path):
    folder = saved(name)
    imported(folder, tmp_path / "run")
    run = opened(tmp_path / "run")
    model = theirs.their_model(name)
    config = hf.read_config(theirs.config_json(model))
    assert run.method.model == config
    assert run.step == 0
    folders.assert_same_bits(run.params, theirs.parameters(model, config))
    export_model.export_model(run, tmp_path / "out", "float32", GB)
    folders.assert_same_bits(folders.tensors(tmp_path / "out"), folders.tensors(folder))
    again = opened(tmp_path / "out")
    assert again.method.model == config
    folders.assert_same_bits(again.params, run.params)


@theirs.every_model
def test_a_bfloat16_model_comes_back_as_it_was(name, saved, tmp_path):
    folder = saved(name, "bfloat16")
    imported(folder, tmp_path / "run")
    export_model.export_model(opened(tmp_path / "run"), tmp_path / "out", "bfloat16", 20_000)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    found, expected = folders.tensors(tmp_path / "out"), folders.tensors(folder)
    assert {x.dtype for x in expected.values()} == {jnp.dtype("bfloat16")}
    folders.assert_same_bits(found, expected)
    given, written = folders.config_json(folder), folders.config_json(tmp_path / "out")
    assert without_dtype(written) == without_dtype(given)
    assert written["torch_dtype"] == "bfloat16"
    for file in (*folders.word_files(), "generation_config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (folder / file).read_bytes()


@theirs.every_model
def test_greedy_continuations_are_those_of_transformers(name, saved):
    torch = pytest.importorskip("torch")
    ours, model = opened(saved(name)), theirs.their_model(name)
    rng = np.random.default_rng(1)
    for length in (1, 5, 40):
        prompt = rng.integers(0, ROWS, length).tolist()
        found = list(generation.continuation(ours.method.model, ours.params, prompt, 64))
        # Each token is the most likely one given those before it: greedy decoding in one pass.
        logits = theirs.their_logits(model, np.array([prompt + found]))[0]
        assert found == logits[length - 1 : -1].argmax(axis=-1).tolist()
        if length == 5:
            with torch.no_grad():
                whole = model.generate(
                    torch.tensor([prompt]), do_sample=False, max_new_tokens=64, eos_token_id=None
                )
            assert found == whole[0, length:].tolist()


# The verification of an export.


def test_verify_passes_an_export_and_not_one_with_another_weight(saved, tmp_path):
    ours = opened(saved("qwen2"))
    export_model.export_model(ours, tmp_path / "out", "float32", GB)
    (result,) = compared(ours, tmp_path / "out", 12)
    assert result.same_text
    assert result.error < 1e-5
    assert (result.agreed, result.asked) == (12, 12)
    changed = folders.tensors(tmp_path / "out")
    changed["model.layers.1.self_attn.v_proj.weight"][:, 3] += 0.05
    save_file(changed, tmp_path / "out/model.safetensors", metadata={"format": "pt"})
    (result,) = compared(ours, tmp_path / "out", 12)
    assert not result.same_text
    assert result.error > verify.TOLERANCE


@pytest.mark.slow
def test_verify_corrects_the_least_step_of_transformers(saved, tmp_path):
    """It fails when transformers follows `time_step_limit`; `verify` then has nothing to do."""
    folder = shutil.copytree(saved("nemotron_h"), tmp_path / "m")
    fields = folders.config_json(folder) | {"time_step_min": 0.5}
    (folder / "config.json").write_text(json.dumps(fields))
    ours = opened(folder)
    export_model.export_model(ours, tmp_path / "out", "float32", GB)
    assert folders.config_json(tmp_path / "out")["time_step_min"] == 0.5
    tokens = np.random.default_rng(0).integers(0, ROWS, (1, 40))
    expected = our_logits(ours.method.model, ours.params, tokens)[0]
    spread = expected.max() - expected.min()
    plain = theirs.their_logits(loaded(tmp_path / "out"), tokens)[0]
    assert np.abs(plain - expected).max() > 10 * verify.TOLERANCE * spread
    corrected = verify.TransformersModel(tmp_path / "out")
    assert "ignores time_step_limit=[0.0, inf] of config.json and uses [0.5" in corrected.corrected
    assert np.abs(corrected.logits(tokens[0].tolist()) - expected).max() < 1e-5 * spread
    (result,) = compared(ours, tmp_path / "out", 12)
    assert result.same_text


@pytest.mark.slow
def test_weights_under_the_names_of_other_files_are_read(saved, tmp_path):
    folder = shutil.copytree(saved("nemotron_h"), tmp_path / "m")
    values = folders.tensors(folder)
    renamed = {name.replace("backbone.", "model."): x for name, x in values.items()}
    assert renamed.keys() != values.keys()
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    folders.assert_same_bits(opened(folder).params, opened(saved("nemotron_h")).params)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_the_language_model_of_a_model_of_images_and_text_is_read_alone(tied, saved, tmp_path):
    """Its vision tower is left out, and its export is that of a language model."""
    transformers = pytest.importorskip("transformers")
    text = theirs.their_model("qwen3_5").config.to_dict() | {"tie_word_embeddings": tied}
    sizes = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    config = transformers.Qwen3_5Config(
        text_config=text,
        vision_config=sizes | {"out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=tied,
    )
    config._attn_implementation = "eager"
    model = theirs.randomized(transformers.Qwen3_5ForConditionalGeneration(config))
    folder = shutil.copytree(saved("qwen3_5"), tmp_path / "m")
    model.save_pretrained(folder)
    names = folders.tensors(folder)
    assert any(name.startswith("model.visual.") for name in names)
    assert ("lm_head.weight" in names) != tied
    values = names | {"mtp.norm.weight": np.ones(3, np.float32)}
    save_file(values, folder / "model.safetensors", metadata={"format": "pt"})
    ours = opened(folder)
    tokens = np.random.default_rng(0).integers(0, ROWS, (2, 40))
    found = our_logits(ours.method.model, ours.params, tokens)
    assert_same_logits(found, theirs.their_logits(model, tokens))
    export_model.export_model(ours, tmp_path / "out", "float32", GB)
    assert folders.config_json(tmp_path / "out")["model_type"] == "qwen3_5_text"
    settings = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "Qwen3_5Tokenizer"
    assert_same_logits(found, theirs.their_logits(loaded(tmp_path / "out"), tokens))
    (result,) = compared(ours, tmp_path / "out", 12)
    assert result.same_text


# Rows of the embedding and the output projection.


def test_rows_that_belong_to_no_token_survive(saved, tmp_path):
    ours = opened(saved("llama"))
    assert (ours.method.tokenizer.vocab_size, ours.method.model.vocab_size) == (USED, ROWS)
    export_model.export_model(ours, tmp_path / "out", "float32", GB)
    found, given = folders.tensors(tmp_path / "out"), folders.tensors(saved("llama"))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert found[name].shape[0] == ROWS
        assert np.array_equal(found[name][USED:], given[name][USED:])
        assert np.any(found[name][USED:])


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_a_tied_matrix_may_stand_in_the_file_if_it_is_the_embedding(name, saved, tmp_path):
    folder = shutil.copytree(saved(name), tmp_path / "m")
    values = folders.tensors(folder)
    assert "lm_head.weight" not in values
    expected = opened(folder)
    values["lm_head.weight"] = values["model.embed_tokens.weight"].copy()
    save_file(values, folder / "model.safetensors", metadata={"format": "pt"})
    folders.assert_same_bits(opened(folder).params, expected.params)
    export_model.export_model(opened(folder), tmp_path / "out", "float32", GB)
    assert "lm_head.weight" not in folders.tensors(tmp_path / "out")
    values["lm_head.weight"][5, 5] += 1
    save_file(values, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="differs from model.embed_tokens.weight"):
        imported(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()
