"""Real clients get from the server what the generator and the scorer of the model compute."""

import http.client
import json
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from rlp.evaluation.generation.requests import Request, Sampling
from rlp.evaluation.harness import harness_model
from rlp.serving.service import Service
from tests.support import served

openai = pytest.importorskip("openai", reason="requirements-test.txt")
requests = pytest.importorskip("requests")

MESSAGES = [{"role": "user", "content": "one and one?"}]
BOS = "<bos>"


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def complete(client, prompt="abc", **options):
    return client.completions.create(model=served.NAME, prompt=prompt, **options)


def ask(client, **options):
    return client.chat.completions.create(model=served.NAME, messages=MESSAGES, **options)


def ids(model, text) -> tuple[int, ...]:
    return (*model.tokenizer.bos, *model.tokenizer.encode(text))


def test_a_completion_is_the_response_of_the_generator(server, client):
    model = server.model
    (greedy,) = model.generator.generate([Request(ids(model, "abc"), 16, ends=model.ends)])
    found = complete(client, temperature=0)
    assert found.choices[0].text == greedy.text
    assert found.usage.completion_tokens == len(greedy.tokens)
    assert found.usage.prompt_tokens == 4
    assert complete(client, [97, 98, 99], temperature=0).usage.prompt_tokens == 3
    many = complete(client, ["abc", "abcd", "abc"], temperature=0, max_tokens=5)
    assert [choice.index for choice in many.choices] == [0, 1, 2]
    assert many.choices[0].text == many.choices[2].text
    assert many.usage.prompt_tokens == 4 + 5 + 4


def test_a_seed_makes_responses_reproducible_and_different(server, client):
    model, options = server.model, {"max_tokens": 12, "extra_body": {"top_k": 9}}
    sampling = Sampling(1.0, top_p=0.9, top_k=9)
    request = Request(ids(model, "abc"), 12, sampling, seed=7, ends=model.ends)
    (expected,) = model.generator.generate([request])
    found = complete(client, n=3, seed=7, top_p=0.9, **options)
    texts = [choice.text for choice in found.choices]
    assert texts[0] == expected.text
    assert len(set(texts)) == 3
    assert [c.text for c in complete(client, n=3, seed=7, top_p=0.9, **options).choices] == texts
    free = {complete(client, top_p=0.9, **options).choices[0].text for _ in range(3)}
    assert len(free) > 1  # without a seed


def test_a_chat_uses_the_template_and_ends_with_the_context(server, client):
    model = server.model
    shown = f"<user> {MESSAGES[0]['content']}<eos><assistant> "
    prompt = tuple(model.tokenizer.encode(shown))
    left = served.CONTEXT - len(prompt)
    request = Request(prompt, left, Sampling(0.5), seed=3, ends=model.chat_ends)
    (expected,) = model.generator.generate([request])
    found = ask(client, seed=3, temperature=0.5)
    assert found.choices[0].message.content == expected.text
    assert found.choices[0].finish_reason == expected.finish
    assert found.usage.prompt_tokens == len(prompt)
    whole = ask(client, seed=3, temperature=0.5, extra_body={"ignore_eos": True})
    assert whole.usage.total_tokens == served.CONTEXT
    assert whole.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stop", [None, "stop"])
def test_a_stream_has_the_text_of_the_response(client, stop):
    options = {"seed": 5, "max_tokens": 60, "extra_body": {"ignore_eos": True}}
    whole = complete(client, **options).choices[0].text
    if stop:
        options["stop"] = ["never", whole[25:28]]
    expected = complete(client, n=2, echo=True, **options)
    parts = ["", ""]
    ends: dict[int, str] = {}
    streamed = complete(
        client, n=2, echo=True, stream=True, stream_options={"include_usage": True}, **options
    )
    *chunks, last = list(streamed)
    for chunk in chunks:
        (choice,) = chunk.choices
        parts[choice.index] += choice.text
        ends |= {choice.index: choice.finish_reason} if choice.finish_reason else {}
    assert parts == [choice.text for choice in expected.choices]
    assert ends == {choice.index: choice.finish_reason for choice in expected.choices}
    assert (last.choices, last.usage) == ([], expected.usage)
    assert len(chunks) > 2
    assert all(chunk.usage is None for chunk in chunks)


def test_a_chat_is_streamed_with_its_role_once(client):
    expected = ask(client, seed=5, max_tokens=40).choices[0].message.content
    chunks = [c.choices[0] for c in ask(client, seed=5, max_tokens=40, stream=True)]
    assert "".join(chunk.delta.content for chunk in chunks) == expected
    assert [chunk.delta.role for chunk in chunks] == ["assistant", *[None] * (len(chunks) - 1)]


def test_64_requests_at_once_have_the_responses_of_one_at_a_time(server, client):
    def one(number: int) -> str:
        sampling = {"temperature": number % 2, "seed": number}
        prompt = "abcdefgh"[number % 8 :] * (1 + number % 3)
        found = complete(client, prompt, max_tokens=4 + number % 29, **sampling)
        return found.choices[0].text

    expected = [one(number) for number in range(64)]
    with ThreadPoolExecutor(64) as threads:
        assert list(threads.map(one, range(64))) == expected
    assert server.serving.engine.texts == 0


def test_log_probabilities_have_their_places_in_the_text(server, client):
    found = complete(client, "aé", echo=True, logprobs=2, max_tokens=3, temperature=0).choices[0]
    scores = found.logprobs
    assert scores.tokens[:4] == [BOS, "a", "bytes:\\xc3", "bytes:\\xa9"]
    assert scores.text_offset[:5] == [0, 0, 1, 1, 2]
    assert (scores.token_logprobs[0], scores.top_logprobs[0]) == (None, None)
    assert len(scores.tokens) == 4 + 3
    for name, logprob, top in list(
        zip(scores.tokens, scores.token_logprobs, scores.top_logprobs, strict=True)
    )[1:]:
        assert len(top) in (2, 3)
        assert top[name] == logprob
        assert logprob <= max(top.values()) <= 0
    greedy = zip(scores.token_logprobs[4:], scores.top_logprobs[4:], strict=True)
    assert all(logprob == max(top.values()) for logprob, top in greedy)
    alone = complete(client, "aé", logprobs=2, max_tokens=3, temperature=0).choices[0]
    assert alone.logprobs.tokens == scores.tokens[4:]
    assert alone.logprobs.token_logprobs == pytest.approx(scores.token_logprobs[4:], abs=1e-5)
    assert alone.logprobs.text_offset[0] == 0
    echoed = complete(client, "aé", echo=True, logprobs=0, max_tokens=0).choices[0]
    assert (echoed.text, echoed.logprobs.top_logprobs) == ("aé", None)
    assert len(echoed.logprobs.tokens) == 4


def test_log_probabilities_of_a_chat_have_alternatives(client):
    found = ask(client, logprobs=True, top_logprobs=3, max_tokens=4, temperature=0).choices[0]
    assert len(found.logprobs.content) == 4
    for token in found.logprobs.content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob
        assert token.token == token.top_logprobs[0].token
    plain = ask(client, logprobs=True, max_tokens=4, temperature=0).choices[0]
    assert [token.top_logprobs for token in plain.logprobs.content] == [[]] * 4


# Its remote backend adds no BOS to a text; the other one does with add_bos_token, as the adapter.
@pytest.mark.parametrize("backend", ["remote", pytest.param("huggingface", marks=pytest.mark.slow)])
def test_lm_evals_client_agrees_with_the_adapter(server, backend, tmp_path):
    pytest.importorskip("lm_eval", reason="requirements-harness.txt")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    model = server.model
    ours = harness_model(
        model.scorer,
        model.generator,
        model.tokenizer,
        name="tiny",
        max_length=served.CONTEXT,
        ends=model.ends,
    )
    theirs = LocalCompletionsAPI(
        base_url=f"{server.url}/v1/completions",
        model=served.NAME,
        tokenizer_backend=backend,
        tokenizer=None if backend == "remote" else str(served.write(tmp_path)),
        add_bos_token=backend == "huggingface",
        max_length=served.CONTEXT,
        num_concurrent=1 if backend == "remote" else 4,
        batch_size=2,
        max_retries=1,
    )
    begin = BOS if backend == "remote" else ""
    for context in ("The cat sat on the", *"abcdefghijklmnop"):
        (greedy,) = model.generator.generate([Request(ids(model, context), 1)])
        if greedy.text.isascii():  # encoding it gives its token
            break
    endings = [" mat", " m", greedy.text, "x"]
    pairs = [(f"{begin}{context}", ending) for ending in endings] + [(f"{begin}1 + 1 =", " 2")]
    instances = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    found, expected = theirs.loglikelihood(instances), ours.loglikelihood(instances)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert [x for x, _ in found] == pytest.approx([x for x, _ in expected], abs=1e-4)
    assert {greedy for _, greedy in found} == {True, False}
    arguments = {"until": ["e", "\n"], "max_gen_toks": 12}
    asked = [(f"{begin}{text}", arguments) for text in ("abc", "x y", "1 + 1")]
    instances = [Instance("generate_until", {}, pair, i) for i, pair in enumerate(asked)]
    assert theirs.generate_until(instances) == ours.generate_until(instances)
    if backend == "remote":  # without a BOS, it differs
        instance = Instance("loglikelihood", {}, (context, " mat"), 0)
        (other, _), (with_bos, _) = [m.loglikelihood([instance])[0] for m in (theirs, ours)]
        assert other != pytest.approx(with_bos, abs=1e-3)


def test_the_routes_about_the_model_are_those_of_its_tokenizer(server, client):
    assert [entry.id for entry in client.models.list()] == [served.NAME]
    assert client.models.retrieve(served.NAME).max_model_len == served.CONTEXT
    assert requests.get(f"{server.url}/health").json() == {"status": "ok", "texts": 0}
    post = lambda route, **body: requests.post(f"{server.url}/{route}", json=body).json()
    expected = list(ids(server.model, "aé"))
    found = post("tokenize", prompt="aé", return_token_strs=True)
    assert (found["count"], found["tokens"]) == (4, expected)
    assert found["token_strs"][:2] == [BOS, "a"]
    assert post("tokenize", prompt="aé", add_special_tokens=False)["tokens"] == expected[1:]
    assert post("detokenize", tokens=expected[1:]) == {"prompt": "aé"}
    chat = post("tokenize", messages=MESSAGES)["tokens"]
    assert post("detokenize", tokens=chat)["prompt"].endswith("<assistant> ")
    assert requests.get(f"{server.url}/tokenizer_info").json()["bos_token"] == BOS


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "a", "penalty": 1}, "penalty"),
        ({"prompt": "a" * 200}, "prompt"),
        ({"prompt": "a", "max_tokens": 191}, "max_tokens"),
        ({"prompt": [264]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": "a", "stop_token_ids": [264]}, "stop_token_ids"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a"] * 100, "n": 3}, "n"),
        ({"prompt": "a", "temperature": float("nan")}, "temperature"),
        ({"prompt": "a", "seed": 10**250}, "seed"),
    ],
)
def test_what_cannot_be_served_is_refused_with_400(server, client, body, param):
    answer = requests.post(f"{server.url}/v1/completions", data=json.dumps(body))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]


def test_clients_see_the_kinds_of_errors(server, client):
    with pytest.raises(openai.BadRequestError, match="presence_penalty"):
        complete(client, presence_penalty=1)
    with pytest.raises(openai.NotFoundError, match="is not served"):
        client.completions.create(model="gpt", prompt="a")
    with pytest.raises(openai.NotFoundError, match="is not served"):
        client.models.retrieve("gpt")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=served.NAME, input="a")
    wrong_method = requests.get(f"{server.url}/v1/completions")
    assert (wrong_method.status_code, wrong_method.headers["Allow"]) == (405, "POST")
    too_deep = requests.post(f"{server.url}/tokenize", data=b"[" * 10_000)
    assert too_deep.status_code == 400


def test_an_error_of_the_program_is_500_without_its_traceback(server, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "rlp.serving")
    monkeypatch.setattr(Service, "tokenize", lambda *_: 1 / 0)
    answer = requests.post(f"{server.url}/tokenize", json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "ZeroDivision" not in answer.text
    assert "POST /tokenize 500 " in caplog.text


def test_a_body_of_100_mb_is_refused(server, client):
    answer = requests.post(f"{server.url}/v1/completions", data=b"x" * 10**8)
    assert answer.status_code == 413
    parts = (b"x" * 2**20 for _ in range(100))  # without a length in the header
    assert requests.post(f"{server.url}/v1/completions", data=parts).status_code == 413
    assert complete(client, max_tokens=1).usage.completion_tokens == 1


def wait_for(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("stream", [False, True])
def test_the_text_of_a_client_that_leaves_is_dropped(server, client, slow_steps, stream, caplog):
    caplog.set_level(logging.INFO, "rlp.serving")
    engine, address = server.serving.engine, urlsplit(server.url)
    body = {"prompt": ["abc", "x"], "max_tokens": None, "ignore_eos": True, "stream": stream}
    connection = http.client.HTTPConnection(address.hostname, address.port)
    connection.request("POST", "/v1/completions", json.dumps(body))
    assert wait_for(lambda: len(slow_steps) > 1, 30)
    assert engine.texts == 2
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    assert wait_for(lambda: engine.texts == 0, 5)
    assert len(slow_steps) < 192 // 16
    assert wait_for(lambda: "the client has left" in caplog.text, 5)
    assert complete(client, max_tokens=1).usage.completion_tokens == 1


def test_a_full_queue_is_429_and_the_queue_goes_on(server, slow_steps):
    with served.served(server.model, texts=4, queue=2) as small:
        url = f"{small.url}/v1/completions"
        body = {"prompt": "abc", "max_tokens": 32, "ignore_eos": True, "n": 2}
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(requests.post, url, json=body)
            assert wait_for(lambda: small.serving.engine.texts == 2, 10)
            second = requests.post(url, json={"prompt": "abc"})
            assert (second.status_code, second.headers["Retry-After"]) == (429, "1")
            assert second.json()["error"]["type"] == "rate_limit_error"
            assert first.result().status_code == 200
        assert requests.post(url, json={"prompt": "abc"}).status_code == 200


def test_a_request_is_one_line_in_the_log(server, client, caplog):
    caplog.set_level(logging.INFO, "rlp.serving")
    complete(client, max_tokens=2, extra_body={"ignore_eos": True})
    with pytest.raises(openai.BadRequestError):
        complete(client, extra_body={"a\nb": 1})
    (good, bad) = [record.getMessage() for record in caplog.records]
    assert good.startswith("127.0.0.1 POST /v1/completions 200 ")
    assert good.endswith(": 4 + 2 tokens, length")
    assert "\n" not in bad
    assert " 400 " in bad
