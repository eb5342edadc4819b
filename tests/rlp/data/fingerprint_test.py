"""Fingerprints change with the rows of a run, but not with paths, machines and dtypes."""

import json
import shutil

import numpy as np
import pytest

from rlp.data.batch import HeldOut
from rlp.data.compass import CompassPairs, CompassProblems, CompassStream
from rlp.data.fingerprint import digest, fingerprint
from rlp.data.lookahead import LookaheadStream
from rlp.data.mix import MixedStream
from rlp.run import assembly, loop
from rlp.runtime.errors import UserError
from rlp.runtime.fingerprints import changes
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.load import load_tokenizer
from rlp.training.trainers import NextTokenTrainer
from tests.support import runs
from tests.support.documents import text_streams
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

BYTES = load_tokenizer("bytes")
TEXTS = {name: [f"{name}{i} " * (i % 5 + 1) for i in range(12)] for name in "abc"}
PAIRS = [{"q": f"question {i}", "a": f"answer {i}"} for i in range(12)]
PROBLEMS = [{"problem": f"{i} + 1", "answer": f"{i + 1}"} for i in range(12)]


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(folder, **files):
    """Write a folder with files of texts."""
    for name, some in files.items():
        lines(folder / f"{name}.jsonl", [{"text": text} for text in some])
    return folder


def of(train, evaluation="", **options):
    """Return the fingerprint of streams of texts."""
    options = {"sequence_length": 32, "holdout_every": 4, "tokenizer": BYTES} | options
    stream, held = text_streams(train=str(train), evaluation=str(evaluation or ""), **options)
    return fingerprint(stream, HeldOut(None, fingerprint=held.fingerprint()))


# ---- digests ----


def test_a_digest_is_of_numbers_not_of_their_types():
    numbers = np.arange(300).reshape(3, 100)
    kinds = [np.uint16, np.int32, ">i4", np.uint32, np.int64, ">u8"]
    layouts = [numbers.astype(kind) for kind in kinds] + [np.asfortranarray(numbers)]
    assert len({digest([x]) for x in layouts}) == 1
    assert digest([np.array([True, False])]) == digest([np.array([1, 0])])


def test_a_digest_tells_apart_what_differs():
    some = np.arange(6)
    different = [
        [], [""], ["", ""], ["ab"], ["a", "b"], [some], [some, some[:0]], [some[:3], some[3:]],
        [some.reshape(2, 3)], [some[::-1]], [some, "ab"], ["ab", some], [some + 1],
    ]  # fmt: skip
    assert len({digest(parts) for parts in different}) == len(different)


def test_long_arrays_count_to_their_ends(monkeypatch):
    monkeypatch.setattr("rlp.data.fingerprint._CHUNK", 4)
    found = {digest([np.arange(11) + 100 * (np.arange(11) == place)]) for place in range(12)}
    assert len(found) == 12


# ---- rows ----


def test_paths_and_names_of_files_change_nothing(tmp_path):
    before = of(texts(tmp_path / "before", **TEXTS))
    assert json.loads(json.dumps(before)) == before
    after = of(texts(tmp_path / "moved" / "after", **TEXTS))
    assert after == before
    renamed = {f"x{name}": some for name, some in TEXTS.items()}
    assert changes(before, of(texts(tmp_path / "renamed", **renamed))) == []
    joined = sum(TEXTS.values(), [])
    assert changes(before, of(texts(tmp_path / "joined", a=joined))) == []


@pytest.mark.parametrize("pack", [False, True])
def test_every_change_of_the_training_rows_is_noticed(tmp_path, pack):
    before = of(texts(tmp_path / "0", **TEXTS), pack=pack)
    variants = {
        "a letter": {"a": ["A" + TEXTS["a"][0][1:], *TEXTS["a"][1:]]},
        "another order": {"b": [TEXTS["b"][i] for i in (5, 1, 2, 3, 4, 0, *range(6, 12))]},
        "one more": {"c": [*TEXTS["c"], "more"]},
        "one fewer": {"c": TEXTS["c"][:-4]},
        "a bound": {"a": ["".join(TEXTS["a"][:2]), *TEXTS["a"][2:]]},
    }
    found = {json.dumps(before)}
    for name, variant in variants.items():
        now = of(texts(tmp_path / name, **TEXTS | variant), pack=pack)
        report = changes(before, now)
        assert any(line.startswith("data.train: ") for line in report)
        (file,) = variant
        assert all(f"(changed: {file}.jsonl)" in line for line in report)
        found.add(json.dumps(now))
    assert len(found) == len(variants) + 1


def test_every_setting_that_makes_other_rows_is_noticed(tmp_path):
    folder = texts(tmp_path, **TEXTS)
    before = of(folder)
    settings = [
        {"seed": 1}, {"sequence_length": 33}, {"pack": True}, {"holdout_every": 5},
        {"min_tokens": 9}, {"fork_marker": "a"}, {"tokenizer": Bosless()},
    ]  # fmt: skip
    found = [of(folder, **setting)["data.train"]["digest"] for setting in settings]
    assert len({before["data.train"]["digest"], *found}) == len(settings) + 1
    (report,) = changes(before, of(folder, seed=1))
    assert report == (
        f"data.train: other {before['data.train']['documents']} documents, "
        f"{before['data.train']['rows']} rows, {before['data.train']['tokens']} tokens "
        "(the same files, but other rows of them or another order)"
    )


class Bosless(ByteTokenizer):
    """A byte tokenizer without a BOS."""

    bos = ()


def test_held_out_rows_and_training_rows_are_told_apart(tmp_path):
    """Every fourth document is held out, including the last one, which few runs evaluate."""
    before = of(texts(tmp_path / "0", **TEXTS))
    for place, field in ((11, "data.train, held out"), (10, "data.train")):
        changed = [*TEXTS["c"]]
        changed[place] += "x"
        now = of(texts(tmp_path / str(place), **TEXTS | {"c": changed}))
        (report,) = changes(before, now)
        assert report.startswith(f"{field}: 9 documents, " if place == 11 else f"{field}: 27 docu")
        assert report.endswith(" (changed: c.jsonl)")


def test_a_changed_held_out_file_is_named(tmp_path):
    train = texts(tmp_path / "train", a=TEXTS["a"])
    before = of(train, texts(tmp_path / "held", b=TEXTS["b"]))
    now = of(train, texts(tmp_path / "other", c=TEXTS["c"]))
    (report,) = changes(before, now)
    assert report.startswith("data.evaluation: other 12 documents, ")
    assert report.endswith("(new: c.jsonl; gone: b.jsonl)")


def test_a_new_order_of_files_is_reported(tmp_path):
    paths = [f"{texts(tmp_path, **TEXTS)}/{name}.jsonl" for name in "abc"]
    before, now = of(",".join(paths)), of(",".join(paths[::-1]))
    report = changes(before, now)
    assert [line.partition(":")[0] for line in report] == [
        "data.train",
        "data.train, held out",
    ]
    assert all("(the same files in another order)" in line for line in report)


def test_wrapped_streams_have_the_fingerprints_of_what_they_wrap(tmp_path):
    options = {"tokenizer": BYTES, "sequence_length": 32, "holdout_every": 4}
    stream, other = (
        text_streams(train=str(texts(tmp_path / name, a=TEXTS[name])), **options)[0]
        for name in "ab"
    )

    def ahead(documents, **changes):
        settings = {"seed": 1, "share": 0.5, "length": 4, "distance": 6, "pad": 0, "ends": (1,)}
        settings |= {"bos": 1, "think_open": (2,), "think_close": (3,)} | changes
        return LookaheadStream(documents, **settings)

    built = [
        stream,
        other,
        ahead(stream),
        ahead(other),
        *(ahead(stream, **change) for change in ({"seed": 2}, {"share": 0.25}, {"length": 5})),
        *(
            ahead(stream, **change)
            for change in ({"distance": 7}, {"think_open": (4,)}, {"bos": 2})
        ),
        MixedStream(stream, stream, 0.5),
        MixedStream(stream, stream, 0.25),
        MixedStream(ahead(stream), stream, 0.5),
    ]
    assert len({json.dumps(x.fingerprint()) for x in built}) == len(built)
    report = changes(ahead(stream).fingerprint(), stream.fingerprint())
    assert report == ["data.lookahead: settings -> none"]


def test_walks_are_identified_by_their_settings():
    built = [
        CompassStream(0, 40),
        CompassStream(1, 40),
        CompassStream(0, 41),
        CompassStream(0, 40, held_out=True),
        *(
            CompassStream(0, 40, **{f"{name}_share": 0.5})
            for name in ("thought", "musing", "late_musing", "anywhere")
        ),
        CompassStream(0, 40, late_from=2),
    ]
    assert len({json.dumps(x.fingerprint()) for x in built}) == len(built)
    for kind in (CompassPairs, CompassProblems):
        assert kind(built[0]).fingerprint() == CompassStream(0, 40).fingerprint()


# ---- whole configs ----


def read(changes):
    config = runs.config(changes)
    built = assembly.build(config)
    return fingerprint(*assembly.read_data(config, built))


@pytest.mark.usefixtures("one_device")
def test_every_kind_of_data_is_in_the_fingerprint_of_its_run(tmp_path):
    train = texts(tmp_path / "texts", a=TEXTS["a"]) / "a.jsonl"
    pairs = lines(tmp_path / "pairs.jsonl", PAIRS)
    problems = lines(tmp_path / "problems.jsonl", PROBLEMS)
    documents = {"data.train": str(train), "data.sequence_length": 64}
    responses = {
        "data.sft.train": str(pairs),
        "data.sft.prompt_column": "q",
        "data.sft.response_column": "a",
        "data.sft.share": 0.5,
    }
    checked = {
        "data.problems.verifier": "tests.support.easy_verifiers:ANYTHING",
        "data.problems.workers": 1,
        "data.problems.response_length": 4,
    }
    asked = {"data.problems.evaluation": str(problems)}
    mixed = runs.TEXT | documents | responses | checked | asked
    before = read(mixed)
    assert list(before) == [
        *("data.train", "data.sft.train", "data.sft.share", "data.train, held out"),
        *("data.sft.train, held out", "data.problems, held out problems"),
    ]
    for path, rows, field in (
        (pairs, [*PAIRS[:-1], PAIRS[-1] | {"a": "other"}], "data.sft.train, held out"),
        (pairs, [PAIRS[0] | {"a": "answer 00"}, *PAIRS[1:]], "data.sft.train"),
        (problems, [*PROBLEMS[:-1], PROBLEMS[-1] | {"answer": "0"}], "data.problems, held out pro"),
    ):
        content = path.read_text()
        lines(path, rows)
        (report,) = changes(before, read(mixed))
        assert report.startswith(field)
        path.write_text(content)
    trained = {"objective": "rlvr", "data.problems.train": str(problems)}
    answers = runs.TEXT | checked | trained | {"data.sequence_length": 64}
    before = read(answers)
    assert list(before) == ["data.problems.train", "data.problems, held out"]
    lines(problems, [PROBLEMS[0] | {"answer": "2"}, *PROBLEMS[1:]])
    (report,) = changes(before, read(answers))
    assert report.startswith("data.problems.train: other 9 problems, ")


# ---- runs ----


@pytest.fixture
def started(tmp_path):
    """The config and folder of a run that was killed in the middle."""
    folder = texts(tmp_path / "data", a=TEXTS["a"], b=TEXTS["b"])
    held = texts(tmp_path / "held", c=TEXTS["c"])
    config = runs.config(runs.TEXT, {"data.train": str(folder), "data.evaluation": str(held)})
    with crash_at(NextTokenTrainer, "step", 6), pytest.raises(Crash):
        loop.train(config, tmp_path / "run", report=False)
    return config, tmp_path / "run"


@pytest.mark.usefixtures("one_device")
def test_a_run_resumes_only_with_the_same_data(started, tmp_path, caplog):
    config, workdir = started
    saved = runs.checkpoint(workdir)["data"]
    assert saved["fingerprint"].keys() == {"data.train", "data.evaluation"}
    config_before = (workdir / "config.json").read_text()
    for folder, name in (("data", "b"), ("held", "c")):
        path = tmp_path / folder / f"{name}.jsonl"
        content = path.read_text()
        path.write_text(content.replace(f"{name}7", f"{name}8", 1))  # one character
        field = "data.train" if folder == "data" else "data.evaluation"
        with pytest.raises(
            UserError, match=f"contains a run on different data .{field}: .*changed: {name}"
        ):
            loop.train(config, workdir, report=False)
        assert (workdir / "config.json").read_text() == config_before
        assert runs.steps(workdir) == [3, 4]
        path.write_text(content)
    loop.train(config, workdir, report=False)
    loop.train(config, tmp_path / "whole", report=False)
    assert runs.outcome(workdir) == runs.outcome(tmp_path / "whole")
    # A finished run reads no data.
    shutil.rmtree(tmp_path / "data")
    loop.train(config, workdir, report=False)


@pytest.mark.usefixtures("one_device")
def test_other_data_are_used_if_a_change_is_allowed(started, tmp_path, caplog):
    config, workdir = started
    texts(tmp_path / "data", a=TEXTS["c"][:9], b=TEXTS["b"])
    caplog.set_level("WARNING", "rlp")
    loop.train(config, workdir, allow_config_change=True, report=False)
    (told,) = [message for message in caplog.messages if "different data" in message]
    assert told.startswith("continuing with different data: data.train: 24 documents, ")
    assert " -> 21 documents, " in told
    assert "(changed: a.jsonl)" in told
    now = runs.checkpoint(workdir)["data"]["fingerprint"]["data.train"]
    assert now["documents"] == 21


@pytest.mark.usefixtures("one_device")
def test_a_moved_folder_is_another_config_but_the_same_data(started, tmp_path, caplog):
    config, workdir = started
    (tmp_path / "data").rename(tmp_path / "moved")
    with config.unlocked():
        config.data.train = str(tmp_path / "moved")
    caplog.set_level("WARNING", "rlp")
    loop.train(config, workdir, allow_config_change=True, report=False)
    assert not [message for message in caplog.messages if "different data" in message]
