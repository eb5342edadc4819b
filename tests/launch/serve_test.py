"""The program that serves a model."""

import contextlib
import re
import signal
import socket
import sys
import threading
import time

import pytest

from rlp.run import serve
from rlp.runtime.errors import UserError
from rlp.serving.installed import app_and_server
from tests.support import folders, served

requests = pytest.importorskip("requests")
pytest.importorskip("starlette", reason="requirements-serve.txt")
pytest.importorskip("transformers")


def url_of(program, seconds: float = 120) -> str:
    """Wait for the line that says that the server is ready; return its URL."""
    end = time.monotonic() + seconds
    out = lambda: program._out.read_text() if program._out.exists() else ""
    while not (found := re.search(r" is served at (\S+); try: curl ", out())):
        assert program.poll() is None, program._err.read_text()
        assert time.monotonic() < end
        time.sleep(0.02)
    return found[1]


def test_it_says_when_it_is_ready_and_ends_with_0_after_its_requests(programs, tmp_path):
    served.write(tmp_path)
    words = ["launch.serve", "--checkpoint=tiny=hf", "--port=0", "--context=96"]
    with programs.started(words, tmp_path) as program:
        url = url_of(program)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        (line,) = program._out.read_text().splitlines()
        assert line.startswith(f"tiny is served at {url}; try: curl {url}/v1/completions -d '{{")
        answers = []
        body = {"prompt": "abc", "max_tokens": None, "ignore_eos": True, "stream": True}
        post = lambda: answers.append(requests.post(f"{url}/v1/completions", json=body))
        thread = threading.Thread(target=post)
        thread.start()
        while not requests.get(f"{url}/health").json()["texts"]:
            time.sleep(0.01)
        program.send(signal.SIGTERM)
        ran = program.wait(60)
        thread.join()
    assert ran.status == 0, ran.err
    assert answers[0].text.endswith("data: [DONE]\n\n")
    assert "POST /v1/completions 200 " in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.slow  # starts a program
def test_requests_that_are_not_finished_in_time_fail(programs, tmp_path):
    served.write(tmp_path)
    words = ["launch.serve", "--checkpoint=hf", "--port=0", "--grace=0"]
    with programs.started(words, tmp_path) as program:
        url = url_of(program)
        body = {"prompt": "abc", "max_tokens": None, "ignore_eos": True, "n": 128}
        answers = []
        post = lambda: answers.append(requests.post(f"{url}/v1/completions", json=body))
        thread = threading.Thread(target=post)
        thread.start()
        while not requests.get(f"{url}/health").json()["texts"]:
            time.sleep(0.01)
        program.send(signal.SIGINT)
        ran = program.wait(60)
        thread.join()
    assert ran.status == 0, ran.err
    assert answers[0].status_code == 503
    assert "shutting down" in answers[0].json()["error"]["message"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint=a=hf,b=hf"], "has 2 models; serve one of them"),
        (["--checkpoint=nothing"], "nothing"),
        (["--context=513"], "--context=513 is more than the 512 tokens that hf reads"),
        (["--host=.."], "--host=.. cannot be used"),
        (["--host=no.such.host.invalid"], "--host=no.such.host.invalid cannot be used"),
        (["--grace=nan"], "--grace=nan; it must be a finite number"),
        ([], "--port=PORT cannot be used: Address already in use"),
    ],
)
def test_bad_input_gets_one_line(programs, tmp_path, flags, message):
    folders.write(tmp_path / "hf")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        words = ["launch.serve", "--checkpoint=hf", f"--port={0 if flags else port}", *flags]
        ran = programs.run(words, tmp_path)
    assert ran.status == 2
    assert ran.out == ""
    line = ran.err.splitlines()[-1]  # after the progress of reading
    assert line.startswith("error: ")
    assert message.replace("PORT", port) in line


def test_without_the_packages_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match="pip install -r requirements-serve.txt"):
        app_and_server()
    with pytest.raises(UserError, match="pip install -r requirements-serve.txt"):
        serve.serve("nothing", serve.Settings())
