"""Runs an application on a socket with uvicorn, until it is asked to end."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from rlp.runtime.errors import UserError

CONNECTIONS = 1024  # at a time; more are answered with 503
SILENT = 60.0  # seconds after which a connection without a new request is closed
BACKLOG = 128  # connections that the system keeps until they are accepted


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; 0 is a free port.

    Raises:
      UserError: If the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # also of the name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--host={host} cannot be used: {reason}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise UserError(
            f"--host={host} --port={port} cannot be used: {error.strerror or error}; choose "
            "another port, or 0 for a free one"
        ) from error
    return bound


class Connection(H11Protocol):
    """A connection that is closed when its client begins no request."""

    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look for requests."""
        super().connection_made(transport)
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking for them."""
        super().connection_lost(exc)
        if self._look is not None:
            self._look.cancel()

    def _look_later(self) -> None:
        self._look = self.loop.call_later(SILENT, self._close_if_silent, self.cycle)

    def _close_if_silent(self, before: RequestResponseCycle | None) -> None:
        """Close the connection if no request has begun since the last look, and none is running."""
        running = self.cycle is not None and not self.cycle.response_complete
        if self.cycle is before and not running:
            self.transport.abort()
        else:
            self._look_later()


class Server(uvicorn.Server):
    """A server that leaves signals to the program and says when it is ready."""

    def __init__(self, app: Any, ready: Callable[[], None]) -> None:
        """Create it.

        Args:
          app: an ASGI application.
          ready: called when connections are accepted.
        """
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONNECTIONS,
                backlog=BACKLOG,
            )
        )
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        self._ready = ready
        self._loop: asyncio.AbstractEventLoop | None = None

    def end(self) -> None:
        """Ask the server to end; may be called by any thread."""
        self.should_exit = True

    def abort(self) -> None:
        """Close all connections at once, also those whose clients do not read their response; may
        be called by any thread."""

        def close_all() -> None:
            for connection in list(self.server_state.connections):
                connection.transport.abort()

        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(close_all)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals as they are."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._ready()
