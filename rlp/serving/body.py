"""Reads the bodies of requests, bounded in size, in sum and in time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from rlp.serving.fields import ApiError

SECONDS = 60.0  # in which a body must arrive
DRAINED = 2**28  # bytes of a body that is too large which are read, so that its sender sees why
TOGETHER = 16  # bodies of the largest size that are held at a time

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientLeft(Exception):  # noqa: N818 - not an error
    """The client has closed the connection."""


class Bodies:
    """Reads bodies of at most `limit` bytes each."""

    def __init__(self, limit: int) -> None:
        """No body is held."""
        self._limit, self._held = limit, 0

    @contextlib.asynccontextmanager
    async def read(self, receive: Receive) -> AsyncIterator[bytes]:
        """Read a body, which counts as held within the context.

        Args:
          receive: of the request, as in ASGI.

        Raises:
          ApiError: If the body is too large or too slow, or too many are held.
          ClientLeft: If it is not complete.
        """
        with self._counted() as count:
            try:
                async with asyncio.timeout(SECONDS):
                    body = await self._whole(receive, count)
            except TimeoutError as error:
                raise ApiError(f"no whole body within {SECONDS:g} s", status=408) from error
            yield body

    @contextlib.contextmanager
    def _counted(self) -> Iterator[Callable[[int], None]]:
        held = 0

        def count(size: int) -> None:
            nonlocal held
            held, self._held = held + size, self._held + size

        try:
            yield count
        finally:
            self._held -= held

    async def _whole(self, receive: Receive, count: Callable[[int], None]) -> bytes:
        parts: list[bytes] = []
        size, refusal = 0, None
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size > self._limit:
                refusal = ApiError(f"the body has more than {self._limit} bytes", status=413)
            elif self._held + len(part) > TOGETHER * self._limit:
                refusal = ApiError("too many large requests; try again later", status=429)
            if refusal is None:
                count(len(part))
                parts.append(part)
                continue
            count(-sum(map(len, parts)))
            parts.clear()
            if size > DRAINED:
                break
        if refusal is not None:
            raise refusal
        return b"".join(parts)
