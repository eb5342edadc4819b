"""The programs that import, sample and export models, run as processes."""

import dataclasses
import json
import os
import re
from pathlib import Path

import jax
import pytest

from configs import default
from models import hf
from rlp.evaluation.generation.single import continuation, thoughts_after
from rlp.run import export_model, opened_model, prompts
from rlp.run.method import build_method
from rlp.runtime.config_json import save_config
from rlp.runtime.display import printable
from rlp.training.checkpoint import Checkpoints
from tests.support import folders, runs, sampling, tiny
from tests.support.paths import ROOT

GOOD = {
    "tiny": ("tiny_hf", "--out=tiny", "--family=llama"),
    "import": (
        "import_hf",
        "--hf=tiny",
        "--out=made/run",
        "--add_tokens=<|a|>,<|b|>",
        "--like=<think>",
    ),
    "stream": ("sample", "--checkpoint=made/run", "--prompt=Once<|a|>", "--length=6"),
    "think": (
        *("sample", "--checkpoint=made/run@0", "--prompt=Once", "--think", "--thoughts=2"),
        *("--target= upon", "--length=3", "--temperature=0"),
    ),
    "export": (
        *("export_hf", "--checkpoint=made/run", "--out=exported", "--shard_gb=0.001"),
        *("--step=0", "--verify", "--prompt=é<|b|>", "--tokens=6"),
    ),
}
NEW = ("import_hf", "--out=new")
BAD = {
    "no folder": ((*NEW, "--hf=gone"), "no such folder: gone; a name on the hub"),
    "the hub": ((*NEW, "--hf=nobody/nothing"), "pass the path of a downloaded folder"),
    "no model": ((*NEW,), "--hf is missing"),
    "a run": ((*NEW, "--hf=made/run"), "made/run is a run folder"),
    "import over": (("import_hf", "--hf=tiny", "--out=made/run"), "made/run exists already"),
    "cut weights": ((*NEW, "--hf=cut"), "cut/model.safetensors cannot be read"),
    "rope": ((*NEW, "--hf=roped"), "roped/config.json: rope_type='longrope' is not supported"),
    "vocabulary": (
        (*NEW, "--hf=huge"),
        "model.vocab_size=1000000000000; it must be at most 2147483647",
    ),
    "width": ((*NEW, "--hf=wide"), "the model wide needs at least "),
    "layers": ((*NEW, "--hf=deep"), "deep/config.json: num_hidden_layers=1000000 is more than"),
    "sampled length": (
        ("sample", "--checkpoint=made/run", "--prompt=a", "--length=1000000000000"),
        "; lower --length (it is 1000000000000)",
    ),
    "family": (("tiny_hf", "--out=new", "--family=gpt2"), "--family='gpt2' is unknown; use one of"),
    "tiny over": (("tiny_hf", "--out=tiny"), "tiny exists already"),
    "no step": (
        ("export_hf", "--checkpoint=made/run", "--out=new", "--step=7"),
        "made/run has no checkpoint of step 7; name one of 0",
    ),
    "dtype": (
        ("export_hf", "--checkpoint=made/run", "--out=new", "--dtype=int8"),
        "value should be one of <bfloat16|float32>",
    ),
    "no run": (("sample", "--checkpoint=gone", "--prompt=a"), "no such folder: gone"),
    "unknown word": (
        ("sample", "--checkpoint=compass", "--prompt=Once"),
        "'Once' is not a word of the compass",
    ),
    "no chat": (
        ("sample", "--checkpoint=made/run", "--prompt=a", "--chat"),
        "made/run has no chat template; use it without chat, or use a model that has one",
    ),
    "no chat with a system": (
        ("sample", "--checkpoint=made/run", "--prompt=a", "--system=b"),
        "--system is the system message of a chat; add --chat",
    ),
    "another network": (
        (
            *("train", f"--config={ROOT}/configs/default.py", "--workdir=new"),
            *("--config.init_from=made/run", "--config.model.num_layers=3"),
        ),
        "model.num_layers=3, but made/run has 4; leave it out",
    ),
}


@pytest.fixture(scope="module")
def ran(programs, tmp_path_factory):
    """The folder in which all commands ran, and their results."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("folder")
    run = lambda name, *flags: programs.run([f"launch.{name}", *flags], folder)
    found = {case: run(*words) for case, words in GOOD.items()}
    damage(folder)
    before = folders.below(folder), sorted(folder.rglob("*"))
    found |= {case: run(*words) for case, (words, _) in BAD.items()}
    assert (folders.below(folder), sorted(folder.rglob("*"))) == before
    return folder, found


def damage(folder: Path) -> None:
    """Write models that cannot be used, and a run of the demo."""
    changed = {
        "cut": {},
        "roped": {"rope_scaling": {"rope_type": "longrope"}},
        "huge": {"vocab_size": 10**12},
        "wide": {"hidden_size": 10**9},
        "deep": {"num_hidden_layers": 10**6},
    }
    for name, fields in changed.items():
        folders.write(folder / name)
        config = folders.config_json(folder / name) | fields
        (folder / name / "config.json").write_text(json.dumps(config))
    weights = folder / "cut/model.safetensors"
    os.truncate(weights, weights.stat().st_size - 100)
    compass(folder / "compass")


def compass(out: Path) -> opened_model.Opened:
    """Write a run of the demo without steps."""
    config = runs.config(runs.COMPASS)
    params = tiny.params(build_method(config).model)
    out.mkdir()
    save_config(config, out / "config.json")
    with Checkpoints(out / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(0, {"params": params})
    return opened(out)


def opened(folder: Path) -> opened_model.Opened:
    return opened_model.open_model(
        str(folder), default.get_config(), opened_model.conversion_mesh()
    )


def shown(ran, case: str) -> list[str]:
    status, out, err = ran[1][case]
    assert status == 0, err
    assert "Traceback" not in err
    return out.splitlines()


def test_models_are_made_imported_and_exported(ran):
    folder, _ = ran
    assert shown(ran, "tiny") == ["written: tiny (LlamaForCausalLM)"]
    network, tags, documents, last = shown(ran, "import")
    assert "261 tokens" not in network
    assert "263 tokens in 320 rows" in network
    assert tags == "tags: <think> is token 259, </think> is token 260"
    assert documents == (
        "special tokens: BOS '<bos>' 257, EOS '<eos>' 258, document separator '<eos>' 258"
    )
    assert last == "imported: made/run"
    *description, exported, ends, template, ids, compared = shown(ran, "export")
    assert description == [network, tags, documents]
    assert exported == "exported: exported (LlamaForCausalLM, bfloat16)"
    assert ends == "same: generate stops at '<eos>' 258"
    assert template == "same: no chat template, so no chat is compared"
    assert ids == "same: 'é<|b|>': 4 ids"
    assert re.fullmatch(
        r"same: 'é<\|b\|>': logits differ by \S+e-\d\d of their range, 6 of 6 greedy tokens agree",
        compared,
    )
    run, exported = opened(folder / "made/run"), opened(folder / "exported")
    assert exported.method.model == run.method.model
    folders.assert_same_bits(exported.params, export_model.round_trip(run.params, "bfloat16"))
    assert exported.method.tokenizer.encode("<|a|>b<|b|>") == [261, 98, 262]
    rows = run.params["embedding"]
    assert rows[261].tobytes() == rows[262].tobytes() == rows[259].tobytes()


def test_what_is_sampled_is_what_the_run_writes(ran):
    run = opened(ran[0] / "made/run")
    method, tokenizer = run.method, run.method.tokenizer
    prompt = prompts.prompt_ids(run, "Once<|a|>")
    assert prompt == [257, *b"Once", 261]
    ids = continuation(
        method.model,
        run.params,
        prompt,
        6,
        temperature=0.7,
        key=jax.random.key(0),
        banned=range(263, 320),
        ends=(258,),
    )
    expected = printable("Once<|a|>" + tokenizer.decode(list(ids)), keep="\n\t")
    assert "\n".join(shown(ran, "stream")).split() == expected.split()


def test_thoughts_are_shown_with_their_gains(ran):
    lines = shown(ran, "think")
    number = r"(-?\d+\.\d{3})"
    last = re.fullmatch(
        rf"without a thought {number} nats; mean gain ([+-]\d+\.\d{{3}})", lines[-1]
    )
    pattern = rf"  log-likelihood of the target {number} nats, gain ([+-]\d+\.\d{{3}})"
    found = [match for line in lines if (match := re.fullmatch(pattern, line))]
    assert len(found) == 2
    assert last is not None
    without, mean = map(float, last.groups())
    for match in found:
        reasoned, gain = map(float, match.groups())
        assert gain == pytest.approx(reasoned - without, abs=0.0011)
        assert mean == pytest.approx(gain, abs=0.0011)  # twice the greedy thought
    heads = [
        line for line in lines if re.match(r"thought [12] \([123] tokens, (un)?closed\): ", line)
    ]
    assert [line.split(" ", 2)[1] for line in heads] == ["1", "2"]


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_status_2(case, ran):
    """Bad input also writes nothing: the `ran` fixture checks that the folder is unchanged."""
    status, out, err = ran[1][case]
    assert (status, out) == (2, "")
    line = err.splitlines()[-1]
    assert line.startswith("error: ")
    assert BAD[case][1] in line
    assert "Traceback" not in err
    assert err.count("error") <= 2


@pytest.mark.slow  # takes seconds per family
@pytest.mark.parametrize("family", sorted(hf.BY_NAME))
def test_a_tiny_model_of_every_family_is_read_and_handed_out_again(family, programs, tmp_path):
    pytest.importorskip("torch")
    steps = [
        ("tiny_hf", "--out=tiny", f"--family={family}"),
        ("import_hf", "--hf=tiny", "--out=run"),
        ("export_hf", "--checkpoint=run", "--out=out", "--verify", "--dtype=float32"),
    ]
    for name, *flags in steps:
        status, _, err = programs.run([f"launch.{name}", *flags], tmp_path)
        assert status == 0, err
    folders.assert_same_bits(folders.tensors(tmp_path / "out"), folders.tensors(tmp_path / "tiny"))


# Output of `sample`, in this process.


def streamed(run, text, monkeypatch, capsys, length=40, temperature=0.0):
    """Return what is printed, the ids of the prompt, and the ids of the continuation."""
    flags = {"LENGTH": length, "TEMPERATURE": temperature}
    out = sampling.printed(monkeypatch, capsys, run.name, text, **flags)
    prompt = prompts.prompt_ids(run, text)
    tokenizer, model = run.method.tokenizer, run.method.model
    ids = continuation(
        model,
        run.params,
        prompt,
        length,
        temperature=temperature,
        key=jax.random.key(0),
        banned=tuple(range(tokenizer.vocab_size, model.vocab_size)),
        ends=(tokenizer.eos, tokenizer.separator),
    )
    return out, prompt, list(ids)


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_what_is_streamed_is_the_text_broken_characters_and_all(
    temperature, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("transformers")
    run = opened(folders.write(tmp_path / "m"))
    out, _, ids = streamed(run, "é", monkeypatch, capsys, temperature=temperature)
    assert out == printable("é" + run.method.tokenizer.decode(ids) + "\n", keep="\n\t")
    assert len(ids) == 40 or ids[-1] == 258


def test_what_is_streamed_stands_behind_the_prompt_as_one_text(tmp_path, monkeypatch, capsys):
    run = compass(tmp_path / "run")
    out, prompt, ids = streamed(run, "Mia faces", monkeypatch, capsys, length=3)
    assert "<bos> " + out == run.method.tokenizer.decode(prompt + ids) + "\n"
    assert out.startswith("Mia faces ")


@pytest.mark.parametrize("target", ["", "north ."])
def test_thoughts_are_printed_with_what_they_do(target, tmp_path, monkeypatch, capsys):
    run = compass(tmp_path / "run")
    method, key = run.method, jax.random.key(1)
    following = f" {target}" if target else ""
    prompt, ids = prompts.prompt_and_target(run, "Mia faces", following)
    assert prompt == prompts.prompt_ids(run, "Mia faces")
    assert ids == method.tokenizer.encode(target)
    flags = {"THINK": True, "TARGET": following, "THOUGHTS": 3, "LENGTH": 4, "TEMPERATURE": 1.0}
    out = sampling.printed(monkeypatch, capsys, run.name, "Mia faces", SEED=1, **flags)
    lines = out.splitlines()
    settings = tiny.rlp_settings(thought_length=4)
    thoughts, without = thoughts_after(
        dataclasses.replace(method, settings=settings), run.params, prompt, ids, 3, key
    )
    expected = []
    for number, thought in enumerate(thoughts, 1):
        ended = "closed" if thought.closed else "unclosed"
        text = method.tokenizer.decode(thought.words)
        expected.append(f"thought {number} ({len(thought.words)} tokens, {ended}): {text}")
        if target:
            gain = thought.reasoned - without
            line = f"  log-likelihood of the target {thought.reasoned:.3f} nats, gain {gain:+.3f}"
            expected.append(line)
    if target:
        mean = sum(thought.reasoned for thought in thoughts) / 3 - without
        expected.append(f"without a thought {without:.3f} nats; mean gain {mean:+.3f}")
    assert lines == expected
