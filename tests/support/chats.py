"""A small model with a chat template."""

import dataclasses
import json
from pathlib import Path

from configs import default
from rlp.interop import init_from
from rlp.run import opened_model
from rlp.run.method import build_method
from rlp.run.resume import begin
from rlp.runtime import run_folder
from tests.support import folders
from tests.support.bpe_folder import make_folder
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

CPU = opened_model.conversion_mesh()
GB = 10**9
NAMES = ("<think>", "</think>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>")
NAMED = {"eos_token": "<|endoftext|>", "pad_token": "<pad>"}
GENERATION = {"do_sample": True, "temperature": 0.6, "top_k": 20}


def template(turn: str, ask: str) -> str:
    return (
        "{% for m in messages %}" + turn + "{% endfor %}"
        "{% if add_generation_prompt %}" + ask + "{% endif %}"
    )


OLD = template("{{ m.role }}: {{ m.content }}<|endoftext|>", "assistant: ")

# A line break follows the end of a turn, so that token is not the last one that pairs train.
CHATML = template(
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n", "<|im_start|>assistant\n"
)

PAIRS = {"north?": "west", "moon?": "river and stone", "bread?": "no"}


def ids_of(folder: Path) -> dict[str, int]:
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    return {token["content"]: token["id"] for token in added}


def model(out: Path, **files: str) -> Path:
    """Write a base model; <|endoftext|> is the EOS of its tokenizer and of both configs."""
    bpe = Path(make_folder(out.parent / f"{out.name}-bpe", NAMES, **NAMED))
    tokenizer_files = {path.name: path.read_text() for path in bpe.iterdir()}
    folders.write(out, files=tokenizer_files | files, vocab_size=320)
    number = ids_of(out)
    ids = {"eos_token_id": number["<|endoftext|>"], "pad_token_id": number["<pad>"]}
    config = folders.config_json(out) | ids | {"bos_token_id": None}
    (out / "config.json").write_text(json.dumps(config))
    (out / "generation_config.json").write_text(json.dumps(GENERATION | ids))
    return out


def sft(folder: Path) -> dict:
    """Write pairs to a folder, and return the config fields of a run on them."""
    rows = [{"q": q, "a": a} for q, a in PAIRS.items()] * 3
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "data.sft.train": str(folder / "pairs.jsonl"),
        "data.sft.evaluation": "",
        "data.sft.share": 1.0,
        "data.sft.prompt_column": "q",
        "data.sft.response_column": "a",
        "data.sequence_length": 48,
        "data.holdout_every": 4,
        "evaluation.every": 0,
        "optimizer.learning_rate": 1e-2,
        "steps": 60,
    }


def opened(name: Path | str) -> opened_model.Opened:
    return opened_model.open_model(str(name), default.get_config(), CPU)


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


def begun(base: Path, workdir: Path, **changes) -> opened_model.Opened:
    """Create a run that starts from a model, and return it before its first step."""
    config = default.get_config()
    config.update_from_flattened_dict({"init_from": str(base)} | changes)
    config = init_from.adopt(config, workdir)
    files = init_from.files_for(config, workdir)
    method = build_method(config, files)
    params = opened(base).params
    run = opened_model.Opened("run", config, method, params, CPU, 0, files)
    begin(config, method, files, workdir)
    return dataclasses.replace(run, files=workdir / run_folder.HF)
