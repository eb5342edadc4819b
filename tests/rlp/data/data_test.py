"""Text streams: no token lost, boundaries kept, order a pure function of (seed, record)."""

import collections
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.data.corpus import fork_after, hold_out
from rlp.data.windows import pack_windows
from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.load import load_tokenizer
from tests.support.documents import text_streams

BYTES = load_tokenizer("bytes")
TEXTS = [f"document {i}: " + "é日x\n"[i % 4] * (i * 7 % 60) for i in range(41)]


def write(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def make(tmp_path):
    """Create streams over `texts`, which are line_end to a file."""

    def make_streams(texts=TEXTS, **options):
        lengths = {"min_tokens": 1, "held_out_min_tokens": 1}
        options = {"tokenizer": BYTES, "sequence_length": 48, **lengths, **options}
        return text_streams(train=str(write(tmp_path / "a.jsonl", texts)), **options)

    return make_streams


def segments(batch):
    """Return the token ids of each segment of each row, after checking that the arrays agree."""
    found = []
    for tokens, segment, position in zip(batch.tokens, batch.segment, batch.position, strict=True):
        used = int((segment > 0).sum())
        assert (segment[:used] > 0).all()
        assert (tokens[used:] == BYTES.pad).all()
        assert (position[used:] == 0).all()
        count = segment.max()
        assert segment[:used].tolist() == sorted(segment[:used])
        for number in range(1, count + 1):
            here = segment == number
            assert position[here].tolist() == list(range(here.sum()))
            found.append(tuple(tokens[here].tolist()))
    return found


def windows(text, size):
    """Cut a document into windows of `size` tokens, each of which begins with a BOS."""
    ids, room = [*BYTES.encode(text), BYTES.eos], size - len(BYTES.bos)
    return [(*BYTES.bos, *ids[i : i + room]) for i in range(0, len(ids), room)]


def all_windows(texts, size):
    return collections.Counter(w for text in texts for w in windows(text, size))


def row_numbers(stream, first, size):
    """Return rows as bytes, to compare and count them."""
    return [row.tobytes() for row in stream.batch(first, size).tokens]


def equal(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype == np.int32


def fields(batch):
    return [batch.tokens, batch.segment, batch.position, batch.index, batch.forks]


# ---- rows ----


@pytest.mark.parametrize("packed", [False, True])
def test_rows_hold_every_token_of_every_document_once(make, packed):
    train, held = make(pack=packed, holdout_every=4)
    train_numbers, held_numbers = hold_out(len(TEXTS), 4)
    found = collections.Counter(segments(train.batch(0, len(train))))
    assert found == all_windows([TEXTS[i] for i in train_numbers], 48)
    found = collections.Counter(segments(held.batch(0, len(held))))
    assert found == all_windows([TEXTS[i] for i in held_numbers], 48)
    assert sorted([*train_numbers, *held_numbers]) == list(range(len(TEXTS)))
    assert held.batch(0, len(held)).segment.max() == 1
    assert (train.batch(0, len(train)).segment.max() > 1) == packed


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60))
def test_packing_puts_every_window_in_one_row_and_leaves_no_two_rows_half_empty(lengths):
    rows = pack_windows(np.asarray(lengths), 20)
    assert sorted(window for row in rows for window in row) == list(range(len(lengths)))
    used = [sum(lengths[window] for window in row) for row in rows]
    assert max(used) <= 20
    assert sum(2 * tokens <= 20 for tokens in used) <= 1


@given(texts=st.lists(st.text(min_size=1), min_size=2, max_size=8), size=st.integers(4, 30))
@settings(max_examples=30, deadline=None)
def test_any_text_comes_back_from_its_windows(tmp_path_factory, texts, size):
    texts = ["x" + text for text in texts]
    path = write(tmp_path_factory.mktemp("any") / "a.jsonl", texts)
    options = {"tokenizer": BYTES, "sequence_length": size, "holdout_every": 2}
    options |= {"min_tokens": 1, "held_out_min_tokens": 1}
    for stream, kept in zip(
        text_streams(train=str(path), **options), hold_out(len(texts), 2), strict=True
    ):
        found = collections.Counter(segments(stream.batch(0, len(stream))))
        assert found == all_windows([texts[i] for i in kept], size)


def test_short_windows_are_left_out_and_counted(make):
    streams = make(min_tokens=30, held_out_min_tokens=20, holdout_every=4)
    kept = hold_out(len(TEXTS), 4)
    for stream, numbers, least in zip(streams, kept, (30, 20), strict=True):
        every = [w for i in numbers for w in windows(TEXTS[i], 48)]
        long = [w for w in every if len(w) >= least]
        assert collections.Counter(segments(stream.batch(0, len(stream)))) == collections.Counter(
            long
        )
        assert stream.skipped == len(every) - len(long) > 0


class Separated(ByteTokenizer):
    """Puts a given token, such as a line break or the BOS, after every document."""

    def __init__(self, separator):
        super().__init__()
        self.separator = separator


@pytest.mark.parametrize("separator", [ord("\n"), *BYTES.bos])
def test_the_separator_ends_every_document_and_is_text(make, separator):
    streams = make(tokenizer=Separated(separator), holdout_every=4, sequence_length=400)
    for stream, numbers in zip(streams, hold_out(len(TEXTS), 4), strict=True):
        found = collections.Counter(segments(stream.batch(0, len(stream))))
        expected = [(*BYTES.bos, *BYTES.encode(TEXTS[i]), separator) for i in numbers]
        assert found == collections.Counter(expected)
        assert stream.skipped == 0


class Tagged(ByteTokenizer):
    """Reads U+0001 and U+0002 in a text as the thinking tags."""

    def encode_all(self, texts):
        tags = {1: self.think_open, 2: self.think_close}
        rows = [[i for k in self.encode(text) for i in tags.get(k, (k,))] for text in texts]
        return [np.array(row, np.int32) for row in rows]


class Spelled(ByteTokenizer):
    """Has no token for `</think>` and encodes it as text."""

    think_close = tuple(b"</think>")


def test_windows_that_hold_a_spelled_tag_whole_are_left_out(make):
    texts = [f"{'-' * before}</think>{'+' * 20}" for before in range(40)]
    texts += [f"</ {i} <think>" for i in range(40)] + ["<" * 10, "</think", "/think>"]
    train, held = make(texts, tokenizer=Spelled(), sequence_length=16, holdout_every=5)
    for stream, numbers in zip((train, held), hold_out(len(texts), 5), strict=True):
        cut = [window for i in numbers for window in windows(texts[i], 16)]
        whole = [b"</think>" in bytes(i for i in window if i < 256) for window in cut]
        assert any(whole)
        plain = [window for window, tagged in zip(cut, whole, strict=True) if not tagged]
        cut_tags = [Spelled.think_close[:n] for n in range(1, 8)]
        assert any(window[-len(tag) :] == tag for window in plain for tag in cut_tags)
        found = segments(stream.batch(0, len(stream)))
        assert collections.Counter(found) == collections.Counter(plain)
        assert stream.skipped == sum(whole)


def test_thoughts_branch_off_windows_without_tags(make):
    texts = [f"\1thought {i}\2 document {i}" if i % 3 else f"document {i}" for i in range(30)]
    tagged = [text for i, text in enumerate(texts) if i % 3]
    for train_forks in (True, False):
        streams = make(texts, tokenizer=Tagged(), holdout_every=5, train_forks=train_forks)
        for stream, numbers, forked in zip(
            streams, hold_out(len(texts), 5), (train_forks, True), strict=True
        ):
            here = [texts[i] for i in numbers]
            left_out = [text for text in here if text in tagged] if forked else []
            assert stream.skipped == len(left_out)
            assert len(stream) == len(here) - len(left_out)
            has_tag = np.isin(stream.batch(0, len(stream)).tokens, (259, 260)).any()
            assert has_tag == (not forked)
    with pytest.raises(UserError, match="every training window contains a thinking tag or"):
        make(["\1a\2 document"] * 30, tokenizer=Tagged())


def test_given_evaluation_files_are_held_out_whole(tmp_path):
    train, held = text_streams(
        train=str(write(tmp_path / "a.jsonl", TEXTS[:9])),
        evaluation=str(write(tmp_path / "b.jsonl", TEXTS[9:20])),
        tokenizer=BYTES,
        sequence_length=48,
        min_tokens=1,
        held_out_min_tokens=1,
    )
    assert collections.Counter(segments(train.batch(0, len(train)))) == all_windows(TEXTS[:9], 48)
    assert collections.Counter(segments(held.batch(0, len(held)))) == all_windows(TEXTS[9:20], 48)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout_every": 42}, r"too few documents \(41\) .*data.evaluation.*data.txt_separator"),
        ({"holdout_every": 1}, "data.holdout_every=1"),
        ({"min_tokens": 49}, "data.sequence_length=48 is shorter than the 49 tokens"),
        ({"sequence_length": 1}, "data.sequence_length=1"),
        (
            {"min_tokens": 400, "sequence_length": 400},
            "none of the 39 training windows has the 400",
        ),
        (
            {"fork_marker": "nowhere"},
            "no training document .*data.fork_marker='nowhere' .*: set it",
        ),
        ({"fork_marker": "document", "min_prefix": 30}, "no training .* at least 30 tokens before"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_unusable_settings_say_what_to_change(make, options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


def test_a_file_cannot_be_both_trained_on_and_held_out(tmp_path):
    path = write(tmp_path / "a.jsonl", TEXTS)
    with pytest.raises(UserError, match="a.jsonl is in both"):
        text_streams(train=str(tmp_path), evaluation=str(path), tokenizer=BYTES, sequence_length=48)


# ---- order ----


@pytest.mark.parametrize("packed", [False, True])
def test_every_epoch_is_a_permutation_of_its_own(make, packed):
    train, _ = make(pack=packed)
    n = train.records_per_epoch
    epochs = [row_numbers(train, n * e, n) for e in range(4)]
    for epoch in epochs:
        assert collections.Counter(epoch) == collections.Counter(epochs[0])
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_batches_do_not_depend_on_where_the_stream_is_cut(make):
    train, _ = make()
    n = train.records_per_epoch
    whole = train.batch(n - 5, 12)  # across the end of an epoch
    assert whole.index.tolist() == list(range(n - 5, n + 7))
    for split in range(13):
        parts = [fields(train.batch(n - 5, split)), fields(train.batch(n - 5 + split, 12 - split))]
        equal([np.concatenate(pair) for pair in zip(*parts, strict=True)], fields(whole))


def test_the_order_is_a_function_of_the_seed_alone(make):
    (a, held_a), (b, _), (c, held_c) = make(seed=3), make(seed=3), make(seed=4)
    b.batch(17, 5)  # earlier reads have no effect
    equal(fields(a.batch(100, 9)), fields(b.batch(100, 9)))
    n = len(a)
    assert row_numbers(a, 0, n) != row_numbers(c, 0, n)
    # The order of a seed is not the order of the next seed, shifted by one epoch.
    assert row_numbers(a, n, n) != row_numbers(c, 0, n)
    equal(fields(held_a.batch(0, len(held_a))), fields(held_c.batch(0, len(held_c))))


def test_the_first_held_out_records_come_from_many_documents(make):
    texts = [chr(97 + i) * 900 for i in range(20)]
    _, held = make(texts=texts, holdout_every=2)
    letters = {row[1] for row in held.batch(0, 20).tokens}
    assert len(letters) == 10


def test_the_held_out_stream_ends(make):
    _, held = make()
    for first, size in ((len(held), 1), (0, len(held) + 1), (-1, 1)):
        with pytest.raises(IndexError):
            held.batch(first, size)


# ---- forks ----


def test_the_fork_is_right_after_the_last_marker(make):
    texts = [f"={i}=" * (i % 3) + "é" * (i % 5) + f" ANSWER{i}." for i in range(40)]
    texts += ["no marker", "ends with it ="]
    train, held = make(texts=texts, fork_marker="=", holdout_every=4)
    seen = 0
    for stream in (train, held):
        batch = stream.batch(0, len(stream))
        for tokens, segment, fork in zip(
            batch.tokens, batch.segment, batch.forks[:, 0], strict=True
        ):
            text = BYTES.decode(tokens[1 : segment.sum() - 1])
            before, _, after = text.rpartition("=")
            assert BYTES.decode(tokens[1:fork]) == before + "="
            assert BYTES.decode(tokens[fork : segment.sum() - 1]) == after
            seen += 1
    assert seen == sum("=" in text for text in texts[:40])
    assert train.skipped + held.skipped == len(texts) - seen


def test_a_long_document_has_its_fork_in_one_window(make):
    texts = ["a" * 100 + "=" + "b" * 60] * 4
    train, _ = make(texts=texts, fork_marker="=", holdout_every=4)
    batch = train.batch(0, len(train))
    assert len(train) == 3
    assert train.skipped == 3 * 3
    # The fork is token 101 of the document (after 100 letters and the marker). A window of 48
    # contains 47 tokens of the document, after a BOS.
    assert batch.forks.tolist() == [[1 + 101 - 2 * 47]] * 3
    assert (batch.tokens[:, 7] == ord("=")).all()
    assert (batch.tokens[:, 8] == ord("b")).all()


def test_a_given_fork_has_its_prefix_and_what_there_is_of_its_target_in_the_window(make):
    texts = [f"{'p' * before}={'t' * after}" for before in range(9) for after in range(1, 9)]
    train, held = make(texts=texts, fork_marker="=", min_prefix=5, horizon=4)
    batches = [stream.batch(0, len(stream)) for stream in (train, held)]
    forks = np.concatenate([batch.forks[:, 0] for batch in batches])
    lengths = np.concatenate([batch.segment.sum(axis=1) for batch in batches])
    assert forks.min() == 5
    assert (lengths - forks).min() == 2  # one "t" and EOS, of the four tokens of the horizon
    # The prefix consists of BOS, the p's and "=".
    usable = sum(b + 2 >= 5 for b in range(9) for a in range(1, 9))
    assert len(train) + len(held) == usable


@pytest.mark.parametrize("horizon", [1, 4, 30])
def test_a_document_may_end_a_target_but_a_row_may_not(make, horizon):
    """A window of 48 has a BOS and 47 tokens of its document, which ends with an EOS."""
    lengths = [(before, after) for before in range(38, 48) for after in range(1, 12)]
    texts = [f"{'p' * before}={'t' * after}" for before, after in lengths]
    streams = make(texts=texts, fork_marker="=", horizon=horizon)
    found = {
        (int(row.forks[0, 0]), int(row.segment.sum()))
        for stream in streams
        for row in (stream.batch(i, 1) for i in range(len(stream)))
    }
    expected = set()
    for before, after in lengths:
        fork, end = before + 1, before + after + 2  # in tokens of the document
        window = fork // 47 * 47
        if min(fork + horizon, end) <= window + 47:
            expected.add((1 + fork - window, 1 + min(end, window + 47) - window))
    assert found == expected


def test_rows_without_given_forks_say_so(make):
    train, held = make()
    assert (train.batch(0, 9).forks == -1).all()
    packed, held = make(fork_marker=": ", pack=True)
    assert (packed.batch(0, len(packed)).forks == -1).all()
    assert (held.batch(0, len(held)).forks > 0).all()


class Words(ByteTokenizer):
    """Splits before each space, as byte-pair tokenizers do."""

    def encode_spans(self, texts):
        (text,) = texts
        starts = [i for i, letter in enumerate(text) if i == 0 or letter == " "]
        spans = np.stack([starts, [*starts[1:], len(text)]], axis=1)
        return [(np.zeros(len(starts), np.int32), spans)]


@pytest.mark.parametrize(
    ("marker", "fork"),
    [("she faces", 3), ("she faces ", 3), ("she", 2), ("Now she faces north .", -1), ("he", 2)],
)
def test_a_token_across_the_markers_end_is_predicted_not_read(marker, fork):
    assert fork_after("Now she faces north .", marker, Words()) == fork


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("marker_end", ["=\n", "=\r\n", "=\r"])
def test_line_ends_of_a_marker_are_those_of_any_text(tmp_path, line_end, marker_end):
    """The fork follows them both in texts that keep their line ends and in .txt files (with LF)."""
    lines = ["first=", "=", "", "last=x", "=", " north"]
    text = line_end.join(lines)
    assert fork_after(text, marker_end, BYTES) == len(text) - len(" north")
    path = tmp_path / "a.txt"
    path.write_bytes("%".join([text] * 4).encode())
    _, held = text_streams(
        train=str(path), tokenizer=BYTES, sequence_length=48, holdout_every=4,
        txt_separator="%", fork_marker=marker_end,
    )  # fmt: skip
    ((fork,),) = held.batch(0, 1).forks
    assert BYTES.decode(held.batch(0, 1).tokens[0, 1:fork]) == "\n".join([*lines[:-1], ""])


@pytest.mark.parametrize(
    ("text", "marker", "end"),
    [("a\r\nb", "\n", 3), ("a\n\n\nb", "\n\n", 4), ("a\r\rb", "\n\n", 3), ("a\nb", "\nc", -1)],
)
def test_the_last_of_overlapping_markers_counts(text, marker, end):
    assert fork_after(text, marker, BYTES) == end
