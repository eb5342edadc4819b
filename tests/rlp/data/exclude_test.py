"""Data with planted problems, which are left out, are the data without them."""

import json
import logging

import numpy as np
import pytest

from rlp.data.documents import Documents, document_streams
from rlp.data.layout import Layout
from rlp.data.overlap import COPIES, Overlaps
from rlp.data.text import text_streams
from rlp.run import assembly
from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from tests.support import runs

PROBLEM = "a crow saw three old ships sail past the red rocks at noon , how many were they ?"
SUM = "1 + 2 - 3 + 4 - 5 + 6 - 7 + 8 - 9 + 10 - 11 + 12 - 13"
PLANTED = [f"Listen: {PROBLEM.upper()} Three.", f"so {SUM} = -2"]
CLEAN = [f"the {word} sees a river under stone number {n}" for n, word in enumerate("abcdefghijkl")]
DIRTY = [*CLEAN[:3], PLANTED[0], *CLEAN[3:8], PLANTED[1], PLANTED[0], *CLEAN[8:]]
PROBLEMS = Overlaps([[PROBLEM, "three"], [SUM]], COPIES)
LAYOUT = Layout(ByteTokenizer(), 96, holdout_every=4, seed=3)


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def tasks(tmp_path):
    return lines(tmp_path / "tasks.jsonl", [{"q": PROBLEM, "a": "three"}, {"q": SUM}])


def same_streams(one, other):
    """Streams have the same bits in their rows, and the same fingerprint."""
    for a, b in zip(one, other, strict=True):
        batches = [stream.batch(0, len(stream)) for stream in (a, b)]
        for name in ("tokens", "segment", "position", "forks", "index"):
            np.testing.assert_array_equal(*(getattr(batch, name) for batch in batches))
        assert a.fingerprint() == b.fingerprint()


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("ending", [".jsonl", ".txt"])
def test_rows_of_files_with_planted_problems_are_those_without(tmp_path, caplog, ending, held_out):
    caplog.set_level(logging.INFO)

    def write(folder, texts):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / f"a{ending}"
        if ending == ".jsonl":
            return lines(path, [{"text": text} for text in texts])
        path.write_text("\n\n".join(texts))
        return str(path)

    # Held-out documents are read as they are, whatever they contain.
    options = {"evaluation": write("held", DIRTY)} if held_out else {}
    options["txt_separator"] = "\n\n"
    dirty, clean = write("dirty", DIRTY), write("clean", CLEAN)
    found = text_streams(LAYOUT, train=dirty, exclude=PROBLEMS, **options)
    assert "12 documents with" in caplog.text
    assert "left out: 3 in data.exclude_overlaps" in caplog.text
    same_streams(found, text_streams(LAYOUT, train=clean, **options))
    with_all = text_streams(LAYOUT, train=dirty, **options)
    assert with_all[0].fingerprint() != found[0].fingerprint()
    assert (with_all[1].fingerprint() == found[1].fingerprint()) == held_out


def test_documents_from_code_with_planted_problems_are_those_without():
    found = document_streams(Documents(DIRTY), "my:docs", LAYOUT, PROBLEMS)
    same_streams(found, document_streams(Documents(CLEAN), "my:docs", LAYOUT))
    with pytest.raises(UserError, match="document 1 has token ids, which data.exclude_overlaps"):
        document_streams(Documents([CLEAN[0], [1, 2]]), "my:docs", LAYOUT, PROBLEMS)


def test_if_every_document_is_left_out_the_field_is_named(tmp_path):
    path = lines(tmp_path / "a.jsonl", [{"text": text} for text in PLANTED])
    with pytest.raises(UserError, match="every text is empty or overlaps with data.exclude_overl"):
        text_streams(LAYOUT, train=path, exclude=PROBLEMS)


RUNS = {
    "documents": (runs.TEXT, "data.train", lambda text: {"text": text}),
    "pairs": (
        runs.TEXT
        | {"data.sft.share": 1.0, "data.sft.prompt_column": "p", "data.sft.response_column": "r"},
        "data.sft.train",
        lambda text: {"p": f"{text} ?", "r": " yes"},
    ),
    "problems": (
        runs.TEXT | {"objective": "rlvr", "data.problems.verifier": "exact"},
        "data.problems.train",
        lambda text: {"problem": text, "answer": "yes"},
    ),
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_reads_what_it_reads_without_the_planted_problems(tmp_path, kind):
    changes, field, row = RUNS[kind]
    changes = changes | {"data.sequence_length": 120, "batch_size": 8}
    dirty = lines(tmp_path / "dirty.jsonl", map(row, DIRTY))
    clean = lines(tmp_path / "clean.jsonl", map(row, CLEAN))
    found = []
    for path, exclude in ((dirty, tasks(tmp_path)), (clean, ""), (dirty, "")):
        config = runs.config(changes, {field: path, "data.exclude_overlaps": exclude})
        train, held_out = assembly.read_data(config, assembly.build(config))
        fingerprint = [
            part["digest"] for part in (train.fingerprint() | held_out.fingerprint).values()
        ]
        found.append((runs.bits(train.batch(0, 9)), fingerprint))
    assert found[0] == found[1]
    assert found[0][1] != found[2][1]


def test_the_compass_has_no_problems_to_leave_out(tmp_path):
    config = runs.config(runs.COMPASS, {"data.exclude_overlaps": tasks(tmp_path)})
    with pytest.raises(UserError, match="data.exclude_overlaps=.*set it to ''"):
        assembly.build(config)
