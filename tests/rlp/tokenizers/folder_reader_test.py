"""The classes that load tokenizers are those that AutoTokenizer of transformers chooses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlp.tokenizers import folder_reader
from rlp.tokenizers.folder_reader import AUTO, CLASSES, FIXED, NAMED
from tests.support import real_models
from tests.support.bpe_folder import CORPUS, make_folder
from tests.support.paths import ROOT


def edit(file: Path, **fields) -> None:
    """Set fields of a JSON file, which may not exist."""
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | fields))


def auto(folder: Path):
    """Load a tokenizer as AutoTokenizer does."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False, model_max_length=2**62
    )


def encoded(tokenizer, text):
    """Return the ids of a text, or the error if the vocabulary does not suit the class."""
    try:
        return tokenizer(text)["input_ids"]
    except Exception as error:  # noqa: BLE001  the tokenizers library raises Exception itself
        return str(error)


def assert_same(folder: Path, texts) -> None:
    """Check that both ways of loading give one tokenizer."""
    ours, theirs = folder_reader.read_folder(str(folder)), auto(folder)
    assert type(ours) is type(theirs)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.added_tokens_decoder == theirs.added_tokens_decoder
    assert ours.init_kwargs == theirs.init_kwargs
    assert ours.chat_template == theirs.chat_template
    for text in texts:
        assert encoded(ours, text) == encoded(theirs, text)


@pytest.mark.parametrize("kind", [*NAMED, *FIXED])
@pytest.mark.parametrize("named", CLASSES)
def test_a_folder_is_loaded_as_by_auto_tokenizer(named, kind, tmp_path):
    folder = Path(make_folder(tmp_path, eos_token="</s>", bos_token="<s>", unk_token="<unk>"))
    edit(folder / "tokenizer_config.json", tokenizer_class=named, add_bos_token=True)
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0]['content'] }}")
    if kind:
        edit(folder / "config.json", model_type=kind)
    assert folder_reader.loading_class(folder) != AUTO
    assert_same(folder, [*CORPUS, "", "<s>a</s> b<think>"])


@pytest.mark.parametrize(
    ("model", "config"),
    [
        ({"model_type": "mistral"}, {}),
        ({"model_type": "of_tomorrow"}, {}),
        ({"model_type": "llama", "auto_map": {"AutoConfig": "code.Config"}}, {}),
        ({}, {"auto_map": {"AutoTokenizer": [None, "code.Tokenizer"]}}),
        ({}, {"tokenizer_class": "LlamaTokenizer"}),
        ({}, {"tokenizer_class": None}),
    ],
    ids=str,
)
def test_auto_tokenizer_loads_what_the_table_does_not_cover(model, config, tmp_path):
    folder = Path(make_folder(tmp_path, eos_token="</s>"))
    edit(folder / "config.json", **model)
    edit(folder / "tokenizer_config.json", **config)
    assert folder_reader.loading_class(folder) == AUTO


def test_a_folder_without_tokenizer_json_is_left_to_auto_tokenizer(tmp_path):
    folder = Path(make_folder(tmp_path, eos_token="</s>"))
    (folder / "tokenizer.json").unlink()
    assert folder_reader.loading_class(folder) == AUTO


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_real_tokenizers_are_loaded_as_by_auto_tokenizer(name):
    folder = getattr(real_models, name)().run / "hf"
    assert folder_reader.loading_class(folder) != AUTO
    assert_same(
        folder, ["The capital of France is", " a space", "日本の首都は", "12 345\n\n\ttabs"]
    )


def test_sampling_imports_neither_torch_nor_pallas(tmp_path):
    """Each takes a second or a part of it, and neither is needed on a CPU."""
    folder = make_folder(tmp_path, eos_token="</s>")
    code = (
        "import sys, launch.sample, rlp.run.model\n"
        "from rlp.tokenizers.load import load_tokenizer\n"
        f"tokenizer = load_tokenizer({folder!r})\n"
        "assert tokenizer.decode(tokenizer.encode('north')) == 'north'\n"
        "print(sorted({'torch', 'jax.experimental.pallas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
