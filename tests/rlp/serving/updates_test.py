"""Of each text, only the newest event waits; a failure comes after what is left."""

import asyncio
import threading

import pytest

from rlp.evaluation.generation.requests import Response
from rlp.serving.engine import Failed, Finished, Piece
from rlp.serving.fields import ApiError
from rlp.serving.updates import Updates


def test_a_reader_that_stalls_finds_the_newest_event_of_each_text():
    async def run() -> None:
        updates = Updates()
        report = lambda: [updates.notify(Piece(at % 2, "x" * at)) for at in range(1000)]
        thread = threading.Thread(target=report)
        thread.start()
        thread.join()
        await asyncio.sleep(0)
        assert len(updates._newest) == 2
        assert {len(event.text) for event in await updates.take()} == {998, 999}
        done = Finished(0, Response((), "y", (), "stop"), None)
        for event in (Failed("the end"), Piece(0, "x"), done):
            updates.notify(event)
        assert await updates.take() == [done]
        with pytest.raises(ApiError, match="the end"):
            await updates.take()

    asyncio.run(run())


def test_nothing_is_reported_to_a_loop_that_has_ended():
    async def created() -> Updates:
        return Updates()

    asyncio.run(created()).notify(Piece(0, "x"))
