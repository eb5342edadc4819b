"""The routes of the server, as a Starlette application."""

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from rlp.runtime.display import printable
from rlp.runtime.errors import UserError
from rlp.serving import fields, protocol, responses
from rlp.serving.body import Bodies, ClientLeft
from rlp.serving.engine import Engine, Finished, Job, Piece
from rlp.serving.fields import ApiError
from rlp.serving.service import Service, Work
from rlp.serving.updates import Updates

LOGGER = logging.getLogger(__name__)
CLIENT_LEFT = 499  # the status in the log when nobody waits for the response
Query = TypeVar("Query")
Result = TypeVar("Result")
Handler = Callable[[Request], Awaitable[Response]]


def build_app(service: Service, engine: Engine, body_limit: int) -> Starlette:
    """Return the application.

    Args:
      service: of the model.
      engine: of the same model; it must have been started.
      body_limit: most bytes of a request's body.
    """
    routes = _Routes(service, engine, Bodies(body_limit))
    get = lambda path, handler: Route(path, handler, methods=["GET"])
    post = lambda path, handler: Route(path, handler, methods=["POST"])
    return Starlette(
        routes=[
            get("/health", routes.health),
            get("/v1/models", routes.models),
            get("/v1/models/{name:path}", routes.model),
            get("/tokenizer_info", routes.tokenizer_info),
            post("/tokenize", routes.logged(routes.tokenize)),
            post("/detokenize", routes.logged(routes.detokenize)),
            post("/v1/completions", routes.logged(routes.completions)),
            post("/v1/chat/completions", routes.logged(routes.chat_completions)),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
    )


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    kind = "application/json"
    return Response(responses.encoded(content), status, headers=headers, media_type=kind)


def _refused(error: ApiError, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error. After a body that was not read to its end, the connection is closed."""
    headers = dict(headers or {})
    headers |= {"Retry-After": "1"} if error.status in (429, 503) else {}
    headers |= {"Connection": "close"} if error.status in (408, 413) else {}
    return _json(responses.error(error), error.status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer an unknown route or method."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path[:80]}: {error.detail}"
    return _refused(ApiError(message, status=error.status_code), error.headers)


async def _internal_error(request: Request, error: Exception) -> Response:
    """Answer after an error of this program, which uvicorn logs."""
    return _refused(ApiError("the server has failed; see its log", status=500))


class _Routes:
    """The handlers."""

    def __init__(self, service: Service, engine: Engine, bodies: Bodies) -> None:
        self._service, self._engine, self._bodies = service, engine, bodies
        # One thread: encoding, and the process that renders templates, serve one call at a time.
        self._texts = ThreadPoolExecutor(1, thread_name_prefix="texts")

    async def health(self, _: Request) -> Response:
        ok = self._engine.running
        content = {"status": "ok" if ok else "ending", "texts": self._engine.texts}
        return _json(content, 200 if ok else 503)

    async def models(self, _: Request) -> Response:
        service = self._service
        return _json(responses.models(service.model.name, service.created, service.context))

    async def model(self, request: Request) -> Response:
        service, name = self._service, request.path_params["name"]
        if name != service.model.name:
            message = f"the model {name[:80]!a} is not served; use {service.model.name!a}"
            return _refused(ApiError(message, 404, "model", "model_not_found"))
        return _json(responses.model(name, service.created, service.context))

    async def tokenizer_info(self, _: Request) -> Response:
        return _json(await self._in_thread(self._service.tokenizer_info))

    async def tokenize(self, request: Request) -> Response:
        read = protocol.read_tokenize
        return _json(await self._read(request, read, self._service.tokenize))

    async def detokenize(self, request: Request) -> Response:
        read = protocol.read_detokenize
        return _json(await self._read(request, read, self._service.detokenize))

    async def completions(self, request: Request) -> Response:
        read = protocol.read_completion
        return await self._answer(
            request, await self._read(request, read, self._service.completion)
        )

    async def chat_completions(self, request: Request) -> Response:
        read = protocol.read_chat
        return await self._answer(request, await self._read(request, read, self._service.chat))

    def logged(self, handler: Handler) -> Handler:
        """Return a handler that answers errors, and logs one line for every request."""

        @functools.wraps(handler)
        async def run(request: Request) -> Response:
            request.state.began, request.state.note = time.monotonic(), ""
            try:
                response = await handler(request)
            except ApiError as error:
                request.state.note = error.message
                response = _refused(error)
            except UserError as error:
                request.state.note = str(error)
                response = _refused(ApiError(" ".join(str(error).split())))
            except ClientLeft:
                request.state.note = "the client has left"
                response = Response(status_code=CLIENT_LEFT)
            except Exception:  # an error of this program, which is answered elsewhere
                request.state.note = "the server has failed"
                _log(request, 500)
                raise
            if not isinstance(response, StreamingResponse):
                _log(request, response.status_code)
            return response

        return run

    async def _read(
        self,
        request: Request,
        read: Callable[[Mapping[str, Any], str], Query],
        use: Callable[[Query], Result],
    ) -> Result:
        """Read the JSON of a request and encode its texts; its body counts as held until then."""
        run = lambda body: use(read(fields.read_object(body), self._service.model.name))
        async with self._bodies.read(request.receive) as body:
            return await self._in_thread(run, body)

    async def _in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run work on texts outside of the event loop."""
        run = functools.partial(function, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._texts, run)

    async def _answer(self, request: Request, work: Work) -> Response:
        """Generate the texts of a request, and answer it."""
        updates = Updates()
        job = Job(
            requests=work.requests,
            top=work.options.top,
            stream=work.options.stream,
            notify=updates.notify,
        )
        self._engine.submit(job)
        if work.options.stream:
            return _Stream(request, job, self._parts(request, work, updates))
        try:
            finished = await _unless_left(request, _all_finished(updates, len(work.requests)))
        except BaseException:
            job.cancelled = True
            raise
        request.state.note = _numbers(work, finished)
        return _json(await self._in_thread(self._service.response, work, finished))

    async def _parts(self, request: Request, work: Work, updates: Updates) -> AsyncIterator[bytes]:
        """Yield the events of a stream."""
        header, sent = work.header, [""] * len(work.requests)
        finished: list[Finished] = []
        started: set[int] = set()
        more = {"usage": None} if work.options.include_usage else {}
        while len(finished) < len(work.requests):
            try:
                events = await updates.take()
            except ApiError as error:
                request.state.note, request.state.status = error.message, error.status
                yield responses.event(responses.error(error))
                return
            for event in events:
                index, text, finish = event.index, _text_of(event), None
                if isinstance(event, Finished):
                    finished.append(event)
                    finish = event.response.finish
                new = _new(sent[index], text, finish is not None)
                if not new and finish is None:
                    continue
                sent[index] += new
                first = index not in started
                started.add(index)
                shown = (work.prefix(index) if first else "") + new
                yield responses.event(responses.chunk(header, index, shown, finish, first) | more)
        if work.options.include_usage:
            whole = header.json(chunk=True) | {"choices": [], "usage": work.usage(finished)}
            yield responses.event(whole)
        yield responses.LAST_EVENT
        request.state.note, request.state.status = _numbers(work, finished), 200


class _Stream(StreamingResponse):
    """A stream of events. When it ends, however it does, so does its job."""

    def __init__(self, request: Request, job: Job, parts: AsyncIterator[bytes]) -> None:
        """Create it; nothing is sent yet."""
        super().__init__(parts, media_type="text/event-stream")
        self._request, self._job = request, job
        request.state.note, request.state.status = "the client has left", CLIENT_LEFT

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; see ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.cancelled = True
            _log(self._request, self._request.state.status)


async def _all_finished(updates: Updates, count: int) -> list[Finished]:
    """Return `count` finished texts, in order."""
    found: dict[int, Finished] = {}
    while len(found) < count:
        for event in await updates.take():
            if isinstance(event, Finished):
                found[event.index] = event
    return [found[index] for index in range(count)]


async def _unless_left(request: Request, work: Awaitable[Result]) -> Result:
    """Wait for a result.

    Raises:
      ClientLeft: If the client leaves before.
    """
    result, left = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({result, left}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientLeft
        return result.result()
    finally:
        result.cancel()
        left.cancel()


async def _left(request: Request) -> None:
    """Return when the client has left; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _text_of(event: Piece | Finished) -> str:
    return event.text if isinstance(event, Piece) else event.response.text


def _new(sent: str, text: str, last: bool) -> str:
    """Return what is to be sent of a text after its beginning. Some decoders change characters that
    were whole when the next one breaks; then nothing is sent before the text is whole again."""
    return text[len(sent) :] if last or text.startswith(sent) else ""


def _numbers(work: Work, finished: list[Finished]) -> str:
    """Return what a log line says about responses."""
    usage = work.usage(finished)
    ends = ", ".join(sorted({one.response.finish for one in finished}))
    return f"{usage['prompt_tokens']} + {usage['completion_tokens']} tokens, {ends}"


def _log(request: Request, status: int) -> None:
    """Log a request in one line."""
    seconds = time.monotonic() - request.state.began
    client = request.client.host if request.client else "?"
    note = printable(" ".join(request.state.note.split()))[:300]
    line = f"{client} {request.method} {request.url.path} {status} {seconds:.2f} s"
    LOGGER.info("%s", f"{line}: {note}" if note else line)
