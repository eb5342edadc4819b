"""Roles and contents of messages: every common format gives the same rows."""

import json

import pytest

from rlp.tokenizers.load import load_tokenizer
from tests.support import folders
from tests.support.pairs import BOS, CHAT, EOS, PAIR, SAID, TEMPLATE, tokenized, turns

# Tokens.


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_every_form_of_a_conversation_gives_the_same_rows(tmp_path, ending, chatty):
    said = [("a", "b"), ("c", "<think>é</think>d")]
    pairs = [{"question": q, "answer": a} for q, a in said]
    chats = [{"messages": turns(q, a)} for q, a in said]
    shared = [
        {"messages": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]} for q, a in said
    ]
    for template in (None, TEMPLATE):
        found = [
            tokenized(tmp_path / f"a.{ending}", rows, form, template, chatty)
            for rows, form in ((pairs, PAIR), (chats, CHAT), (shared, CHAT))
        ]
        assert found[0] == found[1] == found[2]


CALL = {"tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}
NAMES_OF = {
    "system": ("system", "developer", "System"),
    "user": ("user", "human", "USER", "Human"),
    "assistant": (
        *("assistant", "gpt", "chatgpt", "ChatGPT", "bot", "chatbot", "model", "ai", "AI", "bing"),
    ),
    "tool": ("tool", "function", "observation", "ipython"),
}


# Roles and contents.


@pytest.mark.parametrize("role", NAMES_OF)
@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value")])
def test_the_usual_names_of_a_role_are_that_role(tmp_path, role, keys, chatty):
    """No turn is dropped if an alias is used in the middle of a conversation."""

    def row(name):
        said = [("human", "a"), ("gpt", "b"), (name, "c"), ("gpt", "d")]
        return {"messages": [dict(zip(keys, turn, strict=True)) for turn in said]}

    names = NAMES_OF[role]
    for template in (None, TEMPLATE):
        found, _ = tokenized(tmp_path / "a.jsonl", map(row, names), CHAT, template, chatty)
        if template:
            text = chatty.decode(found[0][0])
            assert f"<bos>{role}:c<eos>" in text
        assert len(found) == len(names)
        assert all(pair == found[0] for pair in found)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_every_form_of_a_content_gives_the_same_row(tmp_path, ending, template, chatty):
    plain = turns("ab", "cd")
    as_parts = lambda text: [{"type": "text", "text": letter} for letter in text]
    forms = [
        plain,
        [{"role": m["role"], "content": as_parts(m["content"])} for m in plain],
        [{"from": m["role"], "value": m["content"]} for m in plain],
        [m | {"tool_calls": None, "name": None, "from": None, "value": None} for m in plain],
        json.dumps(plain),
    ]
    expected = tokenized(
        tmp_path / f"a.{ending}", [SAID, {"messages": plain}], CHAT, template, chatty
    )
    for messages in forms:
        rows = [{"messages": messages}]
        found, _ = tokenized(tmp_path / f"a.{ending}", rows, CHAT, template, chatty)
        assert found == expected[0][1:]


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_prompt_and_a_response_may_be_lists_of_messages(tmp_path, template, chatty):
    whole = turns("a", "b", system=["s"])
    rows = [{"messages": whole}]
    expected, _ = tokenized(tmp_path / "a.jsonl", rows, CHAT, template, chatty)
    for response in (whole[2:], "b"):
        rows = [{"question": whole[:2], "answer": response}]
        found, _ = tokenized(tmp_path / "a.jsonl", rows, PAIR, template, chatty)
        assert found == expected


CALLING = TEMPLATE.replace(
    "<eos>{% endfor %}",
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }}{{ c.function.arguments | tojson }}]"
    "{% endfor %}<eos>{% endfor %}",
)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_tool_calls_are_trained_on_even_if_the_content_is_null(tmp_path, ending, chatty):
    """A call without content is a response, with exactly the arguments of its row."""
    call = lambda **given: {"tool_calls": [{"function": {"name": "f", "arguments": given}}]}
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]
    rows = [
        {"messages": [said[0], said[1] | call(x="1")]},
        {"messages": [said[0], said[1] | call(y="2")]},
        {"messages": [*said[:1], {"role": "assistant"} | call(x="3")]},
    ]
    found, _ = tokenized(tmp_path / f"a.{ending}", rows, CHAT, CALLING, chatty)
    texts = [
        chatty.decode([i for i, trained_on in zip(*pair, strict=True) if trained_on])
        for pair in found
    ]
    assert texts == ['[f{"x": "1"}]<eos>', '[f{"y": "2"}]<eos>', '[f{"x": "3"}]<eos>']


LOOP = "{% for m in messages "


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ("if m.role != 'tool' ", {"role": "tool", "content": "b"}),
        ("if m.role != 'system' ", {"role": "developer", "content": "c"}),
        ("if m.content[0] != 'x' ", {"role": "user", "content": "xyz"}),
    ],
)
def test_what_a_template_leaves_out_makes_a_row_unusable(tmp_path, shown, message, chatty, caplog):
    row = {"messages": [*turns("a", "b", "c"), message, *turns("e", "f")]}
    template = TEMPLATE.replace(LOOP, LOOP + shown)
    found, _ = tokenized(tmp_path / "a.jsonl", [SAID] * 4 + [row], CHAT, template, chatty)
    assert len(found) == 4
    assert "message 4: the chat template drops the content of role" in caplog.text
    assert "set data.chat_template to another template" in caplog.text


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_calls_that_nothing_writes_are_left_out_with_a_warning(tmp_path, template, chatty, caplog):
    called = {"role": "assistant", "content": None} | CALL
    tool = {"role": "tool", "content": "4"}
    rows = [
        {"messages": [*turns("a"), called, tool, *turns("b", "c")[1:]]},
        {"messages": [*turns("a"), called]},
        {"messages": [*turns("a"), {"role": "assistant", "content": "b"} | CALL]},
    ]
    found, _ = tokenized(tmp_path / "a.jsonl", rows, CHAT, template, chatty)
    assert len(found) == 2  # without its call, the second row is empty
    (logged,) = caplog.messages
    assert "data.sft.train: the tool calls of 2 row(s) are left out" in logged
    assert "set it to a template that does" in logged
    assert logged.endswith(f"{tmp_path}/a.jsonl, line 1, {tmp_path}/a.jsonl, line 3")
    caplog.clear()
    found, _ = tokenized(tmp_path / "a.jsonl", rows, CHAT, CALLING, chatty)
    assert len(found) == 3
    assert not caplog.messages


def test_a_template_may_trim_and_escape_a_content(tmp_path, chatty, caplog):
    inside = TEMPLATE[TEMPLATE.index("{{ m.content") : TEMPLATE.index("<eos>")]
    template = TEMPLATE.replace(inside, "{{ m.content | trim | escape }}")
    rows = [{"messages": turns(" a \n", " b ", system=[" s "])}, {"messages": turns("&", "<b>")}]
    found, _ = tokenized(tmp_path / "a.jsonl", rows, CHAT, template, chatty)
    assert len(found) == 2
    assert not caplog.messages


def test_rows_that_a_template_refuses_are_left_out(tmp_path, chatty, caplog):
    refuses = "{% if messages[0].content == 'no' %}{{ raise_exception('not this') }}{% endif %}"
    rows = [SAID] * 4 + [{"messages": turns("no", "b")}]
    found, _ = tokenized(tmp_path / "a.jsonl", rows, CHAT, refuses + TEMPLATE, chatty)
    assert len(found) == 4
    assert "a.jsonl, line 5: the chat template fails: not this" in caplog.text


def test_a_conversation_that_opens_with_a_call_alone_trains_on_the_call(tmp_path, chatty):
    row = {"messages": [{"role": "assistant", "content": None} | CALL, *turns("a", "b")]}
    ((ids, trained_on),), _ = tokenized(tmp_path / "a.jsonl", [row], CHAT, CALLING, chatty)
    trained_ids = [i for i, in_loss in zip(ids, trained_on, strict=True) if in_loss]
    assert len(trained_ids) > len([*b"b", EOS]) + 1
    assert chatty.decode(trained_ids).endswith("<eos>b<eos>")


@pytest.mark.parametrize("said", ["a", "s", "assistant", "<bos>"])
def test_a_short_message_that_opens_a_conversation_is_not_looked_for_in_its_header(
    tmp_path, chatty, said
):
    row = {"messages": [{"role": "assistant", "content": said}, *turns("q", "w")]}
    ((ids, trained_on),), _ = tokenized(tmp_path / "a.jsonl", [row], CHAT, TEMPLATE, chatty)
    header = [BOS, *b"assistant:"]
    assert ids[: len(header)] == header
    assert not any(trained_on[: len(header)])
    trained_ids = [i for i, in_loss in zip(ids, trained_on, strict=True) if in_loss]
    assert chatty.decode(trained_ids) == f"{said}<eos>w<eos>"


def test_an_end_of_a_turn_that_takes_in_the_space_after_it_is_trained_on(tmp_path):
    """Some tokenizers have such tokens (`rstrip`); some templates begin turns with a newline."""
    folder = folders.folder_of(tmp_path, "bytes")
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    for token in tokenizer["added_tokens"]:
        token["rstrip"] = token["content"] == "<eos>"
    path.write_text(json.dumps(tokenizer))
    words = load_tokenizer(folder)
    breaks = TEMPLATE.replace("<bos>{{", "\n<bos>{{").replace("%}<bos>a", "%}\n<bos>a")
    ((ids, trained_on),), _ = tokenized(
        tmp_path / "a.jsonl", [{"messages": turns("a", "b", "c", "d")}], CHAT, breaks, words
    )
    trained_ids = [i for i, in_loss in zip(ids, trained_on, strict=True) if in_loss]
    assert trained_ids == [*b"b", EOS, *b"d", EOS]


def test_half_a_surrogate_pair_in_what_a_template_writes_makes_a_row_unusable(
    tmp_path, chatty, caplog
):
    call = {"tool_calls": [{"function": {"name": "\ud800", "arguments": {}}}]}
    row = {"messages": [*turns("a"), {"role": "assistant", "content": None} | call]}
    found, _ = tokenized(tmp_path / "a.jsonl", [SAID] * 4 + [row], CHAT, CALLING, chatty)
    assert len(found) == 4
    assert "line 5: " in caplog.text
    assert "not valid Unicode" in caplog.text


# Mixtures.


@pytest.mark.parametrize("template", [None, TEMPLATE], ids=["plain", "template"])
@pytest.mark.parametrize("excluded", [{"content": ""}, {"content": "x", "weight": 0}])
def test_a_turn_that_is_empty_or_has_weight_0_is_not_trained_on(
    tmp_path, chatty, template, excluded
):
    messages = turns("a", "b", "c", "d")
    messages[1] = {"role": "assistant"} | excluded
    found, _ = tokenized(tmp_path / "a.jsonl", [{"messages": messages}], CHAT, template, chatty)
    ((ids, trained_on),) = found
    assert [i for i, in_loss in zip(ids, trained_on, strict=True) if in_loss] == [*b"d", EOS]
