"""An export reflects training: its chat template, the ids that end a turn, where it stops."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from configs import default
from rlp.interop.huggingface import verify
from rlp.run import export_model, import_model, loop, prompts
from rlp.run.method import build_method
from rlp.runtime.errors import UserError
from rlp.tokenizers.turns import end_of_turn
from tests.support import folders
from tests.support.bpe_folder import make_folder
from tests.support.chats import (
    CHATML,
    GB,
    GENERATION,
    NAMED,
    NAMES,
    OLD,
    begun,
    ids_of,
    model,
    opened,
    read,
    sft,
    template,
)
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device")
RLVR = {"objective": "rlvr", "data.problems.train": "x"}
PLAIN_SFT = {"data.sft.share": 1.0, "data.chat_template": "none"}


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        ({}, []),
        ({"objective": "rlp"}, []),
        ({"data.sft.share": 0.5}, ["<|endoftext|>"]),  # which ends a turn of the old template
        (PLAIN_SFT, ["<|endoftext|>"]),
        (PLAIN_SFT | {"data.separator": "<|im_end|>"}, ["<|im_end|>"]),
        ({"data.separator": "<|im_end|>"}, ["<|im_end|>"]),
        ({"data.eos": "<|im_end|>"}, ["<|im_end|>"]),
        (RLVR, ["<|endoftext|>"]),
        (RLVR | {"data.chat_template": "chatml"}, ["<|im_end|>"]),
    ],
)
def test_ends_are_those_of_what_is_trained_on(changes, added, base, number, tmp_path):
    if changes.get("data.chat_template") == "chatml":
        (tmp_path / "my.jinja").write_text(CHATML)
        changes = changes | {"data.chat_template": str(tmp_path / "my.jinja")}
    run = begun(base, tmp_path / "run", **changes)
    assert set(run.method.ends) == {number[name] for name in added}
    export_model.export_model(run, tmp_path / "out", "float32", GB)
    ids = [number[name] for name in dict.fromkeys(["<|endoftext|>", *added])]
    for name in ("config.json", "generation_config.json"):
        expected = ids[0] if len(ids) == 1 else ids
        assert read(tmp_path / "out", name)["eos_token_id"] == expected
        assert read(tmp_path / "run/hf", name)["eos_token_id"] == expected
    if len(ids) == 1:
        for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
    eos = changes.get("data.eos", "<|endoftext|>")
    assert read(tmp_path / "out", "tokenizer_config.json")["eos_token"] == eos


def test_an_end_that_is_a_word_is_not_made_a_special_token(base, tmp_path):
    run = begun(base, tmp_path / "run", **{"data.eos": "."})
    export_model.export_model(run, tmp_path / "out", "float32", GB)
    (dot,) = run.method.tokenizer.encode(".")
    assert dot in read(tmp_path / "out", "generation_config.json")["eos_token_id"]
    assert read(tmp_path / "out", "tokenizer_config.json")["eos_token"] == "<|endoftext|>"


@pytest.mark.parametrize("eos", ["", "<|im_end|>"])
@pytest.mark.parametrize("bos", ["none", "<|im_start|>"])
def test_the_exported_tokenizer_puts_before_a_text_what_training_put(
    bos, eos, base, number, tmp_path
):
    transformers = pytest.importorskip("transformers")
    named = "{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}"
    (tmp_path / "my.jinja").write_text(named)
    changes = {"data.bos": bos, "data.eos": eos, "data.chat_template": str(tmp_path / "my.jinja")}
    run = begun(base, tmp_path / "run", **changes)
    export_model.export_model(run, tmp_path / "out", "float32", GB)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    before = [] if bos == "none" else [number[bos]]
    assert theirs("")["input_ids"] == before
    assert theirs("the moon")["input_ids"] == prompts.prompt_ids(run, "the moon")
    if before:
        assert read(tmp_path / "out", "generation_config.json")["bos_token_id"] == before[0]
    # A template that uses the special tokens gives the same text in training, in the export and
    # after resuming.
    messages = [{"role": "user", "content": "x"}]
    expected = f"{bos if before else ''}x{eos or '<|endoftext|>'}"
    assert theirs.apply_chat_template(messages, tokenize=False) == expected
    assert run.method.tokenizer.chat(messages, named, False) == expected
    again = build_method(run.config, run.files).tokenizer
    assert again.chat(messages, named, False) == expected
    assert (again.bos, again.eos) == (run.method.tokenizer.bos, run.method.tokenizer.eos)


def test_a_bos_that_a_folder_states_is_put_by_its_export(base, number, tmp_path):
    """Also if transformers does not add it for the original folder, whose class it replaces."""
    transformers = pytest.importorskip("transformers")
    stating = tmp_path / "stating"
    shutil.copytree(base, stating)
    path = stating / "tokenizer_config.json"
    stated = {"add_bos_token": True, "bos_token": "<|im_start|>"}
    stated |= {"tokenizer_class": "LlamaTokenizerFast"}
    path.write_text(json.dumps(json.loads(path.read_text()) | stated))
    assert transformers.AutoTokenizer.from_pretrained(stating)("")["input_ids"] == []
    run = begun(stating, tmp_path / "run")
    assert run.method.tokenizer.bos == (number["<|im_start|>"],)
    export_model.export_model(run, tmp_path / "out", "float32", GB)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs("the moon")["input_ids"] == prompts.prompt_ids(run, "the moon")


def test_a_tokenizer_that_another_model_type_reads_otherwise_is_refused(tmp_path):
    """Beside qwen2's config.json transformers takes words for byte-level BPE."""
    words = tmp_path / "words"
    words.mkdir()
    for name, content in folders.word_files().items():
        (words / name).write_text(content)
    base = model(tmp_path / "model")
    config = folders.config_json(base) | {"model_type": "qwen2", "tie_word_embeddings": True}
    run = begun(base, tmp_path / "run", **{"data.tokenizer": str(words)})
    with pytest.MonkeyPatch.context() as patch:
        family = export_model._hf_config(run, "float32", export_model.exported_files(run))[0]
        patch.setattr(export_model, "_hf_config", lambda *_: (family, config))
        with pytest.raises(UserError, match="model_type 'qwen2' in config.json, transformers"):
            export_model.export_model(run, tmp_path / "out", "float32", GB)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "files",
    [
        {"chat_template.jinja": OLD},
        {"tokenizer_config.json": OLD},
        {"tokenizer_config.json": [{"name": "default", "template": OLD}]},
        {"tokenizer_config.json": OLD, "chat_template.jinja": OLD},
    ],
    ids=["a file", "the config", "one of several", "both"],
)
@pytest.mark.parametrize("named", ["", "none", "my.jinja"])
def test_an_export_has_the_template_of_the_run_and_no_older_one(named, files, tmp_path):
    transformers = pytest.importorskip("transformers")
    bpe = Path(make_folder(tmp_path / "bpe", NAMES, **NAMED))
    given = dict(files)
    if "tokenizer_config.json" in files:
        config = read(bpe, "tokenizer_config.json")
        config["chat_template"] = files["tokenizer_config.json"]
        given["tokenizer_config.json"] = json.dumps(config)
    base = model(tmp_path / "model", **given)
    (tmp_path / "my.jinja").write_text(CHATML)
    chosen = str(tmp_path / named) if named == "my.jinja" else named
    run = begun(base, tmp_path / "run", **{"data.chat_template": chosen})
    export_model.export_model(run, tmp_path / "out", "float32", GB)
    expected = {"": OLD, "none": None, "my.jinja": CHATML}[named]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    if expected is None:
        assert theirs.chat_template is None
        with pytest.raises(UserError, match="run has no chat template; use it without chat"):
            prompts.chat_prompt(run, "x")
    else:
        assert theirs.get_chat_template() == expected
    assert build_method(run.config, run.files).template == expected


def test_a_tokenizer_of_its_own_has_the_template_and_the_ends(base, number, tmp_path):
    """The folder named by data.tokenizer has neither, and the initial model has other ids."""
    transformers = pytest.importorskip("transformers")
    folder = Path(
        make_folder(tmp_path / "own", ("<|im_end|>", *NAMES[:4]), eos_token="<|endoftext|>")
    )
    (tmp_path / "my.jinja").write_text(CHATML)
    changes = {"data.tokenizer": str(folder), "data.sft.share": 1.0}
    run = begun(
        base, tmp_path / "a", **changes, **{"data.chat_template": str(tmp_path / "my.jinja")}
    )
    (tmp_path / "my.jinja").unlink()
    ids = ids_of(folder)
    assert ids["<|im_end|>"] != number["<|im_end|>"]
    follows = default.get_config()
    follows.data.tokenizer = str(folder)
    follows.model.update(run.config.model)
    heir = build_method(follows, run.files)  # of another run that starts from it
    assert heir.template == CHATML
    heir = dataclasses.replace(run, config=follows, method=heir)
    for name, one in (("of it", run), ("of its heir", heir)):
        export_model.export_model(one, tmp_path / name, "float32", GB)
        generation = read(tmp_path / name, "generation_config.json")
        assert generation == GENERATION | {
            "bos_token_id": None,
            "eos_token_id": [ids["<|endoftext|>"], ids["<|im_end|>"]],
            "pad_token_id": ids["<|endoftext|>"],
        }
        assert read(tmp_path / name, "config.json")["eos_token_id"] == generation["eos_token_id"]
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        assert theirs.chat_template == CHATML
        assert theirs.encode("<|im_end|>") == [ids["<|im_end|>"]]


def test_tokens_that_an_import_adds_are_exported_with_their_ends(base, number, tmp_path):
    transformers = pytest.importorskip("transformers")
    import_model.import_model(
        str(base), tmp_path / "run", default.get_config(), new_tokens=["<|end|>"], like="</think>"
    )
    run = begun(tmp_path / "run", tmp_path / "next", **{"data.separator": "<|end|>"})
    export_model.export_model(run, tmp_path / "out", "float32", GB)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    (new,) = theirs.encode("<|end|>")
    rows = folders.tensors(tmp_path / "out")["model.embed_tokens.weight"]
    assert rows.shape[0] == folders.config_json(tmp_path / "out")["vocab_size"] > new
    assert rows[new].tobytes() == rows[number["</think>"]].tobytes()
    for name in ("config.json", "generation_config.json"):
        assert read(tmp_path / "out", name)["eos_token_id"] == [number["<|endoftext|>"], new]


def test_a_model_without_a_generation_config_gets_the_ids_of_its_config(base, number, tmp_path):
    folder = shutil.copytree(base, tmp_path / "m")
    (folder / "generation_config.json").unlink()
    config = folders.config_json(folder) | {"eos_token_id": [7, 9]}
    (folder / "config.json").write_text(json.dumps(config))
    run = begun(folder, tmp_path / "run", **{"data.eos": "<|im_end|>"})
    export_model.export_model(run, tmp_path / "out", "float32", GB)
    for name in ("config.json", "generation_config.json"):
        assert read(tmp_path / "out", name)["eos_token_id"] == [7, 9, number["<|im_end|>"]]


def test_bytes_have_no_template_to_keep(tmp_path):
    (tmp_path / "my.jinja").write_text(CHATML)
    config = default.get_config()
    config.data.chat_template = str(tmp_path / "my.jinja")
    with pytest.raises(UserError, match="the byte tokenizer does not support chat templates"):
        build_method(config)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (CHATML, "<|im_end|>"),
        (OLD, "<|endoftext|>"),
        (template("{{ m.content }} <|im_end|>\n\n", ">"), "<|im_end|>"),
        (template("{{ m.content }}\n## ", ">"), None),
        (template("{{ m.content }}", ">"), None),
        (None, "<|endoftext|>"),
    ],
)
def test_the_end_of_a_turn_is_the_token_that_follows_a_response(text, end, base, number):
    tokenizer = opened(base).method.tokenizer
    assert end_of_turn(tokenizer, text) == (number[end] if end else None)


@pytest.mark.slow  # minutes
def test_a_pretrained_model_learns_to_stop_at_another_token(tmp_path):
    base = pytest.importorskip("tests.support.real_models").smollm2().run
    pytest.importorskip("torch")
    asked = {"Name a fruit.": "Apple.", "What is 2 + 2?": "4.", "The sky is?": "Blue."}
    rows = [{"q": q, "a": a} for q, a in asked.items()] * 6
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my.jinja").write_text(CHATML.replace("<|im_end|>", "<|endoftext|>"))
    config = default.get_config()
    config.update_from_flattened_dict(
        sft(tmp_path)
        | {
            "init_from": str(base),
            "data.chat_template": str(tmp_path / "my.jinja"),
            "data.sft.train": str(tmp_path / "pairs.jsonl"),
            "batch_size": 3,
            "evaluation.documents": 1,
            "optimizer.learning_rate": 1e-4,
            "steps": 8,
        }
    )
    loop.train(config, tmp_path / "run", report=False)
    run = opened(tmp_path / "run")
    export_model.export_model(run, tmp_path / "out", "float32", GB)
    theirs = verify.TransformersModel(tmp_path / "out")
    ends = prompts.stop_ids(run, chat=True)
    (end,) = run.method.tokenizer.encode("<|endoftext|>")
    assert set(theirs.ends) == set(ends) == {end, *run.method.tokenizer.encode("<|im_end|>")}
    asked = [
        verify.Prompt(
            text,
            run.method.tokenizer.encode(prompts.chat_prompt(run, text)),
            prompts.messages(text),
        )
        for text in asked
    ]
    asked.append(verify.Prompt("The moon", prompts.prompt_ids(run, "The moon")))
    *chats, text = verify.compare(theirs, run.method.model, run.params, asked, 12, ends)
    for found in (*chats, text):
        assert found.same_ids
        assert found.same_text
    assert [found.stops for found in chats] == [(end, end)] * len(chats)
