"""Models come from the Hugging Face format and go back to it with the same bits and meaning."""

import copy
import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from configs import default
from models import hf
from models.transformer import bind
from models.tree import Trunk, forward
from rlp.data.compass import CompassStream
from rlp.evaluation import generation
from rlp.interop import huggingface
from rlp.interop.huggingface import verify
from rlp.run import export_model, import_model, opened_model, prompts
from rlp.run.method import build_method
from rlp.runtime.config_json import save_config
from rlp.runtime.errors import UserError
from rlp.tokenizers.build_files import word_level_files
from rlp.tokenizers.load import load_tokenizer
from rlp.training.checkpoint import Checkpoints
from tests.support import folders, tiny
from tests.support import hf as theirs
from tests.support.runs import Crash, crash_at

CPU = jax.devices("cpu")[0]
ROWS, USED = theirs.BASE["vocab_size"], len(folders.WORDS)
GB = 10**9


def opened(name: Path | str) -> opened_model.Opened:
    return opened_model.open_model(str(name), default.get_config(), CPU)


def imported(folder: Path, out: Path, **options) -> opened_model.Opened:
    return import_model.import_model(str(folder), out, default.get_config(), **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(name, dtype) -> the folder of a model of `tests.support.hf`, saved by transformers once."""
    made: dict[tuple[str, str], Path] = {}

    def save(name: str, dtype: str = "float32") -> Path:
        if (name, dtype) not in made:
            torch = pytest.importorskip("torch")
            folder = tmp_path_factory.mktemp("theirs") / name
            copy.deepcopy(theirs.their_model(name)).to(getattr(torch, dtype)).save_pretrained(
                folder
            )
            for file, content in folders.word_files().items():
                (folder / file).write_text(content)
            (folder / "generation_config.json").write_text(json.dumps(folders.GENERATION))
            made[name, dtype] = folder
        return made[name, dtype]

    return save


def loaded(folder: Path):
    """A folder as transformers loads it, in float32."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()


@tiny.jit
def all_logits(model, trunk: Trunk) -> jax.Array:
    return model.logits(forward(model, trunk))


def our_logits(model, params, tokens: np.ndarray) -> np.ndarray:
    place = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None], tokens.shape)
    trunk = Trunk(jnp.asarray(tokens, jnp.int32), jnp.ones_like(place), place)
    return np.asarray(all_logits(bind(model, params), trunk))


def assert_same_logits(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.std(expected) > 0.5
    assert np.abs(found - expected).max() <= 1e-5 * (expected.max() - expected.min())


# Every family, there and back.


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


def without_dtype(config: hf.Json) -> hf.Json:
    return {name: x for name, x in config.items() if name not in ("dtype", "torch_dtype")}


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
    draw = np.random.default_rng(1)
    for length in (1, 5, 40):
        prompt = draw.integers(0, ROWS, length).tolist()
        found = list(generation.continuation(ours.method.model, ours.params, prompt, 64))
        # Each is the likeliest after those before it: what generate does, in one pass.
        logits = theirs.their_logits(model, np.array([prompt + found]))[0]
        assert found == logits[length - 1 : -1].argmax(axis=-1).tolist()
        if length == 5:
            with torch.no_grad():
                whole = model.generate(
                    torch.tensor([prompt]), do_sample=False, max_new_tokens=64, eos_token_id=None
                )
            assert found == whole[0, length:].tolist()


# --verify says the same.


def compared(ours: opened_model.Opened, folder: Path, tokens: int) -> list[verify.Comparison]:
    """A prompt of three tokens, by transformers from a folder and by us."""
    prompt = verify.Prompt("w7 w30", [1, 7, 30])
    theirs_now = verify.Theirs(folder)
    return verify.compare(
        theirs_now, ours.method.model, ours.params, [prompt], tokens, theirs_now.ends
    )


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


# Rows of the embedding, and the logits' matrix.


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


# Tokens that an import adds.

TEXTS = ["w9 w10 w69", "<bos> w9 <think> w30 </think> w31 <eos>", "unknown w8", ""]


def two_names(count: int) -> list[str]:
    return [f"<|{i}|>" for i in range(count)]


@pytest.mark.parametrize("like", ["mean", "w17"])
@pytest.mark.parametrize("count", [2, ROWS - USED, ROWS - USED + 1])
@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_new_tokens_have_rows_of_their_own_and_change_no_other(name, count, like, saved, tmp_path):
    before, names = opened(saved(name)), two_names(count)
    imported(saved(name), tmp_path / "run", new_tokens=names, like=like)
    after = opened(tmp_path / "run")
    old, new = before.method.tokenizer, after.method.tokenizer
    ids = [new.encode(token) for token in names]
    assert ids == [[USED + i] for i in range(count)]
    assert new.decode(ids[-1]) == names[-1]
    between = f"w9{names[0]}w10 {names[-1]}"
    assert new.encode(between) == [
        old.encode("w9")[0],
        USED,
        old.encode("w10")[0],
        USED + count - 1,
    ]
    for text in TEXTS:
        assert new.encode(text) == old.encode(text)
    assert (new.bos, new.eos, new.pad, new.separator) == (old.bos, old.eos, old.pad, old.separator)
    # The 96 rows are enough for 26 more tokens; then there are as many as a multiple of 64.
    size = ROWS if count <= ROWS - USED else 128
    assert after.method.model == dataclasses.replace(before.method.model, vocab_size=size)
    leaves = {"embedding": lambda p: p["embedding"]}
    if name == "llama":
        leaves["head"] = lambda p: p["head"]["kernel"].T
    for pick in leaves.values():
        given, found = np.asarray(pick(before.params)), np.asarray(pick(after.params))
        assert found.shape == (size, given.shape[1])
        assert found[:USED].tobytes() == given[:USED].tobytes()
        begin = given[:USED].mean(axis=0) if like == "mean" else given[old.encode(like)[0]]
        for row in found[USED : USED + count]:
            assert row.tobytes() == found[USED].tobytes()
            assert np.allclose(row, begin, rtol=1e-5, atol=1e-7)
        untouched = slice(USED + count, ROWS)
        assert found[untouched].tobytes() == given[untouched].tobytes()
        assert not np.any(found[max(ROWS, USED + count) :])
    others = lambda p: {name: x for name, x in p.items() if name not in ("embedding", "head")}
    folders.assert_same_bits(others(after.params), others(before.params))


def test_an_import_with_new_tokens_is_exported_with_them(saved, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = saved("llama")
    imported(folder, tmp_path / "run", new_tokens=two_names(30))
    export_model.export_model(opened(tmp_path / "run"), tmp_path / "out", "float32", GB)
    theirs_now = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs_now.encode("w9 <|29|>", add_special_tokens=False) == [9, USED + 29]
    assert theirs_now.model_max_length == 4321
    assert (
        theirs_now.apply_chat_template([{"role": "user", "content": "w9"}], tokenize=False) == "w9"
    )
    read = lambda path: json.loads((path / "generation_config.json").read_text())
    assert read(tmp_path / "out") == read(folder) == folders.GENERATION
    given, written = folders.config_json(folder), folders.config_json(tmp_path / "out")
    grown = dict(given, vocab_size=128)
    assert hf.read_config(written) == hf.read_config(grown)
    for field in ("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings"):
        assert written[field] == given[field]
    tokens = np.random.default_rng(2).integers(0, USED + 30, (2, 20))
    ours = opened(tmp_path / "run")
    assert_same_logits(
        our_logits(ours.method.model, ours.params, tokens),
        theirs.their_logits(loaded(tmp_path / "out"), tokens),
    )


def test_tags_of_several_tokens_become_one_each(tmp_path):
    pytest.importorskip("transformers")
    folder = folders.write(tmp_path / "m", files=folders.byte_files(tags=False))
    before = opened(folder).method
    assert before.tokenizer.think_open == tuple(b"<think>")
    assert before.vocabulary.think_close == tuple(b"</think>")
    result = imported(folder, tmp_path / "run", new_tokens=["<think>", "</think>"])
    after = opened(tmp_path / "run").method
    for method in (result.method, after):
        assert (method.tokenizer.think_open, method.tokenizer.think_close) == ((259,), (260,))
        assert (method.vocabulary.think_open, method.vocabulary.think_close) == ((259,), (260,))
    assert "<think> is token 259, </think> is token 260" in opened_model.describe(result)[1]
    text = "a<think>b</think>"
    assert before.tokenizer.encode(text) == list(text.encode())
    assert after.tokenizer.encode(text) == [97, 259, 98, 260]


def test_what_an_import_returns_is_what_opening_its_folder_gives(saved, tmp_path):
    for number, names in enumerate(([], two_names(3))):
        run = tmp_path / str(number)
        made = imported(saved("qwen3"), run, new_tokens=names)
        again = opened(run)
        folders.assert_same_bits(made.params, again.params)
        assert made.config.to_dict() == again.config.to_dict()
        assert made.method.model == again.method.model
        assert (made.step, made.files) == (again.step, again.files)
        for place, one in (("made", made), ("again", again)):
            export_model.export_model(one, run / place, "float32", GB)
        found, expected = folders.below(run / "made"), folders.below(run / "again")
        assert found.keys() == expected.keys()
        assert {name for name in found if found[name] != expected[name]} == {"rlp.json"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"new_tokens": ["<a>", "<think>"]}, "'<think>' cannot be added: it is token 3"),
        ({"new_tokens": ["w9"]}, "'w9' cannot be added: it is token 9"),
        ({"new_tokens": [""]}, "'' cannot be added: it is empty"),
        ({"new_tokens": ["<a>"], "like": "w9 w10"}, "'w9 w10' is not one token"),
        ({"new_tokens": ["<a>"], "like": "nothing"}, "'nothing' is not one token"),
    ],
)
def test_tokens_that_cannot_be_added_are_refused_and_nothing_is_left(
    options, said, saved, tmp_path
):
    before = folders.below(saved("qwen3"))
    with pytest.raises(UserError, match=said):
        imported(saved("qwen3"), tmp_path / "run", **options)
    assert not list(tmp_path.iterdir())
    assert folders.below(saved("qwen3")) == before


# What an import refuses, and leaves behind.


def test_an_import_takes_no_folder_that_exists(saved, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="exists already"):
        imported(saved("qwen3"), tmp_path / "run")
    assert [*tmp_path.rglob("*")] == [tmp_path / "run"]


def test_an_import_takes_models_and_no_runs(saved, tmp_path):
    imported(saved("qwen3"), tmp_path / "run")
    before = folders.below(tmp_path)
    for name in ("run", "run@0"):
        with pytest.raises(UserError, match=r"is the folder of a run"):
            imported(tmp_path / name, tmp_path / "other")
    assert folders.below(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2' is not supported"),
        ({"hidden_act": "relu"}, "hidden_act='relu' is not supported"),
        ({"attention_bias": True}, "attention_bias=True is not supported, only False"),
        ({"hidden_size": None}, "it lacks hidden_size, which is null"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_type='longrope' is not supported"),
    ],
)
def test_an_unsupported_config_is_refused_by_folder_and_field(changes, said, saved, tmp_path):
    folder = shutil.copytree(saved("qwen3"), tmp_path / "m")
    config = folders.config_json(folder) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        imported(folder, tmp_path / "new" / "run")
    assert str(caught.value).startswith(f"{folder / 'config.json'}: ")
    assert said in str(caught.value)
    assert [*tmp_path.iterdir()] == [folder]


def test_fields_that_change_nothing_are_reported_once_and_exported(saved, tmp_path, caplog):
    folder = shutil.copytree(saved("llama"), tmp_path / "m")
    extra = {"router_bias": 3, "internal_version": "v2", "sep_token_id": None, "prefix": None}
    config = folders.config_json(folder) | extra
    (folder / "config.json").write_text(json.dumps(config))
    with caplog.at_level("INFO", logger="rlp"):
        imported(folder, tmp_path / "run", new_tokens=two_names(30))
        run = opened(tmp_path / "run")
    told = [m for m in (record.getMessage() for record in caplog.records) if "router_bias" in m]
    assert len(told) == 1
    assert told[0].endswith("kept for exports: internal_version, prefix, router_bias")
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
    said = "model.layers.2.mlp.down_proj.weight has 2 of 3840 values that are not finite, the first"
    assert str(caught.value).startswith(f"{said} at [1, 3] (nan); ")
    assert [*tmp_path.iterdir()] == [folder]


@pytest.mark.parametrize("moment", [1, -1])
def test_an_interrupted_import_leaves_nothing_and_can_be_done_again(moment, saved, tmp_path):
    with crash_at(Checkpoints, "save", moment), pytest.raises(Crash):
        imported(saved("qwen3"), tmp_path / "run")
    assert not list(tmp_path.iterdir())
    # What a killed one leaves is taken away by the next.
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


# Runs made here, from nothing.


def untrained(out: Path, **changes) -> Path:
    """The folder of a run that has random parameters and has taken no step."""
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
    """(our tokenizer, theirs) of an exported run of bytes."""
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


# What real folders have of their own.


def test_a_special_token_beyond_the_rows_is_left_alone_until_a_text_holds_it(tmp_path):
    """Gemma 3's tokenizer has a token for images that its models of text have no row for."""
    files = folders.byte_files()
    told = json.loads(files["tokenizer.json"])
    told["added_tokens"].append(told["added_tokens"][-1] | {"id": 261, "content": "<image>"})
    files |= {"tokenizer.json": json.dumps(told)}
    folder = folders.write(tmp_path / "m", files=files, vocab_size=261)
    tokenizer = opened(folder).method.tokenizer
    assert tokenizer.vocab_size == 261
    assert tokenizer.encode("plain <think>")
    with pytest.raises(UserError, match="'<image>' is 261, and the embedding has 261 rows"):
        tokenizer.encode("a picture: <image>")
    with pytest.raises(UserError, match="'<image>' is 261"):
        tokenizer.encode_all(["plain", "<image>"])
    with pytest.raises(UserError, match="'<image>' is 261"):
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
    kept = {"add_bos_token": True, "legacy": False}
    decoder = {"4": {"content": "</think>", "special": True}}
    told = json.dumps(old | kept | {"added_tokens_decoder": decoder})
    folder = folders.write(tmp_path / "m", files=files | {"tokenizer_config.json": told})
    run = imported(folder, tmp_path / "run", new_tokens=["<a>", "<b>"])
    found = (
        folders.config_json(folder),
        json.loads((run.files / "tokenizer_config.json").read_text()),
    )
    assert {**found[1], "added_tokens_decoder": decoder} == json.loads(told)
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
    told = folders.GENERATION | {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}
    (folder / "generation_config.json").write_text(json.dumps(told))
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
        told = json.loads((tmp_path / "out" / file).read_text())
        assert (told["eos_token_id"], told["pad_token_id"], told["bos_token_id"]) == (9, 8, 1)


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
    with pytest.raises(UserError, match="empty, and the tokenizer puts nothing before"):
        prompts.prompt_ids(bare, "")


def test_a_jax_without_a_cpu_is_named(monkeypatch):
    def none(platform):
        raise RuntimeError(f"Unknown backend {platform}")

    monkeypatch.setattr(jax, "devices", none)
    with pytest.raises(UserError, match="JAX_PLATFORMS=<accelerator>,cpu"):
        opened_model.conversion_device()
