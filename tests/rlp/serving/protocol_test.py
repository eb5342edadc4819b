"""Every parameter of a request is implemented, or changes nothing at its value, or is refused by
name."""

import json

import pytest

from rlp.evaluation.generation.requests import Sampling
from rlp.serving import protocol
from rlp.serving.fields import ApiError, read_object
from rlp.serving.protocol import Chat, Completion, Options

MODEL = "tiny"
HI = [{"role": "user", "content": "hi"}]


def completion(**body) -> Completion:
    return protocol.read_completion({"prompt": "a"} | body, MODEL)


def chat(**body) -> Chat:
    return protocol.read_chat({"messages": HI} | body, MODEL)


READERS = {"completion": completion, "chat": chat}

# Parameter, value, and what it changes in the options of both kinds of requests.
IMPLEMENTED = [
    ("model", MODEL, {}),
    ("n", 3, {"n": 3}),
    ("max_tokens", 7, {"max_tokens": 7}),
    ("max_tokens", None, {"max_tokens": None}),
    ("temperature", 0, {"sampling": Sampling(0.0)}),
    ("temperature", 0.5, {"sampling": Sampling(0.5)}),
    ("top_p", 0.9, {"sampling": Sampling(1.0, top_p=0.9)}),
    ("top_k", 5, {"sampling": Sampling(1.0, top_k=5)}),
    ("top_k", -1, {}),
    ("seed", 9, {"seed": 9}),
    ("seed", -1, {"seed": 2**32 - 1}),
    ("seed", 2**63 - 1, {"seed": 2**32 - 1}),
    ("stop", "x", {"stop": ("x",)}),
    ("stop", ["x", "yz"], {"stop": ("x", "yz")}),
    ("stop_token_ids", [3, 4], {"stop_ids": (3, 4)}),
    ("ignore_eos", True, {"ignore_eos": True}),
    ("stream", True, {"stream": True}),
    ("best_of", 1, {}),
]


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(("name", "value", "changes"), IMPLEMENTED)
def test_a_parameter_is_followed(kind, name, value, changes):
    plain = {"max_tokens": protocol.COMPLETION_TOKENS if kind == "completion" else None}
    assert READERS[kind](**{name: value}).options == Options(**(plain | changes))


def test_parameters_of_one_kind_are_followed():
    assert completion(logprobs=2).options.top == 2
    assert completion(echo=True, max_tokens=0).echo
    assert not completion(add_special_tokens=False).bos
    assert chat(max_completion_tokens=7).options.max_tokens == 7
    assert chat(logprobs=True).options.top == 0
    assert chat(logprobs=True, top_logprobs=4).options.top == 4
    assert chat(logprobs=False).options.top is None
    streamed = chat(stream=True, stream_options={"include_usage": True}).options
    assert streamed.stream
    assert streamed.include_usage


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", ("",)),
        (["a", "bc"], ("a", "bc")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_a_prompt_is_texts_or_ids(prompt, expected):
    assert completion(prompt=prompt).prompts == expected


def test_parts_of_a_message_are_joined():
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    message = {"role": "user", "content": parts, "name": "Mia", "tool_calls": None, "refusal": ""}
    (read,) = chat(messages=[message]).messages
    assert read == {"role": "user", "content": "a b", "name": "Mia"}


# Values that change nothing; every other one is refused.
NEUTRAL = [
    ("presence_penalty", 0, 0.5),
    ("frequency_penalty", 0.0, -1),
    ("logit_bias", {}, {"5": 1}),
    ("min_p", 0.0, 0.1),
    ("repetition_penalty", 1.0, 1.1),
    ("min_tokens", 0, 1),
    ("use_beam_search", False, True),
    ("skip_special_tokens", False, True),
    ("presence_penalty", None, False),
    ("store", False, True),
    ("service_tier", "auto", "flex"),
    ("user", "me", 3),
]
NEUTRAL_CHAT = [
    ("response_format", {"type": "text"}, {"type": "json_object"}),
    ("tools", [], [{"type": "function"}]),
    ("tool_choice", "none", "required"),
    ("functions", [], [{}]),
    ("metadata", {"a": "b"}, {"a": 1}),
    ("modalities", ["text"], ["audio"]),
    ("reasoning_effort", None, "high"),
    ("chat_template", None, "{{ 1 }}"),
    ("add_generation_prompt", True, False),
    ("continue_final_message", False, True),
    ("echo", False, True),
]
OF_BOTH = [(kind, *case) for kind in READERS for case in NEUTRAL]


@pytest.mark.parametrize(
    ("kind", "name", "same", "other"),
    [*OF_BOTH, *(("chat", *case) for case in NEUTRAL_CHAT), ("completion", "suffix", "", "end")],
)
def test_a_value_that_changes_nothing_is_accepted_and_another_refused(kind, name, same, other):
    read = READERS[kind]
    assert read(**{name: same}) == read()
    with pytest.raises(ApiError) as refused:
        read(**{name: other})
    assert (refused.value.status, refused.value.param) == (400, name)
    assert name in refused.value.message


WRONG = [
    ("n", 0),
    ("n", 129),
    ("n", True),
    ("n", 1.5),
    ("n", "2"),
    ("best_of", 2),
    ("max_tokens", -1),
    ("max_tokens", 2**31),
    ("max_tokens", 10**299),
    ("temperature", -0.1),
    ("temperature", 1e-9),
    ("temperature", 1e9),
    ("temperature", float("nan")),
    ("temperature", float("inf")),
    ("temperature", 10**299 * 10**20),
    ("temperature", "0"),
    ("temperature", True),
    ("temperature", [1]),
    ("top_p", 0),
    ("top_p", 1.1),
    ("top_k", -2),
    ("top_k", 2.0),
    ("seed", 2**63),
    ("seed", "a"),
    ("stop", ""),
    ("stop", ["x", ""]),
    ("stop", [3]),
    ("stop", {"x": 1}),
    ("stop", ["x"] * 65),
    ("stop", "\ud800"),
    ("stop", "x" * 1001),
    ("request_id", "mine"),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", [1.0]),
    ("ignore_eos", 1),
    ("stream", "yes"),
    ("stream_options", {"include_usage": True}),
    ("anything", None),
    ("\ud800", 1),
]
WRONG_COMPLETION = [
    ("prompt", None),
    ("prompt", []),
    ("prompt", 3),
    ("prompt", ["a", 1]),
    ("prompt", [[1], "a"]),
    ("prompt", [True]),
    ("prompt", [1.0]),
    ("prompt", "\udfff"),
    ("prompt", {"a": 1}),
    ("max_tokens", 0),
    ("logprobs", True),
    ("logprobs", 21),
    ("logprobs", -1),
    ("echo", "true"),
]
WRONG_CHAT = [
    ("messages", None),
    ("messages", []),
    ("messages", "hi"),
    ("messages", ["hi"]),
    ("max_tokens", 0),
    ("logprobs", 1),
    ("top_logprobs", 2),
    ("prompt", "a"),
]
WRONG_OF_BOTH = [(kind, *case) for kind in READERS for case in WRONG]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *WRONG_OF_BOTH,
        *(("completion", *case) for case in WRONG_COMPLETION),
        *(("chat", *case) for case in WRONG_CHAT),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(kind, name, value):
    with pytest.raises(ApiError) as refused:
        READERS[kind](**{name: value})
    error = refused.value
    assert error.status == 400
    assert str(error.param).split("[")[0] == name
    assert "\n" not in error.message
    error.message.encode()


@pytest.mark.parametrize(
    "message",
    [
        {"content": "a"},
        {"role": "user"},
        {"role": 1, "content": "a"},
        {"role": "user", "content": "a", "tool_calls": [{}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "user", "content": [{"type": "text", "text": 1}]},
        {"role": "user", "content": ["a"]},
        {"role": "user", "content": [{"type": ["text"]}]},
        {"role": "user", "content": "\ud800"},
        {"role": "user", "content": [{"type": "text", "text": "a", "unknown": {}}]},
        {"role": "user", "content": [{"type": "x" * 10**6}]},
    ],
)
def test_a_message_with_something_else_than_text_is_refused(message):
    with pytest.raises(ApiError) as refused:
        chat(messages=[*HI, message])
    assert str(refused.value.param).startswith("messages")
    assert len(refused.value.message) < 250
    assert ("unknown" in str(message)) == ("'unknown', which is not" in refused.value.message)


def test_combinations_that_contradict_each_other_are_refused():
    for name, body in [
        ("max_tokens", {"max_tokens": 3, "max_completion_tokens": 4}),
        ("logprobs", {"stream": True, "logprobs": True}),
        ("stream_options", {"stream": True, "stream_options": 1}),
        ("include_obfuscation", {"stream": True, "stream_options": {"include_obfuscation": True}}),
        ("more", {"stream": True, "stream_options": {"more": 1}}),
    ]:
        with pytest.raises(ApiError) as refused:
            chat(**body)
        assert refused.value.param == name


def test_another_model_is_not_found():
    with pytest.raises(ApiError, match="the model 'gpt' is not served; use 'tiny'") as refused:
        completion(model="gpt")
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"{",
        b"[1]",
        b"[" * 100_000,
        b'{"a": ' * 200 + b"1" + b"}" * 200,
        b'{"a": ' + b"9" * 400 + b"}",
        b"null",
    ],
)
def test_a_body_that_is_not_a_json_object_is_refused(body):
    with pytest.raises(ApiError, match="the body is not") as refused:
        read_object(body)
    assert refused.value.status == 400


def test_numbers_that_are_not_json_are_refused_wherever_they_are():
    for text in ('{"temperature": NaN}', '{"top_p": -Infinity}', '{"temperature": 1e999}'):
        with pytest.raises(ApiError, match="it must be a number"):
            completion(**read_object(text.encode()))


def test_the_routes_of_the_tokenizer_have_their_own_parameters():
    read = protocol.read_tokenize({"prompt": "a", "add_special_tokens": False}, MODEL)
    assert (read.prompt, read.bos, read.names) == ("a", False, False)
    read = protocol.read_tokenize({"messages": HI, "return_token_strs": True}, MODEL)
    assert (read.prompt, read.bos, read.ask, read.names) == (None, False, True, True)
    assert protocol.read_detokenize({"tokens": [1, 2], "model": MODEL}, MODEL) == (1, 2)
    for wrong in ({}, {"prompt": "a", "messages": HI}, {"prompt": ["a"]}, {"prompt": "a", "n": 1}):
        with pytest.raises(ApiError):
            protocol.read_tokenize(wrong, MODEL)
    for tokens in (None, "a", [1.0], [[1]]):
        with pytest.raises(ApiError):
            protocol.read_detokenize(json.loads(json.dumps({"tokens": tokens})), MODEL)
