"""Bodies are bounded in size, in sum and in time, and a large one is not held."""

import asyncio
import contextlib
import tracemalloc

import pytest

from rlp.serving import body
from rlp.serving.body import Bodies, ClientLeft
from rlp.serving.fields import ApiError

LIMIT = 10_000


def receive(*parts, left=False):
    """Return a client that sends parts, and leaves after them or ends the body."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    end = {"type": "http.disconnect"} if left else {"type": "http.request", "body": b""}
    waiting = iter([*messages, end])

    async def next_message():
        return next(waiting)

    return next_message


def read(bodies: Bodies, client) -> bytes:
    async def run() -> bytes:
        async with bodies.read(client) as content:
            return content

    return asyncio.run(run())


def test_a_body_is_its_parts():
    bodies = Bodies(LIMIT)
    assert read(bodies, receive(b"a", b"", b"bc")) == b"abc"
    assert len(read(bodies, receive(b"a" * (LIMIT - 1), b"b"))) == LIMIT
    with pytest.raises(ApiError, match="more than 10000 bytes") as refused:
        read(bodies, receive(b"a" * LIMIT, b"b"))
    assert refused.value.status == 413


def test_a_body_of_100_mb_is_not_held():
    part = b"x" * 10**6

    async def client():
        nonlocal sent
        sent += 1
        return {"type": "http.request", "body": bytes(part), "more_body": sent < 100}

    sent = 0
    tracemalloc.start()
    try:
        with pytest.raises(ApiError) as refused:
            read(Bodies(4 * 10**6), client)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()
    assert (refused.value.status, sent) == (413, 100)  # it was read, so its sender gets the answer


def test_an_endless_body_is_not_read_to_its_end():
    async def client():
        return {"type": "http.request", "body": b"x" * 2**20, "more_body": True}

    with pytest.raises(ApiError) as refused:
        read(Bodies(LIMIT), client)
    assert refused.value.status == 413


def test_bodies_are_bounded_together():
    async def run():
        bodies = Bodies(LIMIT)
        full = lambda: bodies.read(receive(b"x" * LIMIT))
        async with contextlib.AsyncExitStack() as held:
            for _ in range(body.TOGETHER):
                await held.enter_async_context(full())
            with pytest.raises(ApiError) as refused:
                await held.enter_async_context(full())
            assert refused.value.status == 429
        async with full() as content:
            assert len(content) == LIMIT

    asyncio.run(run())


def test_what_was_dropped_of_a_body_does_not_count_while_the_rest_arrives():
    async def run():
        bodies = Bodies(LIMIT)
        waiting, last = asyncio.Event(), asyncio.Event()
        parts = iter([b"x" * LIMIT, b"x"])

        async def slow():
            part = next(parts, None)
            if part is None:
                waiting.set()
                await last.wait()
            return {"type": "http.request", "body": part or b"", "more_body": part is not None}

        async with contextlib.AsyncExitStack() as held:
            refused = asyncio.ensure_future(held.enter_async_context(bodies.read(slow)))
            await waiting.wait()
            for _ in range(body.TOGETHER):
                await held.enter_async_context(bodies.read(receive(b"x" * LIMIT)))
            last.set()
            with pytest.raises(ApiError, match="more than"):
                await refused

    asyncio.run(run())


def test_a_client_that_leaves_or_sends_nothing_is_given_up(monkeypatch):
    with pytest.raises(ClientLeft):
        read(Bodies(LIMIT), receive(b"a", left=True))
    monkeypatch.setattr(body, "SECONDS", 0.01)

    async def silent():
        await asyncio.sleep(60)

    with pytest.raises(ApiError) as refused:
        read(Bodies(LIMIT), silent)
    assert refused.value.status == 408
