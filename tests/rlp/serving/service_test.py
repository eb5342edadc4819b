"""What is too much is refused before anything is encoded."""

import pytest

from rlp.serving import protocol
from rlp.serving.fields import ApiError
from rlp.serving.service import Service
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
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
