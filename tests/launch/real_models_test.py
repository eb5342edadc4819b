"""Real pretrained models against transformers, which reads the same GGUF files.

Greedy continuations agree token for token through import, export and reload, and so do the bits per
token of a long text that is cut into windows.
"""

import json
import math
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import default
from models.transformer import bind
from rlp.engine.branches import document_trunk
from rlp.engine.scoring import document_scores, predicted_tokens
from rlp.run import export_model, opened_model, prompts
from tests.support import environment, real_models, tiny
from tests.support.documents import text_streams
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

TOKENS = 8
PROMPTS = (
    "The capital of France is",
    " a space before",
    "日本の首都は",
    "<b>Bold</b> and\n\n\ttabs",
)
RELOADED = 1  # prompts that are also checked with the export, whose weights are all compared
LICENSE = ROOT / "LICENSE"
WINDOW, WINDOWS = 256, 3


@pytest.fixture(scope="module", params=["smollm2", "gemma3"])
def model(request):
    """A GGUF file with the run that was imported from it, and the BOS ids of its texts."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # other tests use the other core
    found = getattr(real_models, request.param)()
    opened = opened_model.open_model(
        str(found.run), default.get_config(), opened_model.one_device()
    )
    return found, opened, {"smollm2": [], "gemma3": [2]}[request.param]


@pytest.fixture(scope="module")
def theirs(model):
    """The model that transformers loads from the GGUF file, and the tokenizer of the import."""
    import torch
    import transformers

    path = model[0].gguf
    read = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    network = transformers.AutoModelForCausalLM.from_pretrained(**read, dtype=torch.float32)
    return network.eval(), transformers.AutoTokenizer.from_pretrained(model[0].run / "hf")


def greedy(network, ids: list[int]) -> list[int]:
    """Return the greedy continuation of transformers, which does not stop at EOS."""
    import torch
    import transformers

    network.generation_config = transformers.GenerationConfig()
    asked = {"do_sample": False, "max_new_tokens": TOKENS, "eos_token_id": None}
    return network.generate(torch.tensor([ids]), **asked)[0, len(ids) :].tolist()


def test_greedy_continuations_are_those_of_transformers_also_after_an_export(
    model, theirs, tmp_path
):
    import torch
    import transformers

    found, opened, before = model
    network, tokenizer = theirs
    chosen = PROMPTS[:: 1 if not before else 2]  # Gemma is the slower one
    export_model.export_model(opened, tmp_path / "out", "float32", 2**31)
    again = opened_model.open_model(
        str(tmp_path / "out"), default.get_config(), opened_model.one_device()
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, again.params, opened.params))
    assert again.method.tokenizer.bos == opened.method.tokenizer.bos
    reloaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32
    ).eval()
    ours, original = reloaded.state_dict(), network.state_dict()
    assert all(torch.equal(ours[name], x) for name, x in original.items())
    their_words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.greedy", str(found.run), str(TOKENS)],
        input=json.dumps(chosen), capture_output=True, text=True, check=True, cwd=ROOT,
        env=environment.of_a_user(),
    )  # fmt: skip
    continued = json.loads(ran.stdout)
    for number, prompt in enumerate(chosen):
        ids = prompts.prompt_ids(opened, prompt)
        assert ids[: len(before)] == before
        assert ids == tokenizer(prompt)["input_ids"] == their_words(prompt)["input_ids"]
        assert ids == prompts.prompt_ids(again, prompt)
        expected = greedy(network, ids)
        assert continued[number] == [ids, expected]
        if number < RELOADED:
            assert greedy(reloaded, ids) == expected


def test_bits_per_token_of_a_long_text_in_windows_are_those_of_transformers(
    model, theirs, tmp_path
):
    """Every window of a document begins with BOS."""
    import torch

    _, opened, before = model
    network, tokenizer = theirs
    words = opened.method.tokenizer
    # Two copies: one to train on, one held out.
    (tmp_path / "a.txt").write_text(LICENSE.read_text() + "\1" + LICENSE.read_text())
    _, held = text_streams(
        train=str(tmp_path / "a.txt"), txt_separator="\1", holdout_every=2, tokenizer=words,
        sequence_length=WINDOW,
    )  # fmt: skip
    rows = held.batch(0, len(held))
    whole = tokenizer(LICENSE.read_text(), add_special_tokens=False)["input_ids"]
    room = WINDOW - len(before)
    cut = [[*before, *whole[at : at + room]] for at in range(0, len(whole), room)]
    ours = [
        row[segment > 0].tolist() for row, segment in zip(rows.tokens, rows.segment, strict=True)
    ]
    assert sorted(ours, key=str) == sorted([*cut[:-1], [*cut[-1], words.separator]], key=str)
    full = [n for n, row in enumerate(ours) if len(row) == WINDOW][:WINDOWS]
    batch = tiny.rows(rows, np.array(full))
    trunk = document_trunk(batch)
    scores = jax.jit(lambda params: document_scores(bind(opened.method.model, params), trunk))
    nats, tokens = -scores(opened.params).logprob.sum(), predicted_tokens(trunk).sum()
    with torch.no_grad():
        ids = torch.tensor(batch.tokens, dtype=torch.long)
        expected = float(network(ids, labels=ids).loss)
    bits = float(nats) / int(tokens) / math.log(2)
    assert bits == pytest.approx(expected / math.log(2), rel=1e-5)
    assert 1 < bits < 6
