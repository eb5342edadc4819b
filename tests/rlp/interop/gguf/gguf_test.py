"""A model in a GGUF file is converted exactly, or is refused with the key or tensor at fault."""

import dataclasses
import logging
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from models import hf
from models.rope import Rope
from models.tree import Trunk
from rlp.interop import huggingface
from rlp.interop.gguf import header, rope
from rlp.interop.huggingface import verify
from rlp.run import export_model, import_model, opened_model
from rlp.runtime.errors import UserError
from tests.support import folders, gguf_files
from tests.support.paths import ROOT

pytest.importorskip("gguf")

CPU = opened_model.conversion_mesh()
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
PROMPT = np.random.default_rng(1).integers(0, 259, 40).tolist()


def opened(path: Path) -> opened_model.Opened:
    return opened_model.open_model(str(path), default.get_config(), CPU)


def logits(found: opened_model.Opened, ids=PROMPT) -> np.ndarray:
    exact = dataclasses.replace(found.method.model, compute_dtype="float32")
    place = jnp.arange(len(ids), dtype=jnp.int32)[None]
    trunk = Trunk(jnp.asarray([ids]), jnp.ones_like(place), place)
    return np.asarray(jax.jit(verify._logits, static_argnums=0)(exact, found.params, trunk))[0]


def their_model(folder: Path, **options):
    torch = pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **options
    ).eval()


def logits_of(model, ids=PROMPT) -> np.ndarray:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def their_logits(folder: Path, **options) -> np.ndarray:
    return logits_of(their_model(folder, **options))


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * (expected.max() - expected.min())


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        huggingface.find(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A function (architecture, kinds) -> GGUF file, which is written once."""
    made: dict = {}

    def write(architecture: str, *kinds: str) -> Path:
        if (architecture, kinds) not in made:
            path = tmp_path_factory.mktemp("gguf") / "model.gguf"
            made[architecture, kinds] = gguf_files.write(path, architecture, kinds=kinds)
        return made[architecture, kinds]

    return write


# Tensors.


@pytest.mark.parametrize("kinds", [("F32",), gguf_files.MIXED])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_those_of_transformers(architecture, kinds, written):
    path = written(architecture, *kinds)
    expected = their_logits(path.parent, gguf_file=path.name)
    assert_close(logits(opened(path)), expected)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float32_tensors_are_those_that_were_converted(architecture, tied, tmp_path):
    values = gguf_files.tensors(architecture, tied=tied)
    folder = huggingface.find(str(gguf_files.write(tmp_path / "m.gguf", architecture, values)))
    fields = gguf_files.config_of(folder)
    assert fields["tie_word_embeddings"] is tied
    with huggingface.folder.open_weights(folder / "model.gguf") as file:
        assert set(file.keys()) == set(values)
        for name, x in values.items():
            tolerance = 1e-6 if architecture == "gemma3" and "norm" in name else 0
            np.testing.assert_allclose(file.get_tensor(name), x, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_1", "IQ4_NL", "MXFP4", "Q6_K"])
def test_every_kind_is_turned_into_the_numbers_that_the_package_says(kind, tmp_path):
    gguf = gguf_files.package()
    number = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[number]
    rows, width = 5, 512
    raw = np.random.default_rng(0).integers(0, 60, (rows, width // block * size), np.uint8)
    (tmp_path / "x").write_bytes(b"head" + raw.tobytes())
    entry = header.Entry("x", tmp_path / "x", kind, (rows, width), 4, raw.size)
    found = header.numbers(entry)
    expected = gguf.quants.dequantize(raw, number)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_large_tensors_are_dequantized_in_pieces(tmp_path, monkeypatch):
    gguf = gguf_files.package()
    raw = np.random.default_rng(0).integers(0, 60, (7, 18 * 9), np.uint8)
    (tmp_path / "x").write_bytes(raw.tobytes())
    entry = header.Entry("x", tmp_path / "x", "Q4_0", (7, 288), 0, raw.size)
    monkeypatch.setattr(header, "PIECE", 100)
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType.Q4_0)
    np.testing.assert_array_equal(header.numbers(entry), expected)


def test_a_split_model_is_read_from_any_of_its_parts(tmp_path, written):
    gguf_files.write(tmp_path / "m.gguf", "llama", split=7)
    parts = sorted(tmp_path.glob("m-*.gguf"))
    assert len(parts) > 2
    expected = opened(written("llama", "F32")).params
    for part in (parts[0], parts[-1]):
        folders.assert_same_bits(opened(part).params, expected)
    parts[1].rename(tmp_path / "elsewhere.gguf")
    assert f"but {parts[1].name} not found" in refusal(parts[0])
    assert "restore the original file names" in refusal(tmp_path / "elsewhere.gguf")


def test_an_import_is_a_run_and_its_export_is_the_model(tmp_path, written):
    path = shutil.copy(written("gemma3", *gguf_files.MIXED), tmp_path / "m.gguf")
    expected = logits(opened(Path(path)))
    assert huggingface.quantization(str(path)).split(", ")[0] in gguf_files.MIXED
    run = import_model.import_model(str(path), tmp_path / "run", default.get_config())
    path.unlink()
    kept = tmp_path / "run/hf"
    assert {x.name for x in kept.iterdir()} == {
        *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
    }
    assert gguf_files.config_of(kept)["architectures"] == ["Gemma3ForCausalLM"]
    assert run.method.tokenizer.eos == 1
    found = opened(tmp_path / "run")
    np.testing.assert_array_equal(logits(found), expected)
    export_model.export_model(found, tmp_path / "out", "float32", 2**30)
    assert_close(logits(opened(tmp_path / "out")), expected)
    assert_close(their_logits(tmp_path / "out"), expected)


# Metadata.


def config(tmp_path: Path, architecture: str, changes=None, **options) -> dict:
    path = gguf_files.write(tmp_path / "m.gguf", architecture, changes=changes, **options)
    return gguf_files.config_of(huggingface.find(str(path)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scaling.type": "linear", "scaling.factor": 8.0}, {"rope_type": "linear", "factor": 8.0}),
        ({"scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"scaling.type": "none", "scaling.factor": 8.0}, None),
        ({"scaling.type": "linear", "scaling.factor": 1.0}, None),
        (
            {
                "scaling.type": "yarn",
                "scaling.factor": 4.0,
                "scaling.original_context_length": 128,
                "scaling.yarn_beta_fast": 16.0,
            },
            {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 128,
                "beta_fast": 16.0,
            },
        ),
    ],
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scaling_of_positions_is_read(architecture, changes, expected, tmp_path):
    named = {f"{architecture}.rope.{key}": value for key, value in changes.items()}
    assert config(tmp_path, architecture, named)["rope_scaling"] == expected


@pytest.mark.parametrize(
    ("theta", "head_dim", "factor", "length", "high"),
    [
        (5e5, 128, 8.0, 8192, 4.0),  # Llama 3.1
        (5e5, 64, 32.0, 8192, 4.0),  # Llama 3.2
        (1e4, 16, 8.0, 32, 4.0),
        (5e5, 128, 6.5, 6000, 3.25),
    ],
)
def test_the_scaling_of_llama_3_is_found_from_its_factors(theta, head_dim, factor, length, high):
    scaled = Rope(
        theta, scaling="llama3", factor=factor, original_length=length, high_frequency_factor=high
    )
    expected = scaled.frequencies(head_dim, local=False)
    plain = Rope(theta).frequencies(head_dim, local=False)
    factors = (plain / expected).astype(np.float32).astype(np.float64)
    found = rope.of_factors(factors, theta, head_dim)
    assert found["rope_type"] == "llama3"
    again = Rope(
        theta,
        scaling="llama3",
        factor=found["factor"],
        original_length=found["original_max_position_embeddings"],
        low_frequency_factor=found["low_freq_factor"],
        high_frequency_factor=found["high_freq_factor"],
    )
    np.testing.assert_allclose(again.frequencies(head_dim, local=False), expected, rtol=1e-6)


def test_rotary_factors_in_a_file_are_used(tmp_path):
    plain = Rope(1e4).frequencies(128, local=False)
    scaled = Rope(1e4, scaling="llama3", factor=8.0, original_length=256)
    factors = (plain / scaled.frequencies(128, local=False)).astype(np.float32)
    write = lambda name, x: gguf_files.write(
        tmp_path / f"{name}.gguf", "llama", extra={"rope_freqs.weight": x}
    )
    found = opened(write("scaled", factors)).method.model.rope
    np.testing.assert_allclose(
        found.frequencies(128, local=False), scaled.frequencies(128, local=False), rtol=1e-6
    )
    ones = gguf_files.config_of(huggingface.find(str(write("ones", np.ones(64, np.float32)))))
    assert ones["rope_scaling"] is None
    for name, wrong in (
        ("other", factors[::-1].copy()),
        ("short", factors[:32]),
        ("nan", factors * np.float32(np.nan)),
    ):
        assert "factors in rope_freqs.weight are not a supported scaling" in refusal(
            write(name, wrong)
        )


def test_the_embedding_determines_the_vocabulary_size(tmp_path):
    values = gguf_files.tensors("qwen3", rows=320)
    assert config(tmp_path, "qwen3", {"qwen3.vocab_size": 300}, values=values)["vocab_size"] == 320


def test_a_llama_with_a_window_is_a_mistral(tmp_path):
    fields = config(tmp_path, "llama", {"llama.attention.sliding_window": 64})
    assert (fields["model_type"], fields["sliding_window"]) == ("mistral", 64)
    fields = config(tmp_path, "llama", {"llama.attention.sliding_window": 512})
    assert fields["model_type"] == "llama"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"query_pre_attn_scalar": 256, "sliding_window_pattern": 6}),
        ({"attention.scale": 168**-0.5}, {"query_pre_attn_scalar": 168}),
        ({"attention.sliding_window_pattern": 3}, {"sliding_window_pattern": 3}),
        (
            {"attention.sliding_window_pattern": [True, False] * 3},
            {"layer_types": ["sliding_attention", "full_attention"] * 3},
        ),
        ({"rope.freq_base_swa": 2e4}, {"rope_local_base_freq": 2e4}),
        ({"final_logit_softcapping": 30.0}, {"final_logit_softcapping": 30.0}),
    ],
)
def test_what_only_gemma_has_is_read(changes, expected, tmp_path):
    named = {f"gemma3.{key}": value for key, value in changes.items()}
    assert config(tmp_path, "gemma3", named).items() >= expected.items()


def test_a_text_ends_with_its_eos_and_with_the_end_of_a_turn(tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf", "qwen3")
    generation = huggingface.find(str(path)) / "generation_config.json"
    assert '"eos_token_id": [\n    1,\n    2\n  ]' in generation.read_text()


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("llama", {"llama.expert_count": 8}, "llama.expert_count=8 changes the computation and"),
        ("qwen3", {"qwen3.attention.causal": False}, "qwen3.attention.causal=False"),
        ("llama", {"llama.attn_logit_softcapping": 50.0}, "llama.attn_logit_softcapping=50.0"),
        ("llama", {"llama.final_logit_softcapping": 50.0}, "llama.final_logit_softcapping=50.0"),
        ("gemma3", {"gemma3.attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        ("llama", {"llama.logit_scale": 0.5}, "llama.logit_scale=0.5"),
        ("llama", {"llama.rope.dimension_count": 64}, "dimension_count=64 is not the width of a"),
        ("llama", {"llama.attention.value_length": 64}, "value_length=64 is not the width of a"),
        ("qwen3", {"qwen3.rope.scaling.type": "longrope"}, "rope.scaling.type='longrope' is not"),
        ("qwen3", {"qwen3.rope.scaling.attn_factor": 2.0}, "qwen3.rope.scaling.attn_factor=2.0"),
        ("qwen2", {"qwen2.attention.sliding_window": 64}, "sliding_window=64 is not supported"),
        ("llama", {"llama.attention.scale": 0.5}, "llama.attention.scale=0.5 is not 1/sqrt(128)"),
        ("gemma3", {"gemma3.attention.scale": 0.3}, "attention.scale=0.3 is not 1/sqrt of a"),
        (
            "gemma3",
            {"gemma3.attention.sliding_window": None},
            "gemma3.attention.sliding_window is missing",
        ),
        ("gemma3", {"gemma3.rope.freq_base": None}, "key gemma3.rope.freq_base is missing"),
        (
            "gemma3",
            {"gemma3.attention.sliding_window_pattern": [True]},
            "a list of true or false for 6 layers",
        ),
        ("llama", {"llama.attention.head_count_kv": [1, 2]}, "=[1, 2] differs between layers"),
        (
            "llama",
            {"llama.attention.layer_norm_rms_epsilon": None},
            "llama.attention.layer_norm_rms_epsilon is m",
        ),
        ("llama", {"llama.block_count": 3}, "missing: model.layers.2.input_layernorm.weight"),
        ("llama", {"llama.block_count": 1}, "unexpected: blk.1.attn_k.weight"),
        ("llama", {"llama.feed_forward_length": 256}, "misshapen: blk.0.ffn_down.weight is"),
        (
            "llama",
            {"general.type": "adapter"},
            "general.type='adapter' and is not a complete model",
        ),
        ("phi3", {}, "general.architecture='phi3' is not supported; use one of llama, qwen2"),
        ("llama", {"tokenizer.ggml.model": None}, "has no tokenizer"),
        ("llama", {"tokenizer.ggml.model": "bert"}, "tokenizer.ggml.model='bert' is not supported"),
        ("llama", {"tokenizer.ggml.pre": "chatglm"}, "tokenizer.ggml.pre='chatglm' is not suppor"),
        ("llama", {"tokenizer.ggml.eos_token_id": 999}, "eos_token_id=999 is not one of the 300"),
    ],
)
def test_what_would_be_computed_differently_is_refused_by_name(
    architecture, changes, message, tmp_path
):
    values = gguf_files.tensors("llama") if architecture == "phi3" else None
    path = gguf_files.write(tmp_path / "m.gguf", architecture, values, changes)
    error = refusal(path)
    assert message in error
    assert str(path) in error


def test_keys_without_effect_are_logged_in_one_line(tmp_path, caplog):
    changes = {
        "llama.expert_count": 0,
        "llama.attention.causal": True,
        "llama.rope.scaling.finetuned": False,
        "llama.my_own": 3,
        "general.my_own": "x",
    }
    path = gguf_files.write(tmp_path / "m.gguf", "llama", changes=changes)
    with caplog.at_level(logging.INFO, "rlp"):
        huggingface.find(str(path))
    lines = [line for line in caplog.messages if "ignored" in line]
    assert lines == [f"{path} has metadata keys that are ignored: llama.my_own"]


def test_biases_that_the_family_lacks_are_refused(tmp_path):
    extra = {"blk.0.attn_q.bias": np.zeros(256, np.float32)}
    path = gguf_files.write(tmp_path / "m.gguf", "llama", extra=extra)
    assert "unexpected: blk.0.attn_q.bias" in refusal(path)


# Damaged files.


def test_a_file_that_is_truncated_anywhere_is_refused_with_one_line(tmp_path, written):
    whole = written("llama", "Q8_0").read_bytes()
    path = tmp_path / "m.gguf"
    for size in (4, 5, 20, 40, 1000, 5000, len(whole) // 2, len(whole) - 4000):
        path.write_bytes(whole[:size])
        error = refusal(path)
        assert "is truncated" in error
        assert str(path) in error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a git-lfs pointer"),
        (b"PK\x03\x04" * 9, "is not a GGUF file"),
        (b"GGU", "is not a GGUF file"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "gguf-convert-endian"),
        (
            b"GGUF" + struct.pack("<III", 1, 0, 0),
            "has GGUF version 1, but only 2 and 3 are supported",
        ),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + b"\xff" * 40, "is truncated or damaged"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + b"\x63" * 40, "unknown type"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"\xff" + b"\0" * 9, "is damaged"),
    ],
)
def test_a_file_that_is_not_complete_is_refused(content, message, tmp_path):
    (tmp_path / "m.gguf").write_bytes(content)
    assert message in refusal(tmp_path / "m.gguf")


def test_a_missing_file_is_not_looked_up_on_the_hub():
    assert refusal(Path("models/gone.gguf")) == "no such file: models/gone.gguf"


def test_a_kind_that_the_package_cannot_read_is_named(tmp_path, monkeypatch):
    path = gguf_files.write(tmp_path / "m.gguf", "llama", kinds=("Q4_0", "F32"))
    monkeypatch.setattr("rlp.interop.gguf.folder.can_dequantize", lambda kind: kind != "Q4_0")
    error = refusal(path)
    assert "token_embd.weight is Q4_0, which the installed gguf cannot dequantize" in error


def test_a_folder_with_one_model_in_gguf_is_that_model(tmp_path, written):
    gguf_files.write(tmp_path / "m.gguf", "llama", split=7)
    folders.assert_same_bits(opened(tmp_path).params, opened(written("llama", "F32")).params)
    shutil.copy(written("qwen3", "F32"), tmp_path / "q.gguf")
    assert "contains several GGUF files; pass one of them: m-00001-of" in refusal(tmp_path)


def test_a_folder_with_a_config_and_a_gguf_file_is_refused_with_the_name_of_the_file(
    tmp_path, written
):
    folder = huggingface.find(str(written("llama", "F32")))
    for file in (*folder.glob("*.json"), written("llama", "F32")):
        shutil.copy(file, tmp_path / file.name)
    (tmp_path / "model.gguf").rename(tmp_path / "a.gguf")
    with pytest.raises(UserError, match=r"pass the GGUF file: .*a\.gguf"):
        opened(tmp_path)


def test_a_file_that_changes_is_read_again(tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf", "llama")
    first = huggingface.find(str(path))
    assert huggingface.find(str(path)) == first
    gguf_files.write(path, "qwen3")
    assert gguf_files.config_of(huggingface.find(str(path)))["model_type"] == "qwen3"


def test_without_the_package_one_line_says_what_to_install(written, monkeypatch):
    path = written("llama", "F32")
    monkeypatch.setitem(sys.modules, "gguf", None)
    header._read.cache_clear()
    with pytest.raises(UserError, match="pip install -r requirements-gguf.txt"):
        header.read(path)


def test_torch_is_not_needed(written):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from rlp.interop import huggingface\n"
        f"print(huggingface.find({str(written('llama', 'F32'))!r}).name)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "model\n"), ran.stderr


def test_every_architecture_has_a_family():
    from rlp.interop.gguf.config import MODEL_TYPES

    assert set(MODEL_TYPES.values()) < set(hf.BY_NAME)
