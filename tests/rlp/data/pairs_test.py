"""Prompts with their responses: the tokens of rows, the loss mask, and what is left out."""

import collections
import itertools
import re

import numpy as np
import pytest

from rlp.data.conversations import Format
from rlp.data.pairs import pair_streams, tokenize_pairs
from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.load import load_tokenizer
from tests.support import folders
from tests.support.pairs import (
    BOS,
    BYTES,
    CHAT,
    EOS,
    PAIR,
    SAID,
    TEMPLATE,
    numbered,
    tokenized,
    turns,
    write,
)


def row_of(*spans):
    """Concatenate spans, each ids with one flag, to the ids and flags of a row."""
    ids = [i for span, _ in spans for i in span]
    return ids, [trained_on for span, trained_on in spans for _ in span]


# Tokens.


def test_without_a_template_a_response_follows_its_prompt_and_its_end_is_trained_on(tmp_path):
    rows = [{"question": "1 + 1 = ", "answer": "é2"}, {"question": "", "answer": " x"}]
    rows += [{"question": "nothing said", "answer": " \n"}]
    found, source = tokenized(tmp_path / "a.jsonl", rows)
    assert found == [
        row_of(([*b"1 + 1 = "], False), ([*"é2".encode(), EOS], True)),
        row_of(([*b" x", EOS], True)),
    ]
    assert source == [0, 1]


def test_without_a_template_every_assistant_message_is_trained_on_and_ended(tmp_path):
    rows = [{"messages": [*turns("a", "b", "c", "d", "late", system=["s"])]}]
    found, _ = tokenized(tmp_path / "a.jsonl", rows, CHAT)
    expected = row_of(
        ([*b"sa"], False), ([*b"b", EOS], True), ([*b"c"], False), ([*b"d", EOS], True)
    )
    assert found == [expected]


def test_a_token_across_the_end_of_a_prompt_is_trained_on(tmp_path):
    """The whole text is tokenized at once, and the response begins with the token that contains its
    first letter."""

    class Doubles(ByteTokenizer):
        """Reads "ab" as one token."""

        def encode_spans(self, texts):
            found = []
            for text in texts:
                pieces = re.findall("ab|.", text)
                ids = [1 if piece == "ab" else ord(piece) for piece in pieces]
                ends = np.cumsum([len(piece) for piece in pieces])
                starts = ends - [len(piece) for piece in pieces]
                found.append((np.array(ids, np.int32), np.stack([starts, ends], axis=1)))
            return found

    rows = [{"question": "ab a", "answer": "b ab"}, {"question": "ab", "answer": "a"}]
    found, _ = tokenized(tmp_path / "a.jsonl", rows, words=Doubles())
    assert found == [
        row_of(([*b"\1 "], False), ([*b"\1 \1", EOS], True)),
        row_of(([*b"\1"], False), ([*b"a", EOS], True)),
    ]


@pytest.mark.parametrize("kind", ["bytes", "bpe", "space in front"])
@pytest.mark.parametrize("template", [None, TEMPLATE], ids=["plain", "template"])
def test_a_row_has_the_ids_of_its_whole_text(tmp_path, kind, template):
    """With every kind of tokenizer; one that puts a space before a text does so only once."""
    words = load_tokenizer(folders.folder_of(tmp_path, kind))
    assert words.decode(words.bos) == "<bos>"
    said = [("1 + 1 = ", "2"), ("Q: 5", "6 é"), ("a b", " c d"), ("c", "\n42")]
    rows = [{"messages": turns(*(x for pair in said[:n] for x in pair))} for n in range(1, 5)]
    found, _ = tokenized(tmp_path / "a.jsonl", rows, CHAT, template, words)
    for n, (ids, trained_on) in enumerate(found, 1):
        if template is None:
            text = "".join(f"{q}{a}<eos>" for q, a in said[:n])
        else:
            text = words.chat(rows[n - 1]["messages"], template, False)
        assert ids == words.encode(text)
        # The tokens that are trained on decode to the assistant messages and their ends.
        runs = [
            list(run)
            for flag, run in itertools.groupby(zip(ids, trained_on, strict=True), lambda x: x[1])
            if flag
        ]
        responses = [words.decode([i for i, _ in run]) for run in runs]
        assert [text.strip() for text in responses] == [f"{a}<eos>".strip() for _, a in said[:n]]


def test_what_a_template_puts_after_the_end_of_a_turn_is_not_trained_on(tmp_path, chatty):
    """Some templates always end with a generation prompt."""
    eager = TEMPLATE.replace("<eos>{% endfor %}", "<eos>\n{% endfor %}<bos>assistant:").replace(
        "{% if add_generation_prompt %}<bos>assistant:{% endif %}", ""
    )
    rows = [{"messages": turns("a", "b", "c", "d")}]
    found, source = tokenized(tmp_path / "a.jsonl", rows, CHAT, eager, chatty)
    first = [BOS, *b"user:a", EOS, *b"\n", BOS, *b"assistant:"]
    assert source == [0, 0]
    after = [*b"\n", BOS, *b"assistant:"]
    assert found[0] == row_of((first, False), ([*b"b", EOS], True), (after, False))
    assert [i for i, trained_on in zip(*found[1], strict=True) if trained_on] == [*b"d", EOS]


def test_a_message_that_opens_a_conversation_is_trained_on_behind_what_the_template_puts(
    tmp_path, chatty
):
    said = [{"role": "assistant", "content": "hello"}, *turns("a", "b")]
    found, _ = tokenized(tmp_path / "a.jsonl", [{"messages": said}], CHAT, TEMPLATE, chatty)
    asked = [BOS, *b"user:a", EOS, BOS, *b"assistant:"]
    assert found == [
        row_of(
            ([BOS, *b"assistant:"], False),
            ([*b"hello", EOS], True),
            (asked, False),
            ([*b"b", EOS], True),
        )
    ]


def test_a_template_defines_the_beginning_and_end_of_a_response(tmp_path, chatty):
    rows = [{"question": "1 + 1", "answer": "<think>2</think>two"}]
    found, _ = tokenized(tmp_path / "a.jsonl", rows, PAIR, TEMPLATE, chatty)
    prompt = [BOS, *b"user:1 + 1", EOS, BOS, *b"assistant:"]
    response = [*BYTES.think_open, *b"2", *BYTES.think_close, *b"two", EOS]
    assert found == [row_of((prompt, False), (response, True))]
    assert chatty.chat_template == TEMPLATE
    assert BYTES.chat_template is None


def test_a_conversation_is_one_row_unless_its_past_is_rendered_differently(tmp_path, chatty):
    """Later prompts drop earlier thoughts, so the rest of the conversation is a separate row."""
    plain = turns("a", "b", "c", "d", system=["s"])
    thought = turns("a", "<think>h</think>b", "c", "<think>k</think>d")
    rows = [{"messages": plain}, {"messages": thought}]
    found, source = tokenized(tmp_path / "a.jsonl", rows, CHAT, TEMPLATE, chatty)
    turn = lambda role, text: [BOS, *role.encode(), *b":", *text.encode(), EOS]
    ask = [BOS, *b"assistant:"]
    think = lambda text: [*BYTES.think_open, *text.encode(), *BYTES.think_close]
    assert found == [
        row_of(
            ([*turn("system", "s"), *turn("user", "a"), *ask], False),
            ([*b"b", EOS], True),
            ([*turn("user", "c"), *ask], False),
            ([*b"d", EOS], True),
        ),
        row_of(([*turn("user", "a"), *ask], False), ([*think("h"), *b"b", EOS], True)),
        row_of(
            ([*turn("user", "a"), *turn("assistant", "b"), *turn("user", "c"), *ask], False),
            ([*think("k"), *b"d", EOS], True),
        ),
    ]
    assert source == [0, 1, 1]


def with_bos(ids, trained_on):
    """Return a pair with the BOS that precedes it in a row."""
    return [BOS, *ids], [False, *trained_on]


def rows_of(stream):
    """Count the pairs (ids, loss mask) of every segment of every row."""
    batch = stream.batch(0, len(stream))
    assert not batch.loss_mask[batch.segment == 0].any()
    return collections.Counter(
        (tuple(tokens[segment == n].tolist()), tuple(mask[segment == n].tolist()))
        for tokens, segment, mask in zip(batch.tokens, batch.segment, batch.loss_mask, strict=True)
        for n in range(1, segment.max() + 1)
    )


# Rows.


@pytest.mark.parametrize("pack", [False, True])
def test_rows_hold_every_pair_that_fits_once_and_the_others_are_counted(tmp_path, pack):
    rows, size = numbered(40), 16
    every, _ = tokenized(tmp_path / "a.jsonl", rows)
    every = [with_bos(*pair) for pair in every]
    streams = pair_streams(
        train=str(tmp_path / "a.jsonl"), holdout_every=4, form=PAIR, template=None,
        tokenizer=BYTES, sequence_length=size, pack=pack,
    )  # fmt: skip
    held = np.arange(1, 41) % 4 == 0
    for stream, chosen in zip(streams, (~held, held), strict=True):
        here = [(tuple(i), tuple(m)) for (i, m), is_in in zip(every, chosen, strict=True) if is_in]
        fits = [pair for pair in here if len(pair[0]) <= size]
        assert rows_of(stream) == collections.Counter(fits)
        assert stream.skipped == len(here) - len(fits) > 0
    assert (streams[0].batch(0, len(streams[0])).segment.max() > 1) == pack
    assert streams[1].batch(0, len(streams[1])).segment.max() == 1
    assert any(len(ids) == size for ids, _ in rows_of(streams[0]))  # just fits


def test_rows_of_one_conversation_are_held_out_together(tmp_path, chatty):
    rows = [{"messages": turns(f"{i}", "<think>h</think>b", "c", "d")} for i in range(6)]
    path = write(tmp_path / "a.jsonl", rows)
    train, held = pair_streams(
        train=path, holdout_every=3, form=CHAT, template=TEMPLATE, tokenizer=chatty,
        sequence_length=99,
    )  # fmt: skip
    first = lambda stream: collections.Counter(
        ids[len(b"?user:")] - 48 for ids, _ in rows_of(stream)
    )
    assert first(train) == {0: 2, 1: 2, 3: 2, 4: 2}
    assert first(held) == {2: 2, 5: 2}


def test_files_of_held_out_pairs_are_held_out_whole(tmp_path):
    rows = numbered(9)
    paths = [write(tmp_path / f"{n}.jsonl", some) for n, some in enumerate((rows[:5], rows[5:]))]
    every, _ = tokenized(tmp_path / "a.jsonl", rows)
    every = [tuple(map(tuple, with_bos(*pair))) for pair in every]
    form = {"form": PAIR, "template": None, "tokenizer": BYTES, "sequence_length": 40}
    train, held = pair_streams(train=paths[0], evaluation=paths[1], **form)
    assert rows_of(train) == collections.Counter(every[:5])
    assert rows_of(held) == collections.Counter(every[5:])
    with pytest.raises(UserError, match=r"1.jsonl is in both data.sft.train and data.sft.eval"):
        pair_streams(train=",".join(paths), evaluation=paths[1], **form)


ASKED = {"question": "a", "answer": "b"}
PARTS = [{"type": "text", "text": "a"}, {"type": "image", "image": "a.png"}]


def chat(*messages):
    """Return a row whose conversation ends with these messages."""
    return {"messages": [*turns("a", "b", "c"), *messages]}


UNUSABLE = {  # case → format, row, message
    "no such column": (PAIR, {"question": "a"}, "column 'answer' not found"),
    "no text": (
        PAIR,
        {"question": 7, "answer": "b"},
        "column 'question' must be a text but",
    ),
    "no response": (PAIR, ASKED | {"answer": None}, "column 'answer' must be a text but is null"),
    "no object": (PAIR, [1], "must be a JSON object but is list"),
    "half a surrogate pair": (PAIR, ASKED | {"answer": "\udc00"}, "'answer' is not valid Unicode"),
    "no list": (CHAT, {"messages": "a"}, "column 'messages' must be a list of messages but is str"),
    "no messages": (CHAT, {"messages": None}, "'messages' must be a list of messages but is null"),
    "an empty list": (CHAT, {"messages": []}, "column 'messages' is an empty list"),
    "no message": (CHAT, chat("d"), 'message 4: must be an object with "role" and'),
    "no content": (
        CHAT,
        chat({"role": "assistant"}),
        "message 4: the content is missing or null",
    ),
    "null": (
        CHAT,
        chat({"role": "assistant", "content": None}),
        "message 4: the content is missing",
    ),
    "a number": (
        CHAT,
        chat({"role": "tool", "content": 4}),
        "4: column 'content' must be a text b",
    ),
    "no role": (
        CHAT,
        chat({"content": "d"}),
        "message 4: the role is missing; use one of sys",
    ),
    "unknown role": (
        CHAT,
        chat({"from": "Narrator", "value": "d"}),
        "4: unknown role 'Narrator'",
    ),
    "a role of no text": (
        CHAT,
        chat({"role": 1, "content": "d"}),
        "message 4: unknown role 1",
    ),
    "an image": (
        CHAT,
        chat({"role": "tool", "content": PARTS}),
        "part 2: type 'image' is not supported; only text",
    ),
    "no text in a part": (
        CHAT,
        chat({"role": "tool", "content": [{"type": "text"}]}),
        "message 4, part 1: column 'text' must be a text but is null",
    ),
    "no assistant": (CHAT, {"messages": turns("a")}, "no message has the role 'assistant'"),
    "an answer in a prompt": (
        PAIR,
        {"question": turns("a", "b", "c"), "answer": "d"},
        "column 'question' contains a message of role 'assistant'; join it and the response",
    ),
}


# What cannot be used.


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_row_that_is_not_a_pair_is_named_and_left_out_up_to_a_share(case, tmp_path, caplog):
    form, row, message = UNUSABLE[case]
    good = ASKED if form is PAIR else SAID
    rows = [good] * 4 + [row]
    found, source = tokenized(tmp_path / "a.jsonl", rows, form)
    assert (len(found), source) == (4, [0, 1, 2, 3])
    (logged,) = caplog.messages
    assert "data.sft.train: 1 of 5 rows cannot be used and are skipped: " in logged
    assert f"{tmp_path}/a.jsonl, line 5" in logged
    assert message in logged
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        tokenized(tmp_path / "a.jsonl", [good] * 3 + [row], form)
    assert "1 of 4 rows cannot be used, more than data.max_unusable_share=0.2" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_that_no_row_has_is_named_with_those_there_are(tmp_path):
    form = Format(prompt="question", response="reply")
    message = "a.jsonl: column 'reply' not found; set data.sft.response_column to one of: question,"
    with pytest.raises(UserError, match=message):
        tokenized(tmp_path / "a.jsonl", [ASKED] * 3, form)


def test_empty_responses_are_not_pairs_and_are_counted(tmp_path, caplog):
    rows = [ASKED | {"answer": answer} for answer in ("", " \n", "b")]
    found, _ = tokenized(tmp_path / "a.jsonl", rows)
    assert len(found) == 1
    assert not caplog.messages
    with pytest.raises(UserError, match="no pairs in .*a.jsonl: every response is empty"):
        tokenized(tmp_path / "a.jsonl", rows[:2])


def test_one_line_summarizes_the_files(tmp_path, caplog):
    write(tmp_path / "a.jsonl", [ASKED] * 9 + [ASKED | {"answer": ""}, ASKED | {"answer": None}])
    write(tmp_path / "b.jsonl", [ASKED | {"question": "a" * 40}])
    (tmp_path / "c.csv").touch()
    caplog.set_level("INFO", "rlp")
    pair_streams(
        train=str(tmp_path), holdout_every=5, form=PAIR, template=None, tokenizer=BYTES,
        sequence_length=9,
    )  # fmt: skip
    (line,) = [message for message in caplog.messages if "read 2 files" in message]
    assert line == (
        "data.sft.train: read 2 files (2 .jsonl), skipped: 1 .csv; 10 pairs with 59 characters "
        "and 69 tokens, left out: 1 empty and 1 unusable; 8 training rows; 1 held-out row, left "
        "out: 1 pair (longer than data.sequence_length)"
    )


# Files.


def test_a_text_file_has_no_pairs(tmp_path):
    (tmp_path / "a.txt").write_text("a b")
    with pytest.raises(UserError, match=r"a.txt: a text file has no columns 'question' and 'ans"):
        tokenize_pairs([str(tmp_path / "a.txt")], "data.sft.train", PAIR, None, BYTES)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for m in messages %}{{ m.content }}",
            "line 1: the chat template fails: Unexpected end",
        ),
        (
            "{{ raise_exception('only three\nmay speak') }}",
            "chat template fails: only three may spe",
        ),
        (
            "{{ messages[-1].content }}{% if add_generation_prompt %}>{% endif %}",
            "line 1: the chat template renders message 2 without the text that its gen",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_named_with_the_row(tmp_path, template, message, chatty):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        tokenized(tmp_path / "a.jsonl", [ASKED], PAIR, template, chatty)
    assert "\n" not in str(caught.value)


def test_bytes_have_no_chat_template(tmp_path):
    with pytest.raises(
        UserError, match=r"line 1: the byte tokenizer has no tokens for a chat template; use"
    ):
        tokenized(tmp_path / "a.jsonl", [ASKED], PAIR, TEMPLATE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"holdout_every": 9},
            r"data.sft.train has too few pairs \(8\) .* one in 9: set data.sft",
        ),
        (
            {"sequence_length": 3},
            "no training pair of data.sft fits in data.sequence_length=3 .* has 4",
        ),
    ],
)
def test_unusable_settings_say_what_to_change(tmp_path, changes, message):
    path = write(tmp_path / "a.jsonl", [{"question": "q", "answer": "a"}] * 8)
    options = {"holdout_every": 4, "sequence_length": 9, "form": PAIR, "template": None}
    with pytest.raises(UserError, match=message):
        pair_streams(train=path, tokenizer=BYTES, **options | changes)


# Mixtures.


def test_a_template_that_exceeds_a_limit_is_refused_and_no_row_is_left_out(
    tmp_path, chatty, monkeypatch
):
    """The error is raised at once, since the next row would take as long again."""
    monkeypatch.setattr("rlp.tokenizers.chat_templates.SECONDS", 0.5)
    endless = "{% for a in range(99999) %}" * 5 + "{% endfor %}" * 5
    template = "{% for m in messages %}{{ m.content }}{% if m.content == 'x' %}" + endless
    template += "{% endif %}{% endfor %}"
    rows = [{"messages": turns(str(n), "x" if n == 2 else "y")} for n in range(9)]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=r"a.jsonl, line 3: the chat template .* takes longer than"):
        tokenize_pairs([path], "data.sft.train", CHAT, template, chatty)
