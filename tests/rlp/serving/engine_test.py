"""Texts begin in the order of their jobs, and every job is told how it ends."""

import dataclasses
import queue
import time

import pytest

from rlp.evaluation.generation.requests import Request
from rlp.serving.engine import Engine, Failed, Finished, Job
from rlp.serving.fields import ApiError


def job(*requests, top=None, events=None) -> tuple[Job, queue.Queue]:
    events = queue.Queue() if events is None else events
    return Job(requests, top, False, events.put), events


@pytest.fixture
def engine(model):
    # Two rows of a prompt of 32 tokens and a response of 32, or one that is larger.
    generator = dataclasses.replace(model.generator, texts=4, tokens=2 * (32 + 32), context=192)
    started = Engine(generator, model.scorer, queue=8)
    yield started
    started.stop()


def test_nothing_passes_a_text_that_does_not_fit(engine):
    short, long = Request((97,), 32), Request(tuple(range(40)), 48)
    events = queue.Queue()
    first = Job((short, long, Request((98,), 1)), None, False, events.put)
    engine.submit(first)
    engine.start()
    order = [events.get(timeout=60).index for _ in range(3)]
    assert order == [0, 1, 2]
    engine.submit(Job((short, Request((98,), 1)), None, False, events.put))
    assert events.get(timeout=60).index == 1  # these two fit together


def test_a_text_without_tokens_is_finished_at_once_and_scored(engine):
    scored, events = job(Request((97, 98), 0), Request((97,), 0), top=1)
    engine.start()
    engine.submit(scored)
    found = {event.index: event for event in (events.get(timeout=60), events.get(timeout=60))}
    assert found[0].response.tokens == ()
    assert found[0].ranked.logprobs.shape == (1,)
    assert found[1].ranked is None  # a single token has nothing before it


def test_texts_are_scored_some_at_a_time_and_not_when_nobody_waits(engine, monkeypatch):
    calls = []

    def rank(scorer, rows, top):
        calls.append((len(rows), top))
        many.cancelled = len(calls) == 2
        return [None] * len(rows)

    monkeypatch.setattr("rlp.serving.engine.rank_tokens", rank)
    events = queue.Queue()
    one = Job((Request((97, 98), 0),), 5, False, events.put)
    many = Job((Request((97, 98), 0),) * 7, 1, False, lambda _: None)
    for jobs in ((one, many), (many, one)):
        many.cancelled = False
        for submitted in jobs:
            engine.submit(submitted)
        if not calls:
            engine.start()
        assert isinstance(events.get(timeout=60), Finished)
        while engine.texts:
            time.sleep(0.001)
    assert calls == [(1, 20), (4, 1), (4, 1), (3, 1), (1, 20)]


def test_a_cancelled_job_leaves_the_queue(engine):
    one, events = job(Request((97,), 32))
    two, others = job(Request((98,), 1))
    one.cancelled = True
    engine.submit(one)
    engine.submit(two)
    assert engine.texts == 2
    engine.start()
    assert isinstance(others.get(timeout=60), Finished)
    assert engine.texts == 0
    assert events.empty()


def test_the_queue_is_bounded(engine):
    engine.submit(job(*[Request((97,), 1)] * 6)[0])
    with pytest.raises(ApiError) as refused:
        engine.submit(job(*[Request((97,), 1)] * 3)[0])
    assert refused.value.status == 429
    engine.start()


def test_jobs_that_wait_fail_when_the_engine_stops(model):
    engine = Engine(model.generator, model.scorer, queue=8)
    waiting, events = job(Request((97,), 1))
    engine.submit(waiting)
    engine._stopping = True
    engine.start()
    assert "shutting down" in events.get(timeout=60).reason
    with pytest.raises(ApiError) as refused:
        engine.submit(waiting)
    assert refused.value.status == 503
    engine.stop()


def test_an_error_ends_the_engine_and_every_job(model, monkeypatch):
    failures = []
    engine = Engine(model.generator, model.scorer, 8, failed=lambda: failures.append(1))
    monkeypatch.setattr(type(model.generator), "batch", lambda *_, **__: 1 / 0)
    first, events = job(Request((97,), 1), Request((98,), 1))
    engine.submit(first)
    engine.start()
    assert isinstance(events.get(timeout=60), Failed)
    engine.stop()
    assert isinstance(engine.error, ZeroDivisionError)
    assert failures == [1]
    assert not engine.running
    assert events.empty()
