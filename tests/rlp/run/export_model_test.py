"""Exports of runs trained from scratch."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from configs import default
from rlp.data.compass import CompassStream
from rlp.run import export_model
from rlp.run.method import build_method
from rlp.runtime.config_json import save_config
from rlp.runtime.errors import UserError
from rlp.training.checkpoint import Checkpoints
from tests.support import folders, tiny
from tests.support import hf as theirs
from tests.support.exchanged import GB, assert_same_logits, loaded, opened, our_logits


def untrained(out: Path, **changes) -> Path:
    """Write the folder of a run with random parameters and 0 steps."""
    config = default.get_config()
    config.update_from_flattened_dict(
        {"model.hidden_size": 32, "model.num_layers": 1, "rlp.prompt": "none"} | changes
    )
    params = tiny.params(build_method(config).model)
    out.mkdir()
    save_config(config, out / "config.json")
    with Checkpoints(out / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(0, {"params": params})
    return out


def their_tokenizer(folder: Path):
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


def assert_named_alike(ours, exported) -> None:
    named = [getattr(exported, f"{role}_token_id") for role in ("bos", "eos", "pad")]
    assert named == [*ours.bos, ours.eos, ours.pad]
    assert exported("")["input_ids"] == list(ours.bos)
    for tag, ids in (("<think>", ours.think_open), ("</think>", ours.think_close)):
        assert exported.encode(tag, add_special_tokens=False) == list(ids)


@pytest.fixture(scope="module")
def of_bytes(tmp_path_factory):
    """Return (our tokenizer, transformers' tokenizer) of an exported byte-level run."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bytes")
    run = opened(untrained(folder / "run"))
    export_model.export_model(run, folder / "out", "float32", GB)
    return run.method.tokenizer, their_tokenizer(folder / "out")


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])) | st.text("aé 日👩‍🔬\n\t<>/"))
def test_exported_bytes_encode_and_decode_any_text_as_ours_do(of_bytes, text):
    ours, exported = of_bytes
    ids = exported.encode(text, add_special_tokens=False)
    for name in ("<pad>", "<bos>", "<eos>", "<think>", "</think>"):
        assume(name not in text)
    assert ids == ours.encode(text)
    assert exported.decode(ids) == text


@settings(deadline=None)
@given(st.lists(st.sampled_from(range(261))))
def test_exported_bytes_decode_any_ids_as_ours_do(of_bytes, ids):
    ours, exported = of_bytes
    assert exported.decode(ids, skip_special_tokens=False) == ours.decode(ids)


def test_exported_bytes_have_our_special_tokens(of_bytes):
    ours, exported = of_bytes
    assert_named_alike(ours, exported)
    assert exported.encode("é<think>a</think><eos>", add_special_tokens=False) == [
        *(195, 169, *ours.think_open, 97, *ours.think_close, ours.eos)
    ]


def test_an_exported_compass_has_our_words(tmp_path):
    pytest.importorskip("transformers")
    run = opened(untrained(tmp_path / "run", **{"data.kind": "compass"}))
    export_model.export_model(run, tmp_path / "out", "float32", GB)
    ours, exported = run.method.tokenizer, their_tokenizer(tmp_path / "out")
    assert_named_alike(ours, exported)
    everything = list(range(ours.vocab_size))
    text = ours.decode(everything)
    assert exported.encode(text, add_special_tokens=False) == ours.encode(text) == everything
    batch = CompassStream(0, 64, thought_share=0.5).batch(0, 20)
    for row, segment in zip(batch.tokens, batch.segment, strict=True):
        ids = row[segment > 0].tolist()
        assert exported.encode(ours.decode(ids), add_special_tokens=False) == ids
        assert exported.decode(ids) == ours.decode(ids)


def test_a_run_made_here_is_exported_with_its_weights_and_tokens(tmp_path):
    pytest.importorskip("torch")
    run = opened(untrained(tmp_path / "run"))
    export_model.export_model(run, tmp_path / "out", "float32", GB)
    model = loaded(tmp_path / "out")
    tokens = np.random.default_rng(0).integers(0, 261, (2, 30))
    found = our_logits(run.method.model, run.params, tokens)
    assert_same_logits(found, theirs.their_logits(model, tokens))
    ids = {"bos_token_id": 257, "eos_token_id": 258, "pad_token_id": 256}
    for config in (model.config, model.generation_config):
        assert {name: getattr(config, name) for name in ids} == ids
    again = opened(tmp_path / "out")
    assert again.method.model == run.method.model
    folders.assert_same_bits(again.params, run.params)
    assert json.loads((tmp_path / "out/rlp.json").read_text())["config"] == run.config.to_dict()


def test_a_network_that_no_family_has_is_refused_by_its_fields(tmp_path):
    run = opened(untrained(tmp_path / "run", **{"model.logit_softcap": 5.0}))
    with pytest.raises(UserError, match=r"run cannot be exported: .*model\.logit_softcap=5\.0"):
        export_model.export_model(run, tmp_path / "out", "float32", GB)
    assert [*tmp_path.iterdir()] == [tmp_path / "run"]
