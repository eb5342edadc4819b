"""Lookaheads: copies of later text between tags, in rows that are otherwise unchanged."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.data.batch import Batch
from rlp.data.compass import TOKENIZER, CompassStream
from rlp.data.conversations import Format
from rlp.data.lookahead import LookaheadStream
from rlp.data.mix import MixedStream
from rlp.data.pairs import pair_streams
from rlp.data.tags import sequence_starts
from rlp.run import assembly, loop
from rlp.run.tasks import next_token
from rlp.tokenizers.load import load_tokenizer
from tests.support import runs
from tests.support.documents import text_streams
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

BYTES = load_tokenizer("bytes")
T = 32
PAD, BOS, EOS = 0, 1, 2
WORDS = range(10, 40)
TAGS = {"one id": ((3,), (4,)), "several ids": ((3, 4), (3, 5, 6))}
NAMES = ("tokens", "segment", "position", "index", "forks", "loss_mask")


class FixedRows:
    """A stream of rows that a test defines as lists of documents."""

    records_per_epoch = None

    def __init__(self, rows, forks=None):
        self.rows, self.forks = rows, forks or [-1] * len(rows)

    def batch(self, first, size):
        shape = (size, T)
        tokens, segment = np.full(shape, PAD, np.int32), np.zeros(shape, np.int32)
        position = np.zeros(shape, np.int32)
        for b, row in enumerate(self.rows[first : first + size]):
            at = 0
            for number, document in enumerate(row, 1):
                here = slice(at, at := at + len(document))
                tokens[b, here], segment[b, here] = document, number
                position[b, here] = np.arange(len(document))
        forks = np.array(self.forks[first : first + size], np.int32).reshape(size, 1)
        return Batch(tokens, segment, position, np.arange(first, first + size), forks)


def ahead(documents, tags="one id", **changes):
    opening, closing = TAGS[tags]
    options = {"seed": 1, "share": 1.0, "length": 4, "distance": 6, "bos": 1}
    options |= {
        "pad": PAD,
        "ends": (PAD, EOS),
        "think_open": opening,
        "think_close": closing,
    } | changes
    return LookaheadStream(documents, **options)


def documents_of(batch, row):
    """Return the ids and loss mask of each document of a row, after checking its invariants."""
    tokens, segment, position = (x[row] for x in (batch.tokens, batch.segment, batch.position))
    used = int((segment > 0).sum())
    assert tokens.shape == (T,)
    assert segment[:used].tolist() == sorted(segment[:used])
    assert (segment[used:] == 0).all()
    assert (tokens[used:] == PAD).all()
    assert (position[used:] == 0).all()
    assert batch.loss_mask[row, used:].all()
    found = []
    for number in range(1, segment.max(initial=0) + 1):
        here = segment == number
        assert position[here].tolist() == list(range(here.sum()))
        found.append((tokens[here].tolist(), batch.loss_mask[row, here].tolist()))
    return found


def split_at_lookahead(tokens, tags="one id"):
    """Return the ids before a lookahead, its span, and the ids after it; None without one."""
    opening, closing = TAGS[tags]
    ids = np.array(tokens)
    opens, closes = (np.flatnonzero(sequence_starts(ids, tag)) for tag in (opening, closing))
    if not len(opens):
        return None
    (place,), (close,) = opens, closes
    span = tokens[place + len(opening) : close]
    return tokens[:place], span, tokens[close + len(closing) :]


def same(a, b):
    for name in NAMES:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype


@st.composite
def rows(draw):
    """A row of complete and cut documents: a BOS may be missing, and an EOS may be anywhere."""
    row, room = [], T
    while room and (length := draw(st.integers(0 if row else 1, room))):
        ids = st.sampled_from((*WORDS, EOS))
        words = draw(st.lists(ids, min_size=length, max_size=length))
        words[0] = draw(st.sampled_from((words[0], BOS)))
        words[-1] = draw(st.sampled_from((words[-1], EOS)))
        row.append(words)
        room -= length
    return row


def test_no_lookahead_is_inside_a_bos_of_several_tokens():
    rows = FixedRows([[[BOS, BOS, *WORDS[:12]]]] * 200)
    batch = ahead(rows, bos=2, ends=(PAD, BOS, EOS)).batch(0, 200)
    places = {len(split_at_lookahead(documents_of(batch, row)[0][0])[0]) for row in range(200)}
    assert min(places) == 2
    assert len(places) > 5


LIMITS = {"length": st.integers(1, 40), "distance": st.integers(0, 40), "seed": st.integers(0, 99)}


@given(row=rows(), tags=st.sampled_from(list(TAGS)), limits=st.fixed_dictionaries(LIMITS))
@settings(max_examples=150, deadline=None)
def test_a_lookahead_is_a_copy_of_later_text_of_its_document_in_the_row(row, tags, limits):
    opening, closing = TAGS[tags]
    batch = ahead(FixedRows([row]), tags, **limits).batch(0, 1)
    room, found = T, documents_of(batch, 0)
    for number, document in enumerate(row):
        if not room:  # the whole document is cut off
            assert len(found) <= number
            continue
        tokens, in_loss = found[number]
        body = document.index(EOS, 1) if EOS in document[1:] else len(document)
        parts = split_at_lookahead(tokens, tags)
        if parts is None:
            assert tokens == document[:room]
            assert all(in_loss)
            # No lookahead fits: it needs a token before it, a token to copy, and room for both.
            assert body < 2 or room < len(opening) + len(closing) + 3
        else:
            before, span, after = parts
            place = len(before)
            inserted = len(opening) + len(span) + len(closing)
            assert before
            assert before + after == document[: room - inserted]
            assert 1 <= len(span) <= limits["length"]
            starts = range(min(limits["distance"], body - place - len(span)) + 1)
            assert any(after[s : s + len(span)] == span for s in starts)
            excluded = np.flatnonzero(~np.array(in_loss))
            assert excluded.tolist() == list(range(place, place + len(opening)))
        room -= len(tokens)


def test_places_starts_and_lengths_take_all_their_values():
    document = [BOS, *range(10, 20), EOS]  # all different, so that a span identifies its start
    stream = ahead(FixedRows([[document]] * 2000), length=3, distance=2)
    batch = stream.batch(0, 2000)
    found = set()
    for row in range(2000):
        before, span, _ = split_at_lookahead(documents_of(batch, row)[0][0])
        found.add((len(before), document.index(span[0]) - len(before), len(span)))
    assert found == {
        (place, gap, length)
        for place in range(1, 11)
        for gap in range(3)
        for length in range(1, 4)
        if place + gap + length <= 11
    }


def test_a_document_has_a_lookahead_with_the_probability_of_the_share():
    row = [[BOS, 10, 11, 12, EOS], [BOS, 13, 14, EOS]]
    batch = ahead(FixedRows([row] * 2000), share=0.3).batch(0, 2000)
    for number in range(2):
        count = sum(
            split_at_lookahead(documents_of(batch, b)[number][0]) is not None for b in range(2000)
        )
        assert count == pytest.approx(600, abs=80)


@pytest.mark.parametrize("tags", TAGS)
def test_a_document_that_holds_a_tag_is_left_alone_and_its_neighbour_is_not(tags):
    for tag in TAGS[tags]:
        tagged = [BOS, 10, *tag, 11, EOS]
        row = [tagged, [BOS, 12, 13, 14, EOS]]
        batch = ahead(FixedRows([row] * 20), tags).batch(0, 20)
        for b in range(20):
            (tokens, in_loss), (other, _) = documents_of(batch, b)
            assert tokens == tagged
            assert all(in_loss)
            assert split_at_lookahead(other, tags) is not None


def test_a_fork_stays_at_its_token_and_goes_with_it():
    document = [BOS, *range(10, 10 + T - 1)]
    forks = [fork for fork in range(T) for _ in range(20)]
    batch = ahead(FixedRows([[document]] * len(forks), forks)).batch(0, len(forks))
    for b, fork in enumerate(forks):
        tokens = batch.tokens[b].tolist()
        before, span, _ = split_at_lookahead(tokens)
        moved = fork + (fork >= len(before)) * (len(span) + 2)
        assert batch.forks[b] == (moved if moved < T else -1)
        if moved < T:
            assert tokens[moved] == document[fork]
    assert (ahead(FixedRows([[document]])).batch(0, 1).forks == -1).all()


@pytest.mark.parametrize("first", [0, 7])
def test_a_row_does_not_depend_on_where_the_stream_is_cut(first):
    lines = [[[BOS, *range(10, 10 + n), EOS], [BOS, *range(50, 60)]] for n in range(1, 20)]
    stream = ahead(FixedRows(lines), share=0.5)
    whole = stream.batch(first, 12)
    for cut in (0, 1, 5, 12):
        parts = stream.batch(first, cut), stream.batch(first + cut, 12 - cut)
        same(jax.tree.map(lambda *rows: np.concatenate(rows), *parts), whole)
    same(ahead(FixedRows(lines), share=0.5).batch(first, 12), whole)
    other = ahead(FixedRows(lines), share=0.5, seed=2).batch(first, 12)
    assert (other.tokens != whole.tokens).any()


def test_a_share_of_none_changes_no_row():
    lines = [[[BOS, *range(10, 10 + n), EOS]] for n in range(1, 20)]
    plain = FixedRows(lines).batch(0, 19).replace(loss_mask=np.ones((19, T), bool))
    same(ahead(FixedRows(lines), share=0.0).batch(0, 19), plain)


# ---- the streams of a run ----


def test_walks_of_the_compass_have_lookaheads_and_keep_their_thoughts():
    words = TOKENIZER
    walks = CompassStream(5, T, thought_share=0.5)
    opening, closing = words.think_open, words.think_close
    stream = ahead(walks, think_open=opening, think_close=closing, ends=(words.pad, words.eos))
    plain, batch = walks.batch(0, 40), stream.batch(0, 40)
    thought = (plain.tokens == opening[0]).any(axis=1)
    assert 5 < thought.sum() < 35
    for name in NAMES[:-1]:
        np.testing.assert_array_equal(getattr(batch, name)[thought], getattr(plain, name)[thought])
    assert (batch.tokens == opening[0]).any(axis=1).all()
    answer = lambda rows: np.take_along_axis(rows.tokens, rows.forks, axis=1)
    np.testing.assert_array_equal(answer(batch), answer(plain))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    pairs = folder / "pairs.jsonl"
    rows = [{"q": f"{i} and 1 ", "a": f"{i + 1}" * (i % 3 + 1)} for i in range(12)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return runs.text_file(folder), str(pairs)


def test_a_mixture_keeps_the_masks_of_both(files):
    (text, pairs), size = files, {"sequence_length": 48, "pack": True, "holdout_every": 4}
    documents = text_streams(train=text["data.train"], tokenizer=BYTES, **size)[0]
    form = Format(prompt="q", response="a")
    answers = pair_streams(train=pairs, form=form, template=None, tokenizer=BYTES, **size)[0]
    opening, closing = BYTES.think_open, BYTES.think_close
    known = {"think_open": opening, "think_close": closing, "pad": BYTES.pad, "ends": (BYTES.eos,)}
    with_lookaheads = ahead(documents, **known)
    batch = MixedStream(with_lookaheads, answers, 0.5).batch(0, 10)
    np.testing.assert_array_equal(batch.loss_mask[1::2], answers.batch(0, 5).loss_mask)
    np.testing.assert_array_equal(batch.tokens[::2], with_lookaheads.batch(0, 5).tokens)
    opens = batch.tokens[::2] == opening[0]
    assert opens.any(axis=1).all()
    np.testing.assert_array_equal(batch.loss_mask[::2], ~opens)


LOOKAHEAD = {"data.lookahead.share": 0.5, "data.lookahead.length": 4, "steps": 5}


def kinds(files):
    text, pairs = files
    sft = {"train": pairs, "prompt_column": "q", "response_column": "a", "share": 0.3}
    sft = {f"data.sft.{name}": value for name, value in sft.items()}
    return {
        "text": runs.TEXT | text,
        "mixed": runs.TEXT | text | sft,
        "compass": runs.COMPASS | {"data.sequence_length": 32},
    }


@pytest.mark.parametrize("kind", ["mixed", "compass"])
@pytest.mark.usefixtures("one_device")
def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path, files, kind):
    config = runs.config(kinds(files)[kind], LOOKAHEAD)
    loop.train(config, tmp_path / "whole", report=False)
    with crash_at(LookaheadStream, "batch", 4), pytest.raises(Crash):
        loop.train(config, tmp_path / "parts", report=False)
    loop.train(config, tmp_path / "parts", report=False)
    whole = runs.outcome(tmp_path / "whole")
    assert runs.outcome(tmp_path / "parts") == whole
    assert "think_loss" in whole["evaluation"]


@pytest.mark.usefixtures("one_device")
def test_held_out_rows_are_those_of_a_run_without_lookaheads_which_makes_none(files, monkeypatch):
    for data in kinds(files).values():
        config = runs.config(data, LOOKAHEAD)
        run = assembly.build(config)
        with_lookaheads, held_out = assembly.read_data(config, run)
        config.data.lookahead.share = 0.0
        with monkeypatch.context() as patch:
            patch.setattr(next_token, "LookaheadStream", None)
            plain, held_out_plain = assembly.read_data(config, run)
        for which in ("documents", "pairs"):
            assert runs.bits(getattr(held_out, which)) == runs.bits(getattr(held_out_plain, which))
        assert with_lookaheads.records_per_epoch == plain.records_per_epoch
