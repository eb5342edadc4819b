"""Special tokens added by an import."""

import dataclasses
import json

import numpy as np
import pytest

from models import hf
from rlp.run import export_model, opened_model
from rlp.runtime.errors import UserError
from tests.support import folders
from tests.support import hf as theirs
from tests.support.exchanged import (
    GB,
    ROWS,
    USED,
    assert_same_logits,
    imported,
    loaded,
    opened,
    our_logits,
    two_names,
)

TEXTS = ["w9 w10 w69", "<bos> w9 <think> w30 </think> w31 <eos>", "unknown w8", ""]


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
    # 26 more tokens fit into the 96 rows; beyond that, the rows grow to a multiple of 64.
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
        for name, model in (("made", made), ("again", again)):
            export_model.export_model(model, run / name, "float32", GB)
        found, expected = folders.below(run / "made"), folders.below(run / "again")
        assert found.keys() == expected.keys()
        assert {name for name in found if found[name] != expected[name]} == {"rlp.json"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"new_tokens": ["<a>", "<think>"]}, "'<think>' cannot be added: it is token 3"),
        ({"new_tokens": ["w9"]}, "'w9' cannot be added: it is token 9"),
        ({"new_tokens": [""]}, "'' cannot be added: it is empty"),
        ({"new_tokens": ["<a>"], "like": "w9 w10"}, "'w9 w10' is not a single token"),
        ({"new_tokens": ["<a>"], "like": "nothing"}, "'nothing' is not a single token"),
    ],
)
def test_tokens_that_cannot_be_added_are_refused_and_nothing_is_left(
    options, message, saved, tmp_path
):
    before = folders.below(saved("qwen3"))
    with pytest.raises(UserError, match=message):
        imported(saved("qwen3"), tmp_path / "run", **options)
    assert not list(tmp_path.iterdir())
    assert folders.below(saved("qwen3")) == before
