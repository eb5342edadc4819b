"""Exports of a run fine-tuned on chats: where `generate` stops, and the chat template."""

import copy
import json
import shutil
from pathlib import Path

import pytest

from rlp.evaluation.generation.single import continuation
from rlp.interop.huggingface import verify
from rlp.run import export_model, loop, opened_model, prompts
from rlp.runtime.errors import UserError
from rlp.training.trainers import NextTokenTrainer
from tests.support import folders, runs, sampling
from tests.support.chats import CHATML, GB, OLD, PAIRS, begun, opened, read, sft
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory, one_device):  # noqa: F811
    """A run trained to answer and to stop; the file of its chat template was deleted afterwards."""
    folder = tmp_path_factory.mktemp("tuned")
    jinja = folder / "my.jinja"
    jinja.write_text(CHATML)
    changes = {"init_from": str(base), "data.chat_template": str(jinja)}
    config = runs.config(runs.TEXT, sft(folder), changes)
    loop.train(config, folder / "run", report=False)
    jinja.rename(folder / "gone.jinja")
    return folder / "run"


@pytest.fixture(scope="module")
def exported(tuned, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "out"
    export_model.export_model(opened(tuned), out, "float32", GB)
    return out


def test_generate_stops_where_the_model_learnt_to_stop(exported, number):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    network = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    for asked, answer in PAIRS.items():
        messages = [{"role": "user", "content": asked}]
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        found = network.generate(**ids, do_sample=False, max_new_tokens=40)[0]
        found = found[ids["input_ids"].shape[1] :].tolist()
        assert found[-1] == number["<|im_end|>"]
        assert tokenizer.decode(found[:-1]) == answer


def test_both_ends_are_in_the_files_and_all_else_is_as_it_was(exported, base, tuned, number):
    both = {"eos_token_id": [number["<|endoftext|>"], number["<|im_end|>"]]}
    name = "generation_config.json"
    assert read(exported, name) == read(base, name) | both
    assert read(tuned / "hf", name) == read(exported, name)
    given = folders.config_json(base) | both
    assert folders.config_json(tuned / "hf") == given
    assert folders.config_json(exported) == given | {"torch_dtype": "float32"}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (exported / name).read_bytes() == (base / name).read_bytes()


def test_the_template_that_was_used_is_exported(exported, tuned):
    for folder in (exported, tuned / "hf"):
        assert (folder / "chat_template.jinja").read_text() == CHATML
    again = opened(exported)
    assert again.method.template == opened(tuned).method.template == CHATML


def test_a_chat_ends_with_its_turn(tuned, number):
    run = opened(tuned)
    ends = prompts.stop_ids(run, chat=True)
    assert set(ends) == {number["<|endoftext|>"], number["<|im_end|>"]}
    assert prompts.stop_ids(run) == ends
    for asked, answer in PAIRS.items():
        text = prompts.chat_prompt(run, asked)
        assert text == f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
        prompt = run.method.tokenizer.encode(text)
        found = list(continuation(run.method.model, run.params, prompt, 40, ends=ends))
        assert run.method.tokenizer.decode(found) == answer + "<|im_end|>"
    prompt = prompts.chat_prompt(run, "north?", "Be brief.")
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")


def compared(run: opened_model.Opened, folder: Path) -> list[verify.Comparison]:
    """Compare a text and a chat between an exported folder and our model."""
    text = prompts.chat_prompt(run, "moon?")
    chat = run.method.tokenizer.encode(text)
    messages = prompts.messages("moon?")
    asked = [
        verify.Prompt("the moon", prompts.prompt_ids(run, "the moon")),
        verify.Prompt("moon?", chat, messages),
    ]
    ends = prompts.stop_ids(run, chat=True)
    return verify.compare(
        verify.TransformersModel(folder), run.method.model, run.params, asked, 30, ends
    )


def test_verify_compares_a_text_and_a_chat_and_where_they_stop(exported, tuned, number, tmp_path):
    pytest.importorskip("torch")
    run = opened(tuned)
    text, chat = compared(run, exported)
    for found in (text, chat):
        assert found.same_ids
        assert found.same_text
    assert chat.stops == (number["<|im_end|>"],) * 2
    assert chat.asked < 30

    other = shutil.copytree(exported, tmp_path / "other")
    ids = read(other, "generation_config.json") | {"eos_token_id": number["<|endoftext|>"]}
    (other / "generation_config.json").write_text(json.dumps(ids))
    (other / "chat_template.jinja").write_text(CHATML.replace("assistant", "model"))
    text, chat = compared(run, other)
    assert text.same_ids
    assert not chat.same_ids
    assert not chat.same_text
    assert chat.stops[0] is None


def test_a_run_goes_on_without_its_template_and_not_with_another(base, tmp_path):
    jinja = tmp_path / "my.jinja"
    jinja.write_text(CHATML)
    changes = {"init_from": str(base), "data.chat_template": str(jinja), "steps": 3}
    config = runs.config(runs.TEXT, sft(tmp_path), changes, {"checkpoint.every": 1})
    with crash_at(NextTokenTrainer, "step", 3), pytest.raises(Crash):
        loop.train(copy.deepcopy(config), tmp_path / "run", report=False)
    loop.train(copy.deepcopy(config), tmp_path / "whole", report=False)

    jinja.write_text(OLD)
    before = folders.below(tmp_path / "run")
    with pytest.raises(UserError, match=r"data\.chat_template: the content of .*my\.jinja changed"):
        loop.train(copy.deepcopy(config), tmp_path / "run", report=False)
    assert folders.below(tmp_path / "run") == before
    assert opened(tmp_path / "run").method.template == CHATML

    jinja.unlink()
    loop.train(copy.deepcopy(config), tmp_path / "run", report=False)
    found, expected = runs.outcome(tmp_path / "run"), runs.outcome(tmp_path / "whole")
    assert found == expected
    with pytest.raises(UserError, match=r"data\.chat_template=.* is not a file"):
        begun(base, tmp_path / "new", **{"data.chat_template": str(jinja)})


def test_a_changed_template_is_taken_where_changes_are_allowed(base, tmp_path):
    jinja = tmp_path / "my.jinja"
    jinja.write_text(OLD)
    changes = {"init_from": str(base), "data.chat_template": str(jinja), "steps": 1}
    config = runs.config(runs.TEXT, sft(tmp_path), changes)
    loop.train(copy.deepcopy(config), tmp_path / "run", report=False)
    jinja.write_text(CHATML)
    loop.train(copy.deepcopy(config), tmp_path / "run", report=False, allow_config_change=True)
    assert (tmp_path / "run/hf/chat_template.jinja").read_text() == CHATML
    assert opened(tmp_path / "run").method.template == CHATML


@pytest.mark.parametrize("objective", ["next_token", "rlp"])
def test_what_starts_from_it_still_stops(objective, tuned, number, tmp_path):
    """Train on documents after chats: this run names neither a template nor end tokens."""
    run = begun(tuned, tmp_path / "run", objective=objective)
    assert run.method.ends == ()
    assert run.method.template == CHATML
    export_model.export_model(run, tmp_path / "out", "float32", GB)
    ends = [number["<|endoftext|>"], number["<|im_end|>"]]
    for name in ("config.json", "generation_config.json"):
        assert read(tmp_path / "out", name)["eos_token_id"] == ends
        assert read(tmp_path / "run/hf", name)["eos_token_id"] == ends
    assert (tmp_path / "out/chat_template.jinja").read_text() == CHATML


def test_a_chat_is_shown_without_what_the_template_puts_around_it(tuned, monkeypatch, capsys):
    for asked, answer in PAIRS.items():
        flags = {"CHAT": True, "LENGTH": 30, "TEMPERATURE": 0.0}
        out = sampling.printed(monkeypatch, capsys, tuned, asked, **flags)
        assert out == f"{asked}\n{answer}\n"
