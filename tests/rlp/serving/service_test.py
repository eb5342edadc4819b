"""What is too much is refused before anything is encoded."""

import pytest

from rlp.serving import protocol
from rlp.serving.fields import ApiError
from rlp.serving.service import Service
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.word_tokenizer import WordTokenizer
from tests.support.scripted import scripted_model

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def service():
    return Service(scripted_model("tiny"), context=64, queue=8)


@pytest.fixture
def nothing_encoded(monkeypatch):
    monkeypatch.setattr(ByteTokenizer, "encode", lambda *_: pytest.fail("a text was encoded"))


def completion(service, **body):
    return service.completion(protocol.read_completion({"prompt": "a"} | body, "tiny"))


def chat(service, **body):
    return service.chat(protocol.read_chat({"messages": HI} | body, "tiny"))


@pytest.mark.parametrize(
    ("ask", "body"),
    [
        (completion, {"prompt": ["a"] * 9}),
        (completion, {"prompt": ["a"] * 3, "n": 3}),
        (chat, {"n": 9}),
    ],
)
def test_more_texts_than_the_queue_takes_are_refused(service, nothing_encoded, ask, body):
    with pytest.raises(ApiError, match="9 texts were asked for; .* takes 8 at most") as refused:
        ask(service, **body)
    assert (refused.value.status, refused.value.param) == (400, "n")
    with pytest.raises(pytest.fail.Exception):
        completion(service, n=8)


def test_a_text_that_cannot_fit_is_refused(service, nothing_encoded, monkeypatch):
    longest = max(len(name) for name in ByteTokenizer()._bytes)
    assert service.names.longest == longest
    for text in ("a" * (64 * longest + 1), "é" * (32 * longest + 1)):
        with pytest.raises(ApiError, match="exceeds the context") as refused:
            completion(service, prompt=text)
        assert (refused.value.param, refused.value.code) == ("prompt", "context_length_exceeded")
    monkeypatch.setattr(service, "_rendered", lambda *_: "a" * (64 * longest + 1))
    with pytest.raises(ApiError, match="exceeds the context"):
        chat(service)


def test_a_text_that_can_fit_is_encoded(service):
    assert len(completion(service, prompt="a" * 40).prompts[0]) >= 40
    words = Service(scripted_model("words", tokenizer=WordTokenizer(["a"], "a test")), 64, 8)
    assert words.names.longest is None
    assert len(completion(words, prompt="a" + " " * 10**5).prompts[0]) <= 2
