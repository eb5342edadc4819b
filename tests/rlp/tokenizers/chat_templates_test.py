"""Chat templates are rendered as transformers renders them, but within limits."""

import datetime
import os
import signal
import sys
import time

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from rlp.runtime.errors import UserError
from rlp.tokenizers import chat_templates
from rlp.tokenizers.chat_templates import LimitExceeded, Renderer, renderer

CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALLS = "{% for m in messages %}{{ m | tojson }}{{ m.reasoning_content }}{% endfor %}"
CONVERSATIONS = [
    [{"role": "user", "content": " é \ud800 \x00 "}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 10**6}],
    [{"role": "assistant", "content": "", "tool_calls": [{"a": [1, 2.5, None]}], "thinking": "t"}],
    [{"role": "user", "content": "a", "date": datetime.date(1, 2, 3), "raw": b"b", "pair": (1, 2)}],
]


def render(template, messages=CONVERSATIONS[0], ask=False):
    return render_with(renderer(), template, messages, ask)


def render_with(renderer, template, messages=CONVERSATIONS[0], ask=False):
    """Render one conversation, and raise the error if there is one."""
    roles = {"bos_token": "<s>"}
    (result,) = renderer.render(template, [(messages, ask)], roles, "the template of x")
    if isinstance(result, UserError):
        raise result
    return result


@pytest.mark.parametrize("template", [CHATML, CALLS])
@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_a_template_is_rendered_as_by_transformers(template, number):
    messages = CONVERSATIONS[number]
    for ask in (False, True):
        (expected,), _ = render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=ask, bos_token="<s>"
        )
        assert render(template, messages, ask) == expected


def test_an_error_of_a_template_is_one_line():
    for template in ("{{ raise_exception('a\nb') }}", "{% if %}", "{{ 1 / 0 }}"):
        with pytest.raises(UserError, match="^the chat template fails: [^\n]+$") as caught:
            render(template)
        assert not isinstance(caught.value, LimitExceeded)


LOOP = "{% for a in range(99999) %}"
ENDLESS = LOOP * 5 + "{% endfor %}" * 5
DOUBLED = "{% set n = namespace(x='a') %}" + (
    "{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
)


def test_a_template_that_does_not_end_is_refused_and_the_next_is_rendered(monkeypatch):
    render(CHATML)
    monkeypatch.setattr(chat_templates, "SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(LimitExceeded, match=r"the template of x takes longer than 0.5 s .*; corr"):
        render(ENDLESS)
    assert time.monotonic() - start < 20
    monkeypatch.undo()
    assert render("{{ messages[0].role }}") == "user"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited only on Linux")
@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 200000000000 }}",
        "{{ '{:99999999999}'.format(1) }}",
        DOUBLED,
    ],
)
def test_a_template_that_takes_all_memory_is_refused(template, monkeypatch):
    code = chat_templates._CODE.replace("serve()", LESS_MEMORY, 1)
    monkeypatch.setattr(chat_templates, "_CODE", code)
    small = Renderer()
    try:
        with pytest.raises(LimitExceeded, match="the template of x ended the process that renders"):
            render_with(small, template)
        assert render_with(small, "{{ messages[0].role }}") == "user"
    finally:
        small.stop()


LESS_MEMORY = (
    "import rlp.tokenizers.chat_templates; rlp.tokenizers.chat_templates.MEMORY = 2**28; serve()"
)


def test_a_template_that_writes_too_much_is_refused(monkeypatch):
    most = "{{ 'a' * 67108864 }}"
    assert len(render(most)) == 2**26
    with pytest.raises(LimitExceeded, match="writes more than 67,108,864 characters"):
        render(most + "b")


def test_a_process_that_was_killed_is_replaced():
    render(CHATML)
    os.kill(renderer()._process.pid, signal.SIGKILL)
    renderer()._process.wait()
    assert render("a") == "a"


def test_a_process_that_cannot_start_is_one_line(monkeypatch):
    monkeypatch.setattr(chat_templates, "_CODE", "")
    with pytest.raises(UserError, match="the process that renders chat templates did not start"):
        render_with(Renderer(), "a")


def test_several_are_rendered_in_order_up_to_the_limit(monkeypatch):
    template = "{% if messages[0].content == 1 %}{{ 1 / 0 }}{% elif messages[0].content == 3 %}"
    template += ENDLESS + "{% endif %}{{ messages[0].content }}"
    requests = [([{"role": "user", "content": number}], False) for number in range(5)]
    render("a")
    monkeypatch.setattr(chat_templates, "SECONDS", 1.0)
    results = renderer().render(template, requests, {}, "the template of x")
    assert (results[0], results[2]) == ("0", "2")
    assert [type(result) for result in results] == [str, UserError, str, LimitExceeded]
    assert renderer().render(template, requests[:1], {}, "x") == ["0"]


def test_signals_to_the_process_group_are_left_to_the_run():
    render(CHATML)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        os.kill(renderer()._process.pid, number)
    assert render("a") == "a"


def test_a_request_that_is_interrupted_answers_no_other():
    class Stop(BaseException):
        pass

    def stop(*_):
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(Stop):
            render(ENDLESS)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert render("a") == "a"
